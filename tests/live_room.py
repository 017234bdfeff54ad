"""A room for live tests: simulated venues behind loopback HTTP, real ccxt clients, the live engine on virtual time."""

import dataclasses
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basis_bt.core.live_models import Execution, Limits
from basis_bt.live.ccxt_venue import CcxtVenue
from basis_bt.live.combo import Combos
from basis_bt.live.fake.clients import loopback_client
from basis_bt.live.fake.faults import FaultPlan, FaultRule
from basis_bt.live.fake.rules import standard_contract
from basis_bt.live.fake.server import FakeExchange
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.virtual_time import VirtualClock
from basis_bt.live.guard import RiskGuard
from basis_bt.live.journal import Journal
from basis_bt.live.orders import ComboResult, Instruction
from basis_bt.live.paper import PaperVenue
from basis_bt.live.placing import Desk
from basis_bt.live.reconcile import Reconciler

PAIRS = (("binance", "binance"), ("bybit", "bybit"), ("okx", "okx"), ("binance", "okx"))
PRICE = 50_000.0
EXECUTION = Execution(request_timeout_s=1.0, leg_timeout_s=1.0, limit_timeout_s=1.0, reconcile_s=1.0)
LIMITS = Limits(max_spread_bps=10.0, max_notional_usd=1e6, max_failed_orders=1000)
CASH = {"spot": {"USDT": 100_000.0}, "perp": {"USDT": 100_000.0}}


def instruments(pair: tuple[str, str]) -> list[str]:
    return [f"spot:{pair[0]}:BTC-USDT", f"perp:{pair[1]}:BTC-USDT"]


@dataclass
class Room:
    """Everything of one session."""

    clock: VirtualClock
    fake: FakeExchange
    venues: dict[str, Any]
    desk: Desk
    combos: Combos
    keeper: Reconciler
    journal: Journal
    pair: tuple[str, str]
    number: int = 0
    reason: str = ""
    result: ComboResult | None = None

    @property
    def sims(self) -> dict[str, SimVenue]:
        """The accounts: those behind the fake exchange, or on paper those beside it."""
        papers = {name: one.account for name, one in self.venues.items() if isinstance(one, PaperVenue)}
        return papers or self.fake.venues

    def set_plan(self, plan: FaultPlan) -> None:
        """What goes wrong from now on."""
        self.fake.plan = plan
        for one in self.venues.values():
            if isinstance(one, PaperVenue):
                self.fake.plan, one.gate.plan = FaultPlan(), plan

    async def enter(self, quantity: float = 0.05) -> ComboResult:
        return await self.combos.enter(self._instruction("entry", (quantity, -quantity), quantity))

    async def leave(self) -> ComboResult:
        held = self.journal.positions_base()
        changes = tuple(-held.get(one, 0.0) for one in self.combos.instruments)
        return await self.combos.leave(self._instruction("exit", changes, abs(changes[-1])))

    def _instruction(self, action: Any, changes: tuple[float, ...], quantity: float) -> Instruction:
        self.number = self.journal.get("n_instructions", 0) + 1
        self.journal.put("n_instructions", self.number)
        return Instruction(
            number=self.number, action=action, reason="signal", direction=1, quantity=quantity, change_base=changes,
            arrival_price=tuple(self.sim(one).book(one).mid for one in self.combos.instruments),
            decided_us=self.clock.now_us(),
        )  # fmt: skip

    def sim(self, instrument: str) -> SimVenue:
        return self.sims[instrument.split(":")[1]]

    async def collect_funding(self) -> None:
        """Take in what the venues paid."""
        for instrument in self.combos.instruments[1:]:
            venue = self.venues[instrument.split(":")[1]]
            for payment in await venue.funding_payments(instrument, since_us=0):
                self.journal.funding(payment)

    async def watch(self, seconds: float) -> None:
        """Reconcile every second for a while."""
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s:
            await self.clock.sleep(1.0)
            await self.keeper.look()


def make_sims(pair: tuple[str, str], clock: VirtualClock) -> list[SimVenue]:
    legs = instruments(pair)
    sims = []
    for name in dict.fromkeys(pair):
        mine = [standard_contract(one) for one in legs if one.split(":")[1] == name]
        sim = SimVenue(name, mine, clock=clock, balances=CASH)
        for contract in mine:
            sim.make_book(contract.instrument, PRICE, spread_bps=0.5, depth_base=5.0)
        sims.append(sim)
    return sims


