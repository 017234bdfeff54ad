"""Whole trials of the live engine that both the suite and ``benchmarks/live_reliability.py`` run: soak, kills, cuts."""

import asyncio
import dataclasses
import gc
import hashlib
import re
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ccxt.async_support as ccxt
from live_room import check_orders_are_known, naked_us, tolerance_base
from live_world import Engine, Killed, MidFlight, Strike, World, world

from basis_bt.live.fake.faults import Fault, FaultPlan, FaultRule
from basis_bt.live.fake.soak import SoakPlan
from basis_bt.live.fake.virtual_time import run_virtual
from basis_bt.live.journal import Journal

QUANTITY = 0.05
REQUESTS = 60
_PORT = re.compile(r"127\.0\.0\.1:\d+")


# -- what must hold ----------------------------------------------------------------------------------------------------


def check_world(engine: Engine, *, naked_s: float | None, is_settled: bool = True, since_seq: int = 0) -> None:
    """I1 to I10 but for the count of requests, from the venues' own state."""
    sims, journal = list(engine.sims.values()), engine.journal
    tolerance = tolerance_base(engine, QUANTITY)
    if naked_s is not None:
        longest_s = naked_us(sims, tolerance=tolerance, until_us=engine.clock.now_us()) / 1e6
        assert longest_s <= naked_s, f"I3: naked for {longest_s} s"
    for sim in sims:
        assert sim.violations == [], f"I5, I7: {sim.violations}"
        assert sim.abuse == 0 and sim.n418 == 0, "I9: a pause was not kept"
    events = journal.events(since_seq=since_seq)
    assert [event.seq for event in events] == list(range(since_seq + 1, since_seq + 1 + len(events))), "I6: seq"
    assert all("loopback" not in str(event) for event in events), "I10"
    if is_settled:
        net = sum(sim.net_base("BTC") for sim in sims)
        assert abs(net) <= tolerance, f"I2: {net} is naked"
        assert [order.ticket for sim in sims for order in sim.open_orders()] == [], "I4"
        check_orders_are_known(engine, sims, events)
        check_cash_and_positions(journal, sims)


def check_cash_and_positions(journal: Journal, sims: list[Any]) -> None:
    """I6, I8: the journal adds up to what the venues hold, to the lot, and to 1e-8 in every asset.

    Cash is compared since the last time: a venue tells each amount with a few digits less than it books, and over a
    thousand cycles that adds up to more.
    """
    held, cash = journal.positions_base(), journal.cash()
    for sim in sims:
        for instrument, contract in sim.contracts.items():
            truth = sim.position_base(instrument)
            told = held.get(instrument, 0.0)
            assert abs(told - truth) < contract.lot_base / 2.0 + 1e-8, f"I6: {instrument} {told} {truth}"
        change = sim.balance("USDT") - 200_000.0
        told = cash.get(sim.name, {}).get("USDT", 0.0)
        before = getattr(sim, "told_less_usd", 0.0)
        assert abs(told - change - before) < 1e-8, f"I8: {sim.name} {told} {change}"
        sim.told_less_usd = told - change


def naked_since_s(sims: list[Any], tolerance: float, *, since_us: int, until_us: int) -> float:
    """The longest time with an exposure above the tolerance, what was before an instant counted from then on."""
    moved = [
        SimpleNamespace(name=sim.name, exposures=[(max(at, since_us), base, net) for at, base, net in sim.exposures])
        for sim in sims
    ]
    return naked_us(moved, tolerance=tolerance, until_us=until_us) / 1e6  # type: ignore[arg-type]


# -- F34 ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Soak:
    """What a soak came to."""

    cycles: int = 0
    struck: int = 0
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)
    most_requests: int = 0
    creates: dict[str, int] = dataclasses.field(default_factory=dict)
    longest_naked_s: float = 0.0
    grown_mb: float = 0.0
    digest: str = ""


