"""The one loop of all modes: what a bar does to a session, in the order of events of a trial (``kernels/trial.py``).

Funding of the bar on what was held before it, the decision, the orders, and at its end the mark. Replay, paper and live
differ in the feed, the venues and the clock alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from basis_bt.core.units import US_PER_DAY
from basis_bt.kernels.orders import can_start
from basis_bt.live import event_types
from basis_bt.live.account import ROLLED_BACK, Account
from basis_bt.live.clock import Clock
from basis_bt.live.feed import Closing, Feed, Opening, Settlement
from basis_bt.live.guard import Alarm, RiskGuard
from basis_bt.live.journal import Journal
from basis_bt.live.marks import Decision, Mark, RoundTrip
from basis_bt.live.orders import ComboResult, FundingPayment, Instruction, LegResult
from basis_bt.live.strategy import Refusal, State, Strategy, Working
from basis_bt.live.venue import Venue, VenueDown

STATE_KEY = "trader"
DUST_SHARE = 0.01  # of what was held: less than this that is left of a trade is no trade
PARTIAL = "partial"


class CarriesOut(Protocol):
    """What carries out instructions: ``combo.Combos``."""

    async def enter(self, instruction: Instruction) -> ComboResult:
        """Open the combo, or leave everything as it was."""

    async def leave(self, instruction: Instruction) -> ComboResult:
        """Close what is held."""


class Trader:
    """Runs a strategy over the bars of a feed and keeps its books.

    Parameters
    ----------
    is_modelled : a model fills the orders: they wait for the latency it gives them and for bars that trade; else they
        are sent at once
    guard : is told of equity, funding rates and failed orders
    """

    def __init__(
        self,
        strategy: Strategy,
        account: Account,
        *,
        instruments: Sequence[str],
        feed: Feed,
        combos: CarriesOut,
        venues: Mapping[str, Venue],
        journal: Journal,
        clock: Clock,
        is_modelled: bool = False,
        guard: RiskGuard | None = None,
    ) -> None:
        self.strategy, self.account, self.journal, self.clock = strategy, account, journal, clock
        self.state = State.new(strategy.capital_usd)
        self._feed, self._combos, self._venues, self._guard = feed, combos, venues, guard
        self._instruments, self._is_modelled = list(instruments), is_modelled
        self._paid_us: dict[str, int] = {}  # since when payments are asked for, by instrument
        self._known_payments: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """All bars of the feed."""
        async for opening in self._feed.openings():
            await self.on_open(opening)
            closing = await self._feed.closing()
            if np.isfinite(closing.close_price).all():  # before a first price there is nothing to mark
                self.on_close(opening, closing)

    def resume(self) -> bool:
        """Go on from what the journal has; whether it had anything.

        An instruction whose orders may have left before the restart is not sent again and nothing new is decided: it
        waits for ``settle``, as ``unsettled`` says.
        """
        kept, marks = self.journal.get(STATE_KEY), self.journal.events(event_types.MARK)
        if kept is not None:
            self.state = State.from_json(kept["state"])
            self.account.take_json(kept["account"])
            self._paid_us = dict(kept["paid_us"])
        if marks and marks[-1].payload["row"] >= self.account.n_marks:  # nothing has happened since
            self.account.take_mark(marks[-1].payload)
            self.state.last_equity_usd = marks[-1].payload["equity_usd"]
        self._count_positions()
        return bool(kept or marks)

    @property
    def unsettled(self) -> Instruction | None:
        """The instruction that was being carried out when the engine ended."""
        working = self.state.working
        return working.instruction if working is not None and working.is_sent else None

    def settle(self, result: ComboResult) -> None:
        """Book what came of the ``unsettled`` instruction, as reconciliation found it."""
        assert self.state.working is not None, "there is an instruction to settle"
        self._carried_out(self.state.working, result, self._opening_now())

    def _opening_now(self) -> Opening:
        """The bar of this moment at the last prices, for what is booked between two openings."""
        bar_us = self.clock.now_us() // self.strategy.bar_us * self.strategy.bar_us
        prices = np.array(self.account.last_prices({}))
        unknown = np.full(len(prices), np.nan)
        return Opening(
            ts_us=bar_us, open_price=prices, tradable=np.isfinite(prices), volume_before=unknown, signal=math.nan,
            basis_bps=math.nan, costs=(),
        )  # fmt: skip

    # -- a bar ---------------------------------------------------------------------------------------------------------

    async def on_open(self, opening: Opening) -> None:
        """Settlements, the decision, and the orders of a bar."""
        await self._collect_funding(opening)
        if self.state.working is None:
            self._decide(opening)
        if self.state.working is not None:
            await self._work(self.state.working, opening)

    def on_close(self, opening: Opening, closing: Closing) -> Mark:
        """Mark the bar at its closes."""
        now_us, state = self.clock.now_us(), self.state
        mark = self.account.mark(opening, closing, direction=state.direction)
        state.last_equity_usd = mark.equity_usd
        with self.journal.together():
            self.journal.record(event_types.MARK, mark, ts_us=now_us)
            if self._guard is not None:
                self.warn(self._guard.on_equity(now_us, mark.equity_usd))
        return mark

    async def _collect_funding(self, opening: Opening) -> None:
        """Book the payments that venues have made since they were asked last."""
        for leg, instrument in enumerate(self._instruments):
            if not instrument.startswith("perp:"):
                continue
            since_us = self._paid_us.setdefault(instrument, opening.ts_us - self.strategy.bar_us)
            try:
                payments = await self._venues[instrument.split(":")[1]].funding_payments(instrument, since_us=since_us)
            except VenueDown:
                continue  # the next bar asks for these too
            # a venue answers for a span of some days: without payments the span goes on
            self._paid_us[instrument] = max(since_us, opening.ts_us - US_PER_DAY)
            for payment in payments:
                if (instrument, payment.payment_id) not in self._known_payments:
                    self._book_payment(leg, payment, opening)

    def _book_payment(self, leg: int, payment: FundingPayment, opening: Opening) -> None:
        self._known_payments.add((payment.instrument, payment.payment_id))
        known = next((one for one in opening.settlements if _is_of(one, leg, payment)), None)
        facts = {} if known is None else {
            "bar_us": opening.ts_us,
            "settlement_us": known.settlement_us,
            "known_at_us": known.known_at_us,
            "funding_rate": known.funding_rate,
            "interval_hours": known.interval_hours,
            "mark_price": known.mark_price,
            "mark_source": known.mark_source,
            "position_base": float(self.account.position_base[leg]),
        }  # fmt: skip
        self._paid_us[payment.instrument] = max(self._paid_us[payment.instrument], payment.ts_us)
        with self.journal.together():
            if self.journal.funding(payment, **facts) is not None:
                self.account.pay(leg, payment.amount)
                self._keep()
            if self._guard is not None and known is not None:
                now_us = self.clock.now_us()
                self.warn(self._guard.on_funding_rate(now_us, payment.instrument, known.funding_rate))

    def _decide(self, opening: Opening) -> None:
        account, state, now_us = self.account, self.state, self.clock.now_us()
        made = self.strategy.decide(
            opening, state, cash_usd=account.cash_usd, position_base=account.position_base, now_us=now_us
        )
        if isinstance(made, Refusal):
            self._note(event_types.REFUSED, "refused", made.reason, made.direction, made.quantity, opening)
        elif made is not None:
            self._begin(made, opening)

    def _begin(self, instruction: Instruction, opening: Opening) -> None:
        latency_us = self.strategy.latency_us if self._is_modelled else 0
        self.state.working = Working(instruction=instruction, bar_us=opening.ts_us, ready_us=opening.ts_us + latency_us)
        with self.journal.together():
            self._note(
                event_types.DECISION, instruction.action, instruction.reason, instruction.direction,
                instruction.quantity, opening, intent=instruction.intent,
            )  # fmt: skip
            self._keep()

    async def _work(self, working: Working, opening: Opening) -> None:
        """Carry out the instruction under way, if it may be."""
        one = working.instruction
        if opening.ts_us < working.ready_us or working.is_sent:
            return
        if self._is_modelled and not can_start(np.array(one.change_base), opening.tradable):
            if not working.has_waited:
                working.has_waited = True
                with self.journal.together():
                    self._note(event_types.DECISION, "waiting", "untradable", one.direction, one.quantity, opening)
                    self._keep()
            return
        working.is_sent = True
        self._keep()
        result = await (self._combos.enter(one) if one.action == "entry" else self._combos.leave(one))
        self._carried_out(working, result, opening)

    def take_in(self, results: Sequence[LegResult], *, cause: str) -> None:
        """Book fills that no instruction of the strategy made: found late, by the venue itself, or in a stop.

        When no leg is held any more (but dust) the trade is over, for that cause.
        """
        filled = [one for one in results if one.filled_base]
        if not filled:
            return
        state, bar_us = self.state, self.clock.now_us() // self.strategy.bar_us * self.strategy.bar_us
        prices = self.account.last_prices({one.leg: one.arrival_price for one in filled})
        with self.journal.together():
            self.account.book(filled, prices)
            for one in filled:
                self.journal.leg_result(
                    one, trade=state.n_trades if state.direction else 0, cause=cause, bar_us=bar_us,
                    decision_bar_us=bar_us, action="exit",
                )  # fmt: skip
            self._adopt(bar_us)
            is_over = np.abs(self.account.position_base).max() <= DUST_SHARE * state.quantity
            if state.direction and is_over:
                self._note_trade(bar_us, cause)
                state.direction, state.exit_us, state.working = 0, bar_us, None
                self._count_positions()
            self._keep()

    def mark_now(self) -> None:
        """Mark what was booked since the last close, at the last prices, so that nothing is left out of the books."""
        opening = self._opening_now()
        if (opening.open_price > 0.0).all():
            missing = np.zeros(len(opening.open_price), dtype=np.bool_)
            self.on_close(opening, Closing(ts_us=opening.ts_us, close_price=opening.open_price, missing=missing))

    def _adopt(self, bar_us: int) -> None:
        """A whole combo that no instruction opened is a trade from now on, and left as the rule says."""
        state = self.state
        units = self.account.position_base / np.array(self.strategy.ratios)
        if state.direction or not (np.all(units > 0.0) or np.all(units < 0.0)):
            return
        state.direction, state.quantity = (1 if units[0] > 0.0 else -1), float(np.abs(units).min())
        state.entry_us, state.entry_equity_usd = bar_us, state.last_equity_usd
        state.cash_before_entry_usd, state.n_trades = self.account.cash_usd, state.n_trades + 1
        self._note_trade(None, None)
        self._count_positions()

    # -- what came of it -----------------------------------------------------------------------------------------------

    def _carried_out(self, working: Working, result: ComboResult, opening: Opening) -> None:
        if working.instruction.action == "entry":
            self._entered(working, result, opening)
        else:
            self._left(working, result, opening)

    def _entered(self, working: Working, result: ComboResult, opening: Opening) -> None:
        state, one = self.state, working.instruction
        units = [
            abs(held / ratio) for held, ratio in zip(_changes(result.legs, one), self.strategy.ratios, strict=True)
        ]
        held = min(units) if result.outcome in ("opened", "reduced") else max(units)
        is_trade = result.outcome in ("opened", "reduced") or (result.outcome == "halted" and held > 0.0)
        with self.journal.together():
            self._book(working, result, opening, trade=state.n_trades + 1 if is_trade else 0)
            state.working = None
            if is_trade:
                state.n_trades += 1
                state.direction, state.entry_us, state.quantity = one.direction, opening.ts_us, held
                self._count_positions()
                self._note_trade(None, None)
            elif not any(leg.filled_base for leg in result.legs):
                self._note(event_types.REFUSED, "refused", result.reason, one.direction, one.quantity, opening)
            if result.outcome == "halted" and is_trade:  # naked: what is there is left, at every bar until it is gone
                position, now_us = self.account.position_base, self.clock.now_us()
                self._begin(self.strategy.exit(opening, state, PARTIAL, position, now_us), opening)
            self._keep()

    def _left(self, working: Working, result: ComboResult, opening: Opening) -> None:
        state, one = self.state, working.instruction
        with self.journal.together():
            self._book(working, result, opening, trade=state.n_trades)
            if result.outcome == "flat":
                self._note_trade(opening.ts_us, one.reason)
                state.direction, state.exit_us, state.working = 0, opening.ts_us, None
                self._count_positions()
            else:  # the rest is tried again in the next bar, as new orders
                rest = self.strategy.exit(
                    opening, state, one.reason, self.account.position_base, self.clock.now_us()
                )  # fmt: skip
                state.working = Working(
                    instruction=rest, bar_us=working.bar_us, ready_us=opening.ts_us + self.strategy.bar_us
                )
            self._keep()

    def _book(self, working: Working, result: ComboResult, opening: Opening, *, trade: int) -> None:
        """Orders, and what they did to cash and positions."""
        one = working.instruction
        self.account.book(result.legs, one.arrival_price)
        for leg in result.legs:
            self.journal.leg_result(
                leg, intent=one.intent, trade=trade, cause=one.reason, bar_us=opening.ts_us,
                decision_bar_us=working.bar_us, action=ROLLED_BACK if leg.purpose == ROLLED_BACK else one.action,
                volume_base=float(opening.volume_before[leg.leg]),
            )  # fmt: skip
            if self._guard is not None and not leg.success:
                self.warn(self._guard.on_failed_order(self.clock.now_us()))
        self.journal.append(
            event_types.COMBO_RESULT, ts_us=self.clock.now_us(), intent=one.intent, outcome=result.outcome,
            reason=result.reason, rollback_usd=result.rollback_usd, naked_base=result.naked_base, facts=result.facts,
        )  # fmt: skip
        if any(leg.purpose == ROLLED_BACK for leg in result.legs):
            self._note(event_types.INCIDENT, ROLLED_BACK, PARTIAL, one.direction, one.quantity, opening)

    def _count_positions(self) -> None:
        if self._guard is not None:
            self._guard.on_positions(1 if self.state.direction else 0)

    def _note_trade(self, exit_us: int | None, reason: str | None) -> None:
        state = self.state
        assert state.entry_us is not None
        self.journal.record(
            event_types.TRADE,
            RoundTrip(
                trade=state.n_trades,
                direction=state.direction,
                entry_us=state.entry_us,
                quantity_base=state.quantity,
                exit_us=exit_us,
                exit_reason=reason,
                pnl_usd=None if exit_us is None else self.account.cash_usd - state.cash_before_entry_usd,
            ),
            ts_us=self.clock.now_us(),
        )

    def _note(
        self, type: str, event: str, reason: str, direction: int, quantity: float, opening: Opening,
        intent: str | None = None,
    ) -> None:  # fmt: skip
        decision = Decision(
            event=event, reason=reason, direction=direction, quantity_base=quantity, bar_us=opening.ts_us
        )
        self.journal.record(type, decision, ts_us=self.clock.now_us(), intent=intent)

    def warn(self, alarms: Sequence[Alarm]) -> None:
        """Write alarms down, and the state of the guard with them."""
        for alarm in alarms:
            self.journal.append(
                event_types.INCIDENT, ts_us=alarm.at_us, event=alarm.kind, reason=alarm.sentence, is_stop=alarm.is_stop
            )
        if alarms and self._guard is not None:
            self.journal.put("guard", self._guard.to_state(), ts_us=self.clock.now_us())

    def _keep(self) -> None:
        """What a restart goes on from, together with the marks that follow."""
        kept = {"state": self.state.to_json(), "account": self.account.to_json(), "paid_us": self._paid_us}
        self.journal.put(STATE_KEY, kept, ts_us=self.clock.now_us())


def _is_of(settlement: Settlement, leg: int, payment: FundingPayment) -> bool:
    """Whether a payment is that of a settlement; venues stamp theirs within a minute of it."""
    return settlement.leg == leg and math.isclose(settlement.settlement_us, payment.ts_us, rel_tol=0.0, abs_tol=6e7)


def _changes(legs: Sequence[LegResult], instruction: Instruction) -> list[float]:
    """What each leg of an instruction has changed by, what was taken back counted out."""
    return [
        sum(one.position_change_base for one in legs if one.leg == leg) for leg in range(len(instruction.change_base))
    ]