@asynccontextmanager
async def room(
    clock: VirtualClock,
    pair: tuple[str, str],
    *,
    rules: Sequence[FaultRule] = (),
    sims: Sequence[SimVenue] | None = None,
    folder: Path | None = None,
    execution: Execution = EXECUTION,
    limits: Limits = LIMITS,
    policy: Any = "refuse",
    atomicity: str = "rollback",
    is_paper: bool = False,
    **changes: Any,
):
    """Open clients first, then let the faults begin."""
    fake = FakeExchange(sims or make_sims(pair, clock))
    await fake.start()
    legs = instruments(pair)
    execution = dataclasses.replace(execution, **changes)
    venues: dict[str, Any] = {
        name: CcxtVenue(name, loopback_client(name, fake.base_url(name), clock), clock=clock, leverage=3.0)
        for name in dict.fromkeys(pair)
    }
    if is_paper:
        venues = {name: PaperVenue(one, clock=clock, balances=CASH) for name, one in venues.items()}
    journal = Journal(folder, durable=folder is not None, secrets=("loopback",))
    try:
        for name, venue in venues.items():
            await venue.open([one for one in legs if one.split(":")[1] == name])
        for sim in fake.venues.values():
            sim.requests.clear()
        desk = Desk(venues, journal, clock=clock, execution=execution)
        guard = RiskGuard(limits, 200_000.0)
        combos = Combos(
            desk, guard, instruments=legs, ratios=[1.0, -1.0], limits=limits, execution=execution, prefix="bb1",
            atomicity=atomicity,
        )  # fmt: skip
        keeper = Reconciler(combos, policy=policy)
        fake.plan = FaultPlan(rules)
        yield Room(clock, fake, venues, desk, combos, keeper, journal, pair)
        for task in combos.late.values():
            task.cancel()
    finally:
        for venue in venues.values():
            await venue.close()
        await fake.stop()
        journal.close()


def naked_us(sims: Sequence[SimVenue], *, tolerance: float, until_us: int) -> int:
    """The longest time for which the exposure of all venues together was above the tolerance, by their own books."""
    found = [(ts_us, sim.name, base, net) for sim in sims for ts_us, base, net in sim.exposures]
    changes = sorted(found, key=lambda change: change[0])
    net: dict[tuple[str, str], float] = {}
    longest, since = 0, None
    for ts_us, name, base, value in changes:
        net[name, base] = value
        is_naked = abs(sum(net.values())) > tolerance
        if is_naked and since is None:
            since = ts_us
        elif not is_naked and since is not None:
            longest, since = max(longest, ts_us - since), None
    return max(longest, until_us - since) if since is not None else longest


def tolerance_base(room: Room, quantity: float) -> float:
    """SPEC of the invariants: the larger lot, and the spot fee of the quantity."""
    spot, perp = (room.combos._contract(leg) for leg in (0, 1))
    return max(spot.lot_base, perp.lot_base) + quantity * spot.taker_fee_bps / 1e4


def check_invariants(room: Room, *, quantity: float, naked_s: float | None, may_be_naked: bool = False) -> None:
    """I1 to I10, from the venues' own state."""
    sims = list(room.sims.values())
    tolerance = tolerance_base(room, quantity)
    now_us = room.clock.now_us()
    net = sum(sim.net_base("BTC") for sim in sims)
    if not may_be_naked:
        assert abs(net) <= tolerance, f"I2: {net} is naked"
    if naked_s is not None:
        longest_s = naked_us(sims, tolerance=tolerance, until_us=now_us) / 1e6
        assert longest_s <= naked_s, f"I3: naked for {longest_s} s"
    for sim in sims:
        assert sim.open_orders() == [], "I4"
        assert sim.violations == [], "I5"
        assert sim.abuse == 0 and sim.n418 == 0, "I9"
    events = room.journal.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "I6: seq"
    check_orders_are_known(room, sims, events)
    check_same_holdings(room, sims)
    assert all("loopback" not in str(event) for event in events), "I10"


def check_orders_are_known(room: Room, sims: Sequence[SimVenue], events: Sequence[Any]) -> None:
    """I1, I6: every order of the venues has an intent before and an end after it, and fills at most what was meant."""
    ended = {event.client_order_id for event in events if event.type in ("order_done", "order_refused", "missing")}
    meant = {event.client_order_id: event for event in events if event.type == "intent"}
    for sim in sims:
        for order in sim.orders.values():
            client_id = order.ticket.client_order_id
            if not client_id.startswith(room.combos.prefix):
                continue
            assert client_id in meant, f"I6: {client_id} has no intent"
            assert meant[client_id].ts_us <= order.created_us, "I6: the intent came after"
            assert client_id in ended, f"I6: {client_id} has no end"
            lot = sim.contracts[order.ticket.instrument].lot_base
            assert order.filled_base <= meant[client_id].payload["quantity_base"] + lot, "I1"


def check_same_holdings(room: Room, sims: Sequence[SimVenue]) -> None:
    """I6, I8: the journal adds up to what the venues hold, to the lot and to 1e-8 in every asset."""
    held, cash = room.journal.positions_base(), room.journal.cash()
    for sim in sims:
        for instrument, contract in sim.contracts.items():
            truth = sim.position_base(instrument) if contract.is_margined else sim.balance(contract.base)
            assert abs(held.get(instrument, 0.0) - truth) < contract.lot_base / 2, f"I6: {instrument} {held} {truth}"
        had = sum(balances.get("USDT", 0.0) for balances in CASH.values())
        change = sim.balance("USDT") - had
        assert abs(cash.get(sim.name, {}).get("USDT", 0.0) - change) < 1e-8, (
            f"I8: {sim.name} {cash.get(sim.name)} {change}"
        )
