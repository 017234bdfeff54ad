"""Journal against venues: at the start before anything is traded, every few seconds after, and in an emergency stop.

The venue is right about what is held; the journal about why. A difference is believed when it was seen twice and no own
fill came in between, since positions lag fills. What turns out to be naked is closed.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from basis_bt.core.errors import StoreError
from basis_bt.live import event_types
from basis_bt.live.closing import Closed, is_dust, quoted
from basis_bt.live.combo import Combos
from basis_bt.live.ids import is_ours
from basis_bt.live.orders import LegOrder, LegResult, OrderState, VenueTrade
from basis_bt.live.results import leg_result, venue_order
from basis_bt.live.venue import Position, VenueDown

SEEN_TWICE_S = 1.0
RETRY_NAKED_S = 60.0
AFTER_FILL_US = 1_000_000
OVERLAP_US = 60_000_000  # trades are asked from so much before positions last agreed: stamps of venues differ
LATE_WAIT_S = 10.0  # that an emergency stop gives orders nobody knows the end of
STOP_TRIES = 20
STOP_PAUSE_S = 0.5


@dataclass(slots=True, kw_only=True)
class Findings:
    """What a look at the venues brought: fills to be booked (those of the venue's own making too), and sentences."""

    results: list[LegResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_silent: bool = False  # a venue did not answer


class Reconciler:
    """Compares and repairs. ``policy``: what happens at the start with positions the journal does not know."""

    def __init__(self, combos: Combos, *, policy: Literal["refuse", "adopt", "close"] = "refuse") -> None:
        self.combos, self.desk, self.policy = combos, combos.desk, policy
        self.instruments, self.ratios = combos.instruments, combos.ratios
        self._naked_s: float | None = None
        self._seen: dict[str, tuple[float, float]] = {}
        self._n_repairs = 0
        agreed = self.desk.journal.events((event_types.FILL, event_types.RECONCILE))[-1:]
        #: since when there can be trades that the journal does not have: a new one wants none from before it
        self._missed_since_us = agreed[0].ts_us - OVERLAP_US if agreed else self.desk.clock.now_us()

    # -- the start -----------------------------------------------------------------------------------------------------

    async def start(self) -> Findings:
        """Settle what an earlier process left, then compare. Nothing may be traded before this has returned.

        Raises
        ------
        StoreError
            If the venue holds what the journal does not know, and the policy is to refuse.
        VenueDown
            If a venue cannot be asked: then nobody knows, and nothing is traded.
        """
        async with self.combos.lock:
            found = Findings()
            left = self.desk.journal.open_intents()
            for result in await asyncio.gather(*(self.desk.resolve(order) for order in left)):
                found.results.append(result)
                self.combos.watch(result)
                found.notes.append(f"{result.client_order_id}: {result.event}, {result.filled_base:.10g} filled")
            await self._clear_orders(found)
            await self._own_up(found)
            await self._hedge(found, intent=f"0-restart-{self._repair()}", why="restart")
            self._note(event_types.RECONCILE, kind="start", notes=found.notes)
            return found

    async def _clear_orders(self, found: Findings) -> None:
        """Cancel our own orders that nobody waits for; those of somebody else are not touched."""
        for name in self._venues():
            for state in await self.desk.venues[name].open_orders():
                if is_ours(state.client_order_id, self.combos.prefix):
                    await self._cancel(state)
                    found.notes.append(f"{state.client_order_id}: cancelled, an order of ours that nobody waits for")
                elif self.policy == "refuse":
                    raise self._foreign(f"an open order {state.venue_order_id} at {name}", state.instrument)
                else:
                    found.notes.append(f"{name}: an open order of somebody else is left alone: {state.venue_order_id}")

    async def _own_up(self, found: Findings) -> None:
        """Positions the journal cannot explain, seen twice: from own trades it missed, else by the policy."""
        seen, is_changed = await self._differences(), False
        if seen:
            await self.desk.clock.sleep(SEEN_TWICE_S)
            seen = {leg: one for leg, one in (await self._differences()).items() if leg in seen}
        for leg in seen:
            instrument, is_changed = self.instruments[leg], True
            await self._take_in_trades(leg, found)
            difference = (await self._differences()).get(leg, 0.0)
            if not difference:
                found.notes.append(f"{instrument}: trades that the journal had missed are taken in")
                continue
            if self.policy == "refuse":
                raise self._foreign(f"a position of {difference:+.10g} that the journal does not know", instrument)
            await self._adjust(leg, difference, found, why="unknown at the start")
            what = "adopted" if self.policy == "adopt" else "closed"
            found.notes.append(f"{instrument}: {difference:+.10g} is {what}")
        held = self.desk.journal.positions_base()
        changes = {leg: -held.get(one, 0.0) for leg, one in enumerate(self.instruments) if held.get(one, 0.0)}
        if self.policy == "close" and is_changed and changes:
            found.results += await self.combos.unwind(changes, intent=f"0-close-{self._repair()}")
        if self.policy == "adopt":
            await self._adopt_spot(found)

    async def _adopt_spot(self, found: Findings) -> None:
        """The spot that hedges adopted contracts: what the wallet holds of it, up to the hedge."""
        held = self.desk.journal.positions_base()
        units = [abs(held.get(one, 0.0) / ratio) for one, ratio in zip(self.instruments, self.ratios, strict=True)
                 if self._contract(one).is_margined]  # fmt: skip
        for leg, (instrument, ratio) in enumerate(zip(self.instruments, self.ratios, strict=True)):
            contract = self._contract(instrument)
            missing = max(units, default=0.0) * abs(ratio) - abs(held.get(instrument, 0.0))
            if contract.is_margined or ratio < 0.0 or missing <= contract.lot_base:
                continue
            balance = await self.desk.venues[contract.venue].spot_balance(contract.base)
            taken = min(missing, balance.total - held.get(instrument, 0.0))
            if taken > contract.lot_base:
                await self._adjust(leg, taken, found, why="adopted as the hedge")
                found.notes.append(f"{instrument}: {taken:.10g} of the wallet is adopted as the hedge")

    # -- while trading -------------------------------------------------------------------------------------------------

    async def look(self) -> Findings:
        """One comparison; a venue that does not answer is looked at next time."""
        found = Findings()
        async with self.combos.lock:
            await self._late(found)
            try:
                await self._compare(found)
            except VenueDown as error:
                found.notes.append(str(error))
                found.is_silent = True
            await self._close_left(found)
        return found

    async def _close_left(self, found: Findings) -> None:
        """What an instruction left naked is tried again every minute, not only when the next bar opens."""
        now_s = self.desk.clock.monotonic_s()
        if not self._excess() or self.combos.late:
            self._naked_s = None
        elif self._naked_s is None:
            self._naked_s = now_s
        elif now_s - self._naked_s >= RETRY_NAKED_S:
            await self._hedge(found, intent=f"0-left-{self._repair()}", why="a leg is left")
            self._naked_s = now_s

    async def _late(self, found: Findings) -> None:
        """Orders that were given up: what fills of them is taken back."""
        done = {name: task for name, task in self.combos.late.items() if task.done()}
        for name, task in done.items():
            del self.combos.late[name]
            result = task.result()
            if isinstance(result, Closed):  # it was closing something, and has done so late
                found.results += result.results
            else:
                await self._take_back(result, found)
        for client_id, (order, until_s) in list(self.combos.watched.items()):
            try:
                state = await self.desk.venues[order.venue].find(order)
            except VenueDown:
                continue
            if state is not None:
                del self.combos.watched[client_id]
                await self._take_back(await self.desk.resolve(order), found)
            elif self.desk.clock.monotonic_s() >= until_s:
                del self.combos.watched[client_id]

    async def _take_back(self, result: LegResult, found: Findings) -> None:
        """Undo a late fill, as far as it is still there: a comparison or a stop may have been faster.

        A late fill that made a position smaller stays, and takes the other legs with it.
        """
        if result.position_change_base == 0.0:
            return
        found.results.append(result)
        self._note(
            event_types.LATE_FILL, instrument=result.instrument, client_order_id=result.client_order_id,
            filled_base=result.filled_base,
        )  # fmt: skip
        found.notes.append(f"{result.client_order_id}: filled late, {result.filled_base:.10g}")
        held, late = self.desk.journal.positions_base().get(result.instrument, 0.0), result.position_change_base
        if held * late > 0.0:
            change = -math.copysign(min(abs(held), abs(late)), late)
            found.results += await self.combos.unwind({result.leg: change}, intent=f"0-late-{self._repair()}")
        await self._hedge(found, intent=f"0-late-{self._repair()}", why="a late fill")

    async def _compare(self, found: Findings) -> None:
        now_s, now_us = self.desk.clock.monotonic_s(), self.desk.clock.now_us()
        differences = await self._differences()
        if not differences:
            self._missed_since_us = max(self._missed_since_us, now_us - OVERLAP_US)
        for leg in list(self._seen_legs()):
            if leg not in differences:
                del self._seen[self.instruments[leg]]
        for leg, difference in differences.items():
            instrument = self.instruments[leg]
            before = self._seen.get(instrument)
            last_fill_us = self.desk.last_fill_us.get(instrument, 0)
            is_same = before is not None and abs(before[0] - difference) <= self._contract(instrument).lot_base
            if not is_same:
                self._seen[instrument] = (difference, now_s)
                continue
            assert before is not None
            if now_s - before[1] < SEEN_TWICE_S or self.desk.clock.now_us() - last_fill_us < AFTER_FILL_US:
                continue
            del self._seen[instrument]
            await self._take_in_trades(leg, found)
            rest = (await self._differences()).get(leg, 0.0)
            if rest:
                await self._adjust(leg, rest, found, why="the venue says so")
            self._note(event_types.INCIDENT, instrument=instrument, kind="position_changed", difference_base=difference)
            found.notes.append(f"{instrument}: the venue's position differs by {difference:+.10g}")
            await self._hedge(found, intent=f"0-hedge-{self._repair()}", why="the venue changed a position")

    async def _hedge(self, found: Findings, *, intent: str, why: str) -> None:
        """Close what one leg holds more than the others cover."""
        changes = {leg: -excess for leg, excess in self._excess().items()}
        if changes:
            self._note(event_types.INCIDENT, kind="naked", reason=why, change_base=list(changes.values()))
            found.notes.append(f"naked after {why}: closing {', '.join(f'{one:+.10g}' for one in changes.values())}")
            found.results += await self.combos.unwind(changes, intent=intent)

    def _excess(self) -> dict[int, float]:
        """By leg, what it holds more than the others cover, beyond the largest lot."""
        held = self.desk.journal.positions_base()
        units = [held.get(one, 0.0) / ratio for one, ratio in zip(self.instruments, self.ratios, strict=True)]
        common = min(units, key=abs) if all(u > 0.0 for u in units) or all(u < 0.0 for u in units) else 0.0
        out = {}
        for leg, (instrument, ratio) in enumerate(zip(self.instruments, self.ratios, strict=True)):
            contract, excess = self._contract(instrument), (units[leg] - common) * ratio
            slack = max(contract.lot_base, *(self._contract(one).lot_base for one in self.instruments))
            if abs(excess) > slack * (1.0 + 1e-9):
                out[leg] = excess
        return out

    # -- the emergency stop --------------------------------------------------------------------------------------------

    async def stop(self, why: str = "emergency stop") -> Findings:
        """Cancel every order, close every position, on all venues; a second call finds nothing to do.

        The breaker opens first and stays open until a person resets it. A venue that does not answer is asked again;
        the others do not wait for it.
        """
        now_us = self.desk.clock.now_us()
        if not (self.combos.guard.breaker and self.combos.guard.breaker.needs_reset):
            self.combos.guard.open_breaker(now_us, why, needs_reset=True)
            with self.desk.journal.together():
                self._note(event_types.BREAKER_OPEN, reason=why, needs_reset=True)
                self.desk.journal.put("guard", self.combos.guard.to_state(), ts_us=now_us)
        found = Findings()
        async with self.combos.lock:
            await self._late(found)
            await asyncio.gather(*(self._cancel_all(name, found) for name in self._venues()))
            await asyncio.gather(*(self._settled(order, found) for order in self.desk.journal.open_intents()))
            await asyncio.gather(*(self._stop_venue(name, found) for name in self._venues()))
            if self.combos.late:
                await asyncio.wait(self.combos.late.values(), timeout=LATE_WAIT_S)
                await self._late(found)
        return found

    async def _cancel_all(self, name: str, found: Findings) -> None:
        try:
            for state in await self.desk.venues[name].open_orders():
                await self._cancel(state)
        except VenueDown as error:
            found.notes.append(str(error))  # asked again before positions are closed

    async def _settled(self, order: LegOrder, found: Findings) -> None:
        """Learn what became of an order that was under way, so that its fills are closed too."""
        try:
            await asyncio.wait_for(self.desk.resolve(order), self.desk.execution.grace_s)
        except TimeoutError:
            found.notes.append(f"{order.client_order_id}: not known whether {order.venue} has it; look at the venue")

    async def _stop_venue(self, name: str, found: Findings) -> None:
        number = self._repair()
        for attempt in range(STOP_TRIES):
            try:
                for state in await self.desk.venues[name].open_orders():
                    await self._cancel(state)
                changes = await self._to_close(name)
                if not changes:
                    return
                found.results += await self.combos.unwind(
                    changes, intent=f"0-stop-{name}-{number}-{attempt}", purpose="stop"
                )
                if not await self._to_close(name):
                    return
            except VenueDown as error:
                found.notes.append(str(error))
            await self.desk.clock.sleep(STOP_PAUSE_S)
        found.notes.append(f"{name}: not everything could be closed; look at the venue")

    async def _to_close(self, name: str) -> dict[int, float]:
        """What is held at a venue: contracts by its own word, spot as far as the journal bought it."""
        venue, held = self.desk.venues[name], self.desk.journal.positions_base()
        positions = await venue.positions()
        changes = {}
        for leg, instrument in enumerate(self.instruments):
            if instrument.split(":")[1] != name:
                continue
            contract = self._contract(instrument)
            position = positions[instrument].position_base if instrument in positions else 0.0
            if not contract.is_margined:
                position = held.get(instrument, 0.0)
            quote = await quoted(self.desk, instrument) if position else None
            if not is_dust(position, contract, quote.mid if quote else math.inf):
                changes[leg] = -position
        return changes

    # -- small things --------------------------------------------------------------------------------------------------

    async def _differences(self) -> dict[int, float]:
        """By leg, what the venue holds more than the journal says; spot only where the wallet holds less."""
        held, out = self.desk.journal.positions_base(), {}
        for name in self._venues():
            venue = self.desk.venues[name]
            mine = [(leg, one) for leg, one in enumerate(self.instruments) if one.split(":")[1] == name]
            positions: dict[str, Position] = {}
            if any(self._contract(one).is_margined for _, one in mine):
                positions = await venue.positions()
            for leg, instrument in mine:
                contract, own = self._contract(instrument), held.get(instrument, 0.0)
                if contract.is_margined:
                    difference = (positions[instrument].position_base if instrument in positions else 0.0) - own
                else:
                    is_held = own > contract.lot_base
                    difference = min((await venue.spot_balance(contract.base)).total - own, 0.0) if is_held else 0.0
                if abs(difference) > contract.lot_base / 2.0:
                    out[leg] = difference
        return out

    async def _take_in_trades(self, leg: int, found: Findings) -> None:
        """Record the venue's trades of an instrument that the journal does not have, e.g. of a deleveraging."""
        instrument = self.instruments[leg]
        since_us = self._missed_since_us
        for trade in await self.desk.venues[instrument.split(":")[1]].trades(instrument, since_us=since_us):
            is_known = (trade.instrument, trade.venue_order_id) in self.desk.known_ids
            if not is_known and self.desk.journal.fill(trade, origin="venue") is not None:
                found.results.append(self._venue_result(leg, trade))

    def _venue_result(self, leg: int, trade: VenueTrade) -> LegResult:
        """A fill that no order of ours asked for, as a result, at its own price."""
        return leg_result(
            venue_order(trade, leg),
            [trade],
            contract=self._contract(trade.instrument),
            worth={},
            done_us=self.desk.clock.now_us(),
            venue_order_id=trade.venue_order_id,
        )

    async def _adjust(self, leg: int, difference: float, found: Findings, *, why: str) -> None:
        """Set the journal's position to the venue's where no trade explains the difference."""
        instrument = self.instruments[leg]
        contract, venue = self._contract(instrument), self.desk.venues[instrument.split(":")[1]]
        positions = await venue.positions() if contract.is_margined else {}
        known = positions.get(instrument)
        price = (known.entry_price or known.mark_price) if known else None
        if price is None:
            price = (await venue.book(instrument)).mid
        now_us = self.desk.clock.now_us()
        trade = VenueTrade(
            trade_id=f"adjusted-{now_us}-{self._repair()}", venue_order_id="", instrument=instrument,
            side=1 if difference > 0.0 else -1, quantity_base=abs(difference), price=price, fee=0.0,
            fee_asset=contract.quote, is_maker=False, ts_us=now_us,
        )  # fmt: skip
        self.desk.journal.fill(trade, origin="adjusted", reason=why)
        found.results.append(self._venue_result(leg, trade))

    async def _cancel(self, state: OrderState) -> None:
        try:
            await self.desk.venues[state.instrument.split(":")[1]].cancel_found(state)
        except VenueDown:
            if any(one.venue_order_id == state.venue_order_id
                   for one in await self.desk.venues[state.instrument.split(":")[1]].open_orders()):  # fmt: skip
                raise

    def _foreign(self, what: str, instrument: str) -> StoreError:
        return StoreError(
            f"the account holds {what}",
            where={"instrument": instrument},
            fix='close it at the venue, or say what to do with it: live.on_unknown_position = "adopt" or "close"',
        )

    def _seen_legs(self) -> Sequence[int]:
        return [leg for leg, one in enumerate(self.instruments) if one in self._seen]

    def _venues(self) -> list[str]:
        return list(dict.fromkeys(one.split(":")[1] for one in self.instruments))

    def _contract(self, instrument: str) -> Any:
        return self.desk.venues[instrument.split(":")[1]].contract(instrument)

    def _repair(self) -> int:
        """A number that no earlier repair of this journal had, so that no client order id comes twice."""
        self._n_repairs = max(self._n_repairs, int(self.desk.journal.get("n_repairs", 0))) + 1
        self.desk.journal.put("n_repairs", self._n_repairs)
        return self._n_repairs

    def _note(
        self, type: str, *, instrument: str | None = None, client_order_id: str | None = None, **facts: Any
    ) -> None:
        venue = instrument.split(":")[1] if instrument else None
        self.desk.journal.append(
            type, ts_us=self.desk.clock.now_us(), venue=venue, instrument=instrument, client_order_id=client_order_id,
            **facts,
        )  # fmt: skip
