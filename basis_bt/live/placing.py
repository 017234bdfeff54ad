"""One order from its intent to what became of it: written down, sent once, looked up until its end is known."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from basis_bt.core.live_models import Execution
from basis_bt.live import event_types
from basis_bt.live.clock import Clock
from basis_bt.live.guard import resting_reason
from basis_bt.live.journal import Journal
from basis_bt.live.orders import OPEN, LegOrder, LegResult, OrderState, VenueTrade
from basis_bt.live.results import leg_result
from basis_bt.live.venue import OrderRefused, OrderUnknown, Venue, VenueDown

BEFORE_SEND_US = 2_000_000  # trades are asked from so much before the send: clocks differ
DISAGREEMENTS = 8  # polls after which trades are believed where they are more than the order's own words
RESTING_POLL_S = 0.5


class Desk:
    """Sends orders and finds out what became of them. Every order is in the journal before it leaves.

    Parameters
    ----------
    venues : by name
    leg_timeout_s : by venue, where it is not that of ``execution``
    is_modelled : fills are a model's (a replay): nothing is looked up twice, nothing rests
    """

    def __init__(
        self,
        venues: Mapping[str, Venue],
        journal: Journal,
        *,
        clock: Clock,
        execution: Execution,
        is_modelled: bool = False,
        leg_timeout_s: Mapping[str, float] | None = None,
    ) -> None:
        self.venues, self.journal, self.clock, self.execution = venues, journal, clock, execution
        self.is_modelled = is_modelled
        self._leg_timeout_s = dict(leg_timeout_s or {})
        #: the orders this desk knows, by instrument and the venue's id: two venues may give the same one
        self.known_ids = {
            (event.instrument, str(event.payload["venue_order_id"]))
            for event in journal.events((event_types.ACK, event_types.FOUND, event_types.FILL))
        }
        #: called with the fills of an order, so that what it writes into the journal is there with them or not at all
        self.on_done: Callable[[], None] = lambda: None
        #: when the last own fill was learnt, by instrument
        self.last_fill_us: dict[str, int] = {}
        #: orders that no venue seems to have, by client id
        self.unfound: dict[str, LegOrder] = {}
        self._used_ids = {event.client_order_id for event in journal.events(event_types.INTENT)}

    async def place(
        self, order: LegOrder, *, timeout_s: float | None = None, hurry: asyncio.Event | None = None
    ) -> LegResult:
        """Send an order and wait for its end; a resting one is cancelled after ``timeout_s``, or once ``hurry`` is set.

        The result's event is ``filled``, ``partial``, ``refused`` or ``missing`` (the venue never had it). This returns
        only when one of them is certain: who cannot wait leaves it running.
        """
        order = dataclasses.replace(order, sent_us=self.clock.now_us())
        if order.client_order_id in self._used_ids:  # e.g. an instruction that a restart begins again
            self._note(event_types.INCIDENT, order, kind="sent_before")
            return self._empty(order, "refused", "sent_before: an order of this id has been sent already")
        self._used_ids.add(order.client_order_id)
        self.journal.order_intent(order)
        return await self._sent(order, _Patience(timeout_s, hurry))

    async def _sent(self, order: LegOrder, patience: "_Patience") -> LegResult:
        try:
            ack = await self.venues[order.venue].send(order)
        except OrderRefused as error:
            self._note(event_types.ORDER_REFUSED, order, kind=error.kind, reason=str(error))
            return self._empty(order, "refused", f"{error.kind}: {error}")
        except Exception as error:  # also what nobody thought of: the request may have left
            self._note(event_types.UNKNOWN, order, reason=_plain(error))
            return await self.resolve(order, patience)
        self._note(event_types.ACK, order, venue_order_id=ack.venue_order_id)
        self.known_ids.add((order.instrument, ack.venue_order_id))
        return await self._settle(order, ack.venue_order_id, None, patience)

    async def resolve(self, order: LegOrder, patience: "_Patience | None" = None) -> LegResult:
        """Look an order up of which nobody knows whether the venue has it, until that is known.

        Not found is believed after several look-ups, some seconds, and a look at open orders and own trades: the order
        may land late, and a venue's machines may not agree yet.
        """
        patience = patience or _Patience(None, None)
        begun_s, n_absent = self.clock.monotonic_s(), 0
        for pause_s in self._pauses():
            await self.clock.sleep(pause_s)
            try:
                state = await self.venues[order.venue].find(order)
                if state is not None:
                    self.known_ids.add((order.instrument, state.venue_order_id))
                    self._note(event_types.FOUND, order, venue_order_id=state.venue_order_id, status=state.status)
                    return await self._settle(order, state.venue_order_id, state, patience)
                n_absent += 1
                waited_s = self.clock.monotonic_s() - begun_s
                is_due = n_absent >= self.execution.look_ups_to_missing and waited_s >= self.execution.missing_after_s
                if is_due and await self._is_nowhere(order, waited_s):
                    break
            except VenueDown:
                continue
        self._note(event_types.MISSING, order, look_ups=n_absent)
        self.unfound[order.client_order_id] = order
        return self._empty(order, "missing", f"{order.venue} has no such order after {n_absent} look-ups")

    async def look_again(self, order: LegOrder) -> LegResult | None:
        """Whether an order that was missing has landed after all, and what it came to."""
        try:
            if await self.venues[order.venue].find(order) is None:
                return None
        except VenueDown:
            return None
        self.unfound.pop(order.client_order_id, None)
        return await self.resolve(order)

    async def _is_nowhere(self, order: LegOrder, waited_s: float) -> bool:
        """Neither among the open orders nor, by a trade nobody accounts for, among the filled ones.

        Such a trade may be somebody else's or the venue's own: past the grace time it is no reason to wait.
        """
        venue = self.venues[order.venue]
        if any(one.client_order_id == order.client_order_id for one in await venue.open_orders()):
            return False
        if waited_s >= self.execution.grace_s:
            return True
        since_us = order.sent_us - BEFORE_SEND_US
        trades = await venue.trades(order.instrument, since_us=since_us)
        return not any(
            trade.side == order.side
            and trade.ts_us >= order.sent_us
            and (trade.instrument, trade.venue_order_id) not in self.known_ids
            for trade in trades
        )

    async def _settle(
        self, order: LegOrder, venue_order_id: str, state: OrderState | None, patience: "_Patience"
    ) -> LegResult:
        """Wait until the order can fill no more and its trades agree with it."""
        venue, execution = self.venues[order.venue], self.execution
        lot = venue.contract(order.instrument).lot_base
        own_s = self._leg_timeout_s.get(order.venue, execution.leg_timeout_s)
        wait_s = own_s if patience.timeout_s is None else patience.timeout_s
        is_resting = order.kind == "limit"
        begun_s, asked_us, n_differing = self.clock.monotonic_s(), None, 0
        pauses = self._pauses()
        while True:
            try:
                if state is None:
                    state = await venue.find(order)
                if state is not None and state.status != OPEN:
                    trades = await venue.trades(
                        order.instrument, since_us=order.sent_us - BEFORE_SEND_US, venue_order_id=venue_order_id
                    )
                    filled = sum(trade.quantity_base for trade in trades)
                    is_agreed = abs(filled - state.filled_base) <= max(lot / 2.0, 1e-12 * order.quantity_base)
                    n_differing += 0 if is_agreed else 1
                    is_more = filled > state.filled_base  # a status can lag its trades, but less is never believed
                    if n_differing == DISAGREEMENTS:
                        self._note(
                            event_types.INCIDENT, order, kind="trades_differ", filled_base=state.filled_base,
                            traded_base=filled,
                        )  # fmt: skip
                    if is_agreed or (is_more and n_differing >= DISAGREEMENTS):
                        return await self._done(order, venue_order_id, state, trades, asked_us is not None)
                elif state is not None and state.filled_base > 0.0 and patience.hurry is not None:
                    patience.hurry.set()
                if state is not None and state.status != OPEN:
                    pass
                elif asked_us is None and (
                    self.clock.monotonic_s() - begun_s >= wait_s or (is_resting and patience.is_over)
                ):
                    asked_us = await self._ask_to_cancel(order, venue_order_id)
                    pauses = self._pauses()
                elif asked_us is None and is_resting:
                    reason = await self._rest_reason(order)
                    if reason:
                        self._note(event_types.INCIDENT, order, kind="resting_cancelled", reason=reason)
                        asked_us = await self._ask_to_cancel(order, venue_order_id)
                        pauses = self._pauses()
            except VenueDown:
                pass
            state = None
            left_s = wait_s - (self.clock.monotonic_s() - begun_s)
            pause_s = next(pauses)
            if asked_us is None:
                pause_s = min(pause_s, RESTING_POLL_S, left_s if left_s > 0.05 else 0.05)
            await self.clock.sleep(max(pause_s, 0.05))

    async def _ask_to_cancel(self, order: LegOrder, venue_order_id: str) -> int:
        """Ask once; what it came to is read back in any case, since a reply can be lost and a fill can be first."""
        asked_us = self.clock.now_us()
        self._note(event_types.CANCEL_ASKED, order, venue_order_id=venue_order_id)
        await self.venues[order.venue].cancel(order, venue_order_id)
        return asked_us

    async def _rest_reason(self, order: LegOrder) -> str | None:
        """Why a resting order should not rest any longer: the spread, or its age."""
        book = await self.venues[order.venue].book(order.instrument)
        return resting_reason(
            spread_bps=book.spread_bps,
            age_s=(self.clock.now_us() - order.sent_us) / 1e6,
            max_spread_bps=self.execution.resting_max_spread_bps,
            max_age_s=self.execution.resting_max_age_s,
        )

    async def _done(
        self, order: LegOrder, venue_order_id: str, state: OrderState, trades: list[VenueTrade], was_cancelled: bool
    ) -> LegResult:
        venue = self.venues[order.venue]
        contract = venue.contract(order.instrument)
        worth: dict[str, float] = {}
        for asset in {trade.fee_asset for trade in trades} - {contract.base, contract.quote}:
            try:
                worth[asset] = await venue.worth(asset, quote=contract.quote)
            except VenueDown as error:
                worth[asset] = 0.0
                self._note(event_types.INCIDENT, order, kind="fee_not_valued", asset=asset, reason=str(error))
        done_us = self.clock.now_us()
        result = leg_result(
            order, trades, contract=contract, worth=worth, done_us=done_us, venue_order_id=venue_order_id,
            reason="" if state.filled_base or trades else f"{state.status} without a fill",
        )  # fmt: skip
        with self.journal.together():
            for trade in trades:
                self.journal.fill(trade, client_order_id=order.client_order_id, intent=order.intent)
            self._note(
                event_types.ORDER_DONE, order, venue_order_id=venue_order_id, status=state.status,
                filled_base=result.filled_base, was_cancelled=was_cancelled,
            )  # fmt: skip
            self.on_done()
        if trades:
            self.last_fill_us[order.instrument] = done_us
        return result

    def _empty(self, order: LegOrder, event: str, reason: str) -> LegResult:
        contract = self.venues[order.venue].contract(order.instrument)
        return leg_result(
            order, [], contract=contract, worth={}, done_us=self.clock.now_us(), venue_order_id=None, event=event,
            reason=reason,
        )  # fmt: skip

    def _pauses(self) -> Iterator[float]:
        """Seconds between look-ups; the last one for ever."""
        yield from self.execution.look_up_pauses_s
        while True:
            yield self.execution.look_up_pauses_s[-1]

    def _note(self, type: str, order: LegOrder, **facts: object) -> None:
        self.journal.append(
            type, ts_us=self.clock.now_us(), intent=order.intent, client_order_id=order.client_order_id,
            venue=order.venue, instrument=order.instrument, **facts,
        )  # fmt: skip


class _Patience(NamedTuple):
    """How long an order may stay open, and what ends it at once if it rests."""

    timeout_s: float | None
    hurry: asyncio.Event | None

    @property
    def is_over(self) -> bool:
        return self.hurry is not None and self.hurry.is_set()


def _plain(error: BaseException) -> str:
    return str(error) if isinstance(error, OrderUnknown) else type(error).__name__