def soak(pair: tuple[str, str], folder: Path, *, cycles: int, seed: int, probability: float = 0.05) -> Soak:
    """Open and close again and again while one request in twenty meets a fault; all is checked after every cycle."""

    async def main(clock: Any) -> Soak:
        found = Soak()
        async with world(clock, pair, folder) as it:
            engine = await it.restart()
            plan = it.fake.plan = SoakPlan(seed=seed, probability=probability)
            baseline_mb = 0.0
            for cycle in range(cycles):
                if cycle == min(100, cycles // 2):
                    baseline_mb = _memory_mb()
                seq = engine.journal.last_seq
                try:
                    await _cycle(engine, plan, found)
                    check_world(engine, naked_s=12.0, since_seq=seq)
                    _count(engine, found)
                except Exception as error:
                    found.failures.append(f"seed {seed}, cycle {cycle}: {type(error).__name__}: {error}"[:400])
                    break
                finally:
                    found.cycles += 1
                _forget(it, clock.now_us())
            found.grown_mb = _memory_mb() - baseline_mb
            found.struck = len(plan.fired)
            found.digest = digest(engine.journal)
        return found

    return run_virtual(main)


async def _cycle(engine: Engine, plan: SoakPlan, found: Soak) -> None:
    """One opening and closing under faults, then a quiet while in which everything has to come right."""
    plan.is_on = True
    opened = (await engine.enter(QUANTITY)).outcome
    found.outcomes[opened] = found.outcomes.get(opened, 0) + 1
    await engine.watch(1.0)
    closed = (await engine.leave()).outcome
    found.outcomes["then " + closed] = found.outcomes.get("then " + closed, 0) + 1
    plan.is_on = False
    for sim in engine.sims.values():
        sim.clock_offset_ms = 0
    engine.n_requests_under_fire = {name: len(sim.requests) for name, sim in engine.sims.items()}  # type: ignore[attr-defined]
    for _ in range(40):
        await engine.watch(1.0)
        is_busy = engine.combos.late or engine.combos.watched or engine.keeper._seen
        if not is_busy and all(abs(sim.net_base("BTC")) < 1e-3 for sim in engine.sims.values()):
            break


def _count(engine: Engine, found: Soak) -> None:
    for sim in engine.sims.values():
        found.most_requests = max(found.most_requests, engine.n_requests_under_fire[sim.name])  # type: ignore[attr-defined]
        for instrument, creates in sim.creates.items():
            kind = instrument.split(":")[0]
            found.creates[kind] = found.creates.get(kind, 0) + creates
    longest_us = naked_us(
        list(engine.sims.values()), tolerance=tolerance_base(engine, QUANTITY), until_us=engine.clock.now_us()
    )
    found.longest_naked_s = max(found.longest_naked_s, longest_us / 1e6)


def _forget(it: World, before_us: int) -> None:
    """The venues keep nothing of a cycle that is over."""
    for sim in it.sims.values():
        sim.forget(before_us=before_us + 100_000_000)  # stamps may be ahead
        sim.requests.clear()
        sim.creates.clear()


def _memory_mb() -> float:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def digest(journal: Journal) -> str:
    """Of all events; the port of the loopback server, which the system picks, is no part of it."""
    total = hashlib.sha256()
    for event in journal.events():
        total.update(_PORT.sub("127.0.0.1", repr(event)).encode())
    return total.hexdigest()


# -- F38 ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KillPoint:
    """Where a process ends, and what it was doing: ``during`` names the work, ``rules`` what brings it there."""

    strike: Strike
    during: str = "enter"
    rules: tuple[FaultRule, ...] = ()
    style: Any = "market"


def _at_order(name: str, market: str, purpose: str, mid_s: float | None = None) -> Strike:
    def strike(step: str, facts: dict[str, Any]) -> BaseException | MidFlight | None:
        order = facts.get("order")
        is_it = step == name and order is not None and order.purpose == purpose and order.instrument.startswith(market)
        if not is_it or (step == "ask" and facts["method"] != "POST"):
            return None
        return Killed() if mid_s is None else MidFlight(mid_s)

    return strike


def _at_event(type: str, market: str, purpose: str) -> Strike:
    """Just after the event of an order is on disk."""
    purposes: dict[str, str] = {}

    def strike(step: str, facts: dict[str, Any]) -> BaseException | None:
        if step == "written" and facts["type"] == "intent":
            purposes[facts["client_order_id"]] = facts["payload"]["purpose"]
        is_it = (
            step == "written" and facts["type"] == type and (facts["instrument"] or "").startswith(market)
            and purposes.get(facts["client_order_id"]) == purpose
        )  # fmt: skip
        return Killed() if is_it else None

    return strike


def _at_cancel(step: str, facts: dict[str, Any]) -> MidFlight | None:
    return MidFlight(0.015) if step == "ask" and facts["is_cancel"] else None


SENT_S, ACCEPTED_S = 0.005, 0.015  # a request is executed 10 ms after it left, and answered 10 ms later
_RESTS = FaultRule(
    fault=Fault(kind="fill_share", share=0.4), operation="create", market="perp", order_kind="limit", count=None
)
KILL_POINTS: dict[str, KillPoint] = {
    **{
        f"{market} {name}": KillPoint(strike=strike)
        for market in ("spot", "perp")
        for name, strike in {
            "before it is sent": _at_event("intent", market, "entry"),
            "sent": _at_order("ask", market, "entry", SENT_S),
            "accepted": _at_order("ask", market, "entry", ACCEPTED_S),
            "answered": _at_order("acked", market, "entry"),
            "logged": _at_event("ack", market, "entry"),
        }.items()
    },
    "cancel": KillPoint(strike=_at_cancel, rules=(_RESTS,), style={"perp": "limit_then_market"}),
    "rollback": KillPoint(
        strike=_at_order("ask", "spot", "rollback", ACCEPTED_S),
        rules=(FaultRule(fault=Fault(kind="refuse", reason="margin"), operation="create", market="perp"),),
    ),
    "exit": KillPoint(strike=_at_order("ask", "perp", "exit", ACCEPTED_S), during="leave"),
    "shutdown": KillPoint(strike=_at_order("ask", "spot", "stop", ACCEPTED_S), during="stop"),
}


def kill_trial(
    point: KillPoint, pair: tuple[str, str], folder: Path, *, dead_s: float = 0.0, late_s: float = 0.0,
    is_durable: bool = False,
) -> str:  # fmt: skip
    """Kill at a point, start again ``dead_s`` later, and see that all is well. Returns what is held then.

    ``late_s``: the venue takes the order that was under way only so long after its connection was lost.
    """

    async def main(clock: Any) -> str:
        async with world(clock, pair, folder) as it:
            engine = await it.begin(style=point.style, is_durable=is_durable)
            await engine.alive(engine.keeper.start())
            if point.during != "enter":
                assert (await engine.alive(engine.enter(QUANTITY))).outcome == "opened"
            rules = list(point.rules)
            if late_s:
                rules.append(FaultRule(fault=Fault(kind="late", seconds=late_s), operation="create"))
            it.fake.plan = FaultPlan(rules)
            engine.power.strike = point.strike
            work = {"enter": lambda: engine.enter(QUANTITY), "leave": engine.leave, "stop": engine.keeper.stop}
            try:
                await engine.alive(work[point.during]())
            except Killed:
                pass
            else:
                raise AssertionError("the process was to be killed")
            it.fake.plan = FaultPlan()
            await clock.sleep(dead_s)
            engine = await it.restart(is_durable=is_durable)
            await engine.alive(engine.watch(13.0))
            return await _after_restart(engine)

    return run_virtual(main)


async def _after_restart(engine: Engine) -> str:
    """All invariants, no order twice, and the pair can be closed or opened as if nothing had been."""
    check_world(engine, naked_s=None)
    begun_us = engine.begun_us
    sims = list(engine.sims.values())
    naked_s = naked_since_s(sims, tolerance_base(engine, QUANTITY), since_us=begun_us, until_us=engine.clock.now_us())
    assert naked_s <= 5.0, f"I3: naked for {naked_s} s after the restart"
    for sim in sims:
        ids = [order.ticket.client_order_id for order in sim.orders.values()]
        assert len(ids) == len(set(ids)), "an order was sent twice"
        for instrument in sim.contracts:
            assert abs(sim.position_base(instrument)) <= QUANTITY * 1.002, "I1: more than was meant"
    perp = engine.combos.instruments[1]
    held = "opened" if abs(engine.journal.positions_base().get(perp, 0.0)) > 1e-3 else "flat"
    if engine.guard.is_open(engine.clock.now_us()):
        return "halted"
    if held == "opened":
        assert (await engine.alive(engine.leave())).outcome == "flat"
    else:
        done = await engine.alive(engine.enter(QUANTITY))
        assert done.outcome == "opened", done.reason
        assert (await engine.alive(engine.leave())).outcome == "flat"
    check_world(engine, naked_s=None)
    return held


# -- fail at the nth await ---------------------------------------------------------------------------------------------

CUTS = ("cancelled", "timeout", "killed")
SCENES: dict[str, tuple[FaultRule, ...]] = {
    "plain": (),
    "lost": (FaultRule(fault=Fault(kind="cut_after"), operation="create", count=2),),
    "never sent": (FaultRule(fault=Fault(kind="cut_before"), operation="create", market="perp", count=1),),
    "rolled back": (FaultRule(fault=Fault(kind="refuse", reason="margin"), operation="create", market="perp"),),
}
_ERRORS = {"cancelled": asyncio.CancelledError, "timeout": lambda: ccxt.RequestTimeout("POST"), "killed": Killed}


def count_awaits(pair: tuple[str, str], scene: str = "plain") -> dict[str, int]:
    """How often an open-and-close waits: for a request to leave, for its answer, for time to pass."""
    counts: dict[str, int] = {"ask": 0, "answer": 0, "sleep": 0}

    def strike(step: str, facts: dict[str, Any]) -> None:
        if step in counts:
            counts[step] += 1

    async def main(clock: Any) -> dict[str, int]:
        async with world(clock, pair, None) as it:
            engine = await it.begin()
            await engine.alive(engine.keeper.start())
            it.fake.plan = FaultPlan(SCENES[scene])
            engine.power.strike = strike
            await _open_and_close(engine)
        return counts

    return run_virtual(main)


async def _open_and_close(engine: Engine) -> None:
    await engine.alive(engine.enter(QUANTITY))
    await engine.alive(engine.watch(1.0))
    await engine.alive(engine.leave())
    await engine.alive(engine.watch(1.0))


def cut_trial(pair: tuple[str, str], folder: Path, *, cut: str, step: str, n: int, scene: str = "plain") -> str:
    """The n-th await of a kind raises, or is the last thing the process does; then a restart. Returns what is held."""
    seen = 0

    def strike(name: str, facts: dict[str, Any]) -> BaseException | None:
        nonlocal seen
        if name != step:
            return None
        seen += 1
        return _ERRORS[cut]() if seen == n else None

    async def main(clock: Any) -> str:
        async with world(clock, pair, folder) as it:
            engine = await it.begin()
            await engine.alive(engine.keeper.start())
            it.fake.plan = FaultPlan(SCENES[scene])
            engine.power.strike = strike
            try:
                await _open_and_close(engine)
            except (Killed, asyncio.CancelledError):
                assert cut != "timeout", "a timeout came through"
            it.fake.plan = FaultPlan()
            engine = await it.restart()
            await engine.alive(engine.watch(12.0))
            return await _after_restart(engine)

    return run_virtual(main)
