"""Trading on paper: market data of a real venue, fills and cash of a simulated account at it.

The engine cannot tell: what the live adapter raises for a lost reply, a refusal or an outage is raised here too, and a
fault plan makes the simulated account misbehave in the same ways as the loopback exchange. Two things are kinder than
the market: an order does not move anybody else, and a resting order is filled as soon as the book reaches its price.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from basis_bt.live.clock import Clock
from basis_bt.live.fake.bars import liquidation_price, margin
from basis_bt.live.fake.faults import LOST, FaultPlan, Plan
from basis_bt.live.fake.gate import Gate
from basis_bt.live.fake.lens import TRUTH, Lens
from basis_bt.live.fake.records import Refused, SimOrder, Ticket
from basis_bt.live.fake.rules import RULES, STANDARD
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import Treatment, seen_open
from basis_bt.live.orders import CLOSING, FundingPayment, LegOrder, OrderState, VenueTrade
from basis_bt.live.venue import Ack, Balance, Book, Contract, OrderRefused, OrderUnknown, Position, Venue, VenueDown

Answer = TypeVar("Answer")
#: the account's words for a refusal -> the live adapter's; the rest are the same
_KINDS = {"margin": "funds", "price_band": "price", "tick": "lot", "bad_request": "other", "not_found": "other"}


class PaperVenue(Venue):
    """One simulated account at one venue.

    Parameters
    ----------
    data : where books and contracts come from; nothing is ever sent there
    balances : cash by use and asset, ``{"spot": {"USDT": 1e5}, "perp": {"USDT": 1e5}}``
    plan : what goes wrong
    timeout_s : how long a reply that never comes is waited for
    """

    def __init__(
        self,
        data: Venue,
        *,
        clock: Clock,
        balances: Mapping[str, Mapping[str, float]],
        plan: Plan | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self.name = data.name
        self._data, self._clock, self._balances = data, clock, balances
        self._plan: Plan = plan or FaultPlan()
        self._timeout_s = timeout_s
        self._gate: Gate | None = None
        self._state: Mapping[str, Any] | None = None

    @property
    def gate(self) -> Gate:
        """What stands before the account; its plan may be replaced at any time."""
        if self._gate is None:
            raise RuntimeError("the paper account has not been opened")
        return self._gate

    @property
    def account(self) -> SimVenue:
        """The simulated account; there is one after ``open``."""
        return self.gate.sim

    # ---------------------------------------------------------------- contracts

    async def open(self, instruments: Sequence[str]) -> None:
        """Open the data, and an account that trades the same contracts."""
        await self._data.open(instruments)
        contracts = [self._data.contract(instrument) for instrument in instruments]
        sim = SimVenue(
            self.name, contracts, clock=self._clock, balances=self._balances, rules=RULES.get(self.name, STANDARD)
        )
        self._gate = Gate(sim, self._plan, clock=self._clock, timeout_s=self._timeout_s)
        if self._state is not None:
            sim.restore(self._state)
            for instrument in sim.positions:
                await self._see_book(instrument)

    async def close(self) -> None:
        """Close the data; what was to be executed late is forgotten."""
        if self._gate is not None:
            self._gate.close()
        await self._data.close()

    def contract(self, instrument: str) -> Contract:
        """As the data has it."""
        return self._data.contract(instrument)

    async def refresh(self, instrument: str) -> Contract:
        """As the data has it now."""
        self.account.contracts[instrument] = await self._data.refresh(instrument)
        return self.account.contracts[instrument]

    # -------------------------------------------------------------- market data

    async def book(self, instrument: str) -> Book:
        """The data's book, through the faults."""
        treatment = await self._ask("book", instrument)
        await self._see_book(instrument)
        seen = treatment.lens.book(self.account.book(instrument), self._clock.now_us())
        return Book(instrument=instrument, bids=seen.bids, asks=seen.asks, at_us=seen.at_us)

    async def _see_book(self, instrument: str) -> None:
        """Show the account the book of this moment; resting orders that it reaches are filled."""
        book = await self._data.book(instrument)
        self.account.set_book(instrument, tuple(book.bids), tuple(book.asks), at_us=book.at_us)

    async def worth(self, asset: str, *, quote: str) -> float:
        """As the data has it."""
        return await self._data.worth(asset, quote=quote)

    # ------------------------------------------------------------------- orders

    async def send(self, order: LegOrder) -> Ack:
        """Fill an order from the data's book of this moment."""
        ticket = _ticket(order)

        async def see_book() -> None:
            try:
                await self._see_book(order.instrument)
            except VenueDown as error:
                raise OrderRefused(f"no book to fill from: {error}") from None

        try:
            treatment, fault = await self.gate.enter(
                "create", order.instrument, closing=order.purpose in CLOSING, side=order.side, first=see_book,
                order_kind="limit" if ticket.kind == "limit" and ticket.time_in_force != "IOC" else "market",
            )  # fmt: skip
        except VenueDown as error:
            if error.kind == "rate":
                raise OrderRefused(str(error), kind="rate") from None
            raise OrderUnknown(str(error)) from None
        sim, kind = self.account, fault.kind if fault else ""
        if fault is not None and kind == "refuse":
            sim.refusals.append((fault.reason, ticket.instrument))
            raise _refusal(Refused(fault.reason, "refused by plan"))

        def execute() -> SimOrder:
            return sim.place(ticket, fill_share=treatment.fill_share)

        placed = None
        if fault is not None and kind == "late":
            self.gate.execute_late(fault.seconds, execute)
        elif kind != "cut_before":
            try:
                placed = execute()
            except Refused as refusal:
                if kind not in LOST:
                    raise _refusal(refusal) from None
        await self.gate.lose(fault)
        if placed is None or kind in LOST or kind == "duplicate":
            raise OrderUnknown(f"{self.name}: the reply to an order was lost ({kind})")
        return Ack(venue_order_id=placed.venue_order_id)

    async def find(self, order: LegOrder) -> OrderState | None:
        """The order by its client id; an open one first meets the book of this moment."""
        treatment = await self._ask("find", order.instrument)
        found = self.account.find(order.instrument, client_order_id=order.client_order_id)
        if found is None or treatment.lens.is_order_hidden:
            return None
        if found in self.account.open_orders(order.instrument):
            await self._see_book(order.instrument)
        return _state(found, treatment.lens)

    async def cancel(self, order: LegOrder, venue_order_id: str | None) -> bool:
        """Cancel; False where the account has no such open order."""
        return await self._cancel(order.instrument, venue_order_id or "", order.client_order_id)

    async def cancel_found(self, state: OrderState) -> bool:
        """The same of an order met at the account."""
        return await self._cancel(state.instrument, state.venue_order_id, state.client_order_id)

    async def _cancel(self, instrument: str, venue_order_id: str, client_order_id: str) -> bool:
        def execute(treatment: Treatment) -> bool:
            sim = self.account
            found = sim.find(instrument, venue_order_id=venue_order_id, client_order_id=client_order_id)
            try:
                sim.cancel(found, fill_share_before=treatment.fill_share_before_cancel)
            except Refused:
                return False
            return True

        return await self._answer("cancel", instrument, execute, closing=True)

    async def open_orders(self) -> list[OrderState]:
        """Open orders, after the books of this moment."""
        treatment = await self._ask("open_orders", None)
        sim = self.account
        for instrument in {order.ticket.instrument for order in sim.open_orders()}:
            await self._see_book(instrument)
        return [_state(order, treatment.lens) for order in seen_open(sim, None, treatment.lens)]

    async def trades(self, instrument: str, *, since_us: int, venue_order_id: str | None = None) -> list[VenueTrade]:
        """Own fills, each once however often the account tells it."""
        await self._ask("trades", instrument)
        return [
            VenueTrade(
                trade_id=row.trade_id, venue_order_id=row.venue_order_id, instrument=row.instrument, side=row.side,
                quantity_base=row.quantity_base, price=row.price, fee=row.fee, fee_asset=row.fee_asset,
                is_maker=row.is_maker, ts_us=row.ts_us,
            )
            for row in self.account.trades
            if row.instrument == instrument
            and row.ts_us >= since_us
            and venue_order_id in (None, row.venue_order_id)
        ]  # fmt: skip

    # ----------------------------------------------------------------- holdings

    async def balances(self) -> dict[str, Balance]:
        """By asset, over the wallets that trade."""
        await self._ask("balances", None)
        sim = self.account
        wallets = dict.fromkeys(sim.wallet_of(instrument) for instrument in sim.contracts)
        assets = dict.fromkeys(asset for wallet in wallets for asset in sim.wallets.cash[wallet])
        return {
            asset: Balance(
                total=sum(sim.wallets.amount(wallet, asset) for wallet in wallets),
                free=sum(sim.free(wallet, asset) for wallet in wallets),
            )
            for asset in assets
        }

    async def spot_balance(self, asset: str) -> Balance:
        """What the wallet that spot is sold from has of an asset."""
        return await self._in_wallet("spot", asset)

    async def margin_balance(self, asset: str) -> Balance:
        """What the wallet that margins contracts has of an asset."""
        return await self._in_wallet("perp", asset)

    async def _in_wallet(self, use: str, asset: str) -> Balance:
        await self._ask("balances", None)
        wallet = self.account.rules.wallets[use]
        return Balance(total=self.account.wallets.amount(wallet, asset), free=self.account.free(wallet, asset))

    async def positions(self) -> dict[str, Position]:
        """The margined positions that are not zero, valued at the mid of the last book seen."""
        treatment = await self._ask("positions", None)
        sim, out = self.account, {}
        for instrument, position in sim.positions.items():
            updated_us, base, entry = position.seen(treatment.lens.positions_lag)
            if not base:
                continue
            quote = sim.contracts[instrument].quote
            profit, _, maintenance = margin(sim, quote)
            equity = sim.wallets.amount(sim.wallet_of(instrument), quote) + profit
            out[instrument] = Position(
                instrument=instrument,
                position_base=base,
                entry_price=entry,
                mark_price=sim.mark_price(instrument),
                liquidation_price=liquidation_price(sim, instrument, base, entry),
                margin_ratio=maintenance / equity if equity > 0.0 else math.inf,
                updated_us=updated_us,
            )
        return out

    async def funding_payments(self, instrument: str, *, since_us: int) -> list[FundingPayment]:
        """Settlements booked by ``settle``."""
        await self._ask("funding_payments", instrument)
        return [
            FundingPayment(
                payment_id=row.payment_id, instrument=instrument, amount=row.amount, asset=row.asset, ts_us=row.ts_us
            )
            for row in self.account.funding
            if row.instrument == instrument and row.ts_us >= since_us
        ]

    async def transfer(self, asset: str, amount: float, *, source: str, target: str) -> str:
        """Between the account's wallets. Raises VenueDown where there is not enough."""

        def execute(_: Treatment) -> str:
            try:
                return self.account.transfer(asset, amount, source=source, target=target)
            except Refused as refusal:
                raise VenueDown(f"{self.name}: {refusal}") from None

        return await self._answer("transfer", None, execute, closing=True)

    def settle(self, instrument: str, rate: float, mark_price: float, ts_us: int) -> float:
        """Pay one funding settlement on the position held; returns the cash, positive when received."""
        return self.account.settle(instrument, rate, mark_price, ts_us=ts_us)

    # --------------------------------------------------------- across a restart

    def snapshot(self) -> dict[str, Any]:
        """Cash, positions and serial numbers, as JSON can hold them. Open orders are not kept: cancel them first."""
        return self.account.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Begin with what ``snapshot`` gave instead of the balances; call it before ``open``."""
        self._state = state

    # ------------------------------------------------------------------- faults

    async def _ask(self, operation: str, instrument: str | None) -> Treatment:
        """A question: how it is treated, or VenueDown."""
        return await self._answer(operation, instrument, lambda treatment: treatment)

    async def _answer(
        self,
        operation: str,
        instrument: str | None,
        execute: Callable[[Treatment], Answer],
        *,
        closing: bool = False,
    ) -> Answer:
        treatment, fault = await self.gate.enter(operation, instrument, closing=closing)
        kind = fault.kind if fault else ""
        if fault is not None and kind == "late":
            self.gate.execute_late(fault.seconds, lambda: execute(treatment))
        if kind in ("cut_before", "late", "refuse"):
            raise VenueDown(f"{self.name}: no answer ({kind})")
        answer = execute(treatment)
        await self.gate.lose(fault)
        if kind in LOST:
            raise VenueDown(f"{self.name}: the answer was lost ({kind})")
        return answer


def _ticket(order: LegOrder) -> Ticket:
    limit = order.limit_price
    force: Any = "GTX" if order.post_only else "IOC" if order.kind == "market" and limit is not None else "GTC"
    return Ticket(
        client_order_id=order.client_order_id,
        instrument=order.instrument,
        side=order.side,
        quantity_base=order.quantity_base,
        kind="market" if limit is None else "limit",
        limit_price=limit,
        time_in_force=force,
        reduce_only=order.reduce_only and not order.instrument.startswith("spot:"),
    )


def _refusal(refused: Refused) -> OrderRefused | OrderUnknown:
    if refused.kind == "duplicate":
        return OrderUnknown("the client order id is taken: an order of it exists")
    return OrderRefused(str(refused), kind=_KINDS.get(refused.kind, refused.kind))


def _state(order: SimOrder, lens: Lens = TRUTH) -> OrderState:
    moment, ticket = lens.order(order), order.ticket
    return OrderState(
        client_order_id=ticket.client_order_id,
        venue_order_id=order.venue_order_id,
        instrument=ticket.instrument,
        side=ticket.side,
        status=moment.status,
        quantity_base=ticket.quantity_base,
        filled_base=moment.filled_base,
        average_price=moment.filled_quote / moment.filled_base if moment.filled_base else None,
        updated_us=moment.ts_us,
    )
