"""All legs or none: an instruction for a combo, carried out so that no leg stays without the others.

Both legs are checked before either is sent, and sent together. What then differs is rolled back (or, with ``match``,
the excess is), within ``naked_s``; what cannot be rolled back opens the circuit breaker and says how much is naked.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from basis_bt.core.live_models import Execution, Limits
from basis_bt.live import event_types
from basis_bt.live.amounts import lots_down
from basis_bt.live.book_check import BookCheck, check_book, check_minimums, common_quantity
from basis_bt.live.closing import Closed, close_leg, rollback_usd
from basis_bt.live.guard import RiskGuard
from basis_bt.live.ids import client_order_id
from basis_bt.live.orders import ComboResult, Instruction, LegOrder, LegResult
from basis_bt.live.placing import Desk
from basis_bt.live.results import merged
from basis_bt.live.styles import Slice, plan_order, protected_price, twap_slices
from basis_bt.live.venue import Book, Contract, VenueDown

LONGEST_CLOSING_S = 60.0  # without the venue's word for so long, a person is told


class Combos:
    """Carries out instructions for one combo.

    Parameters
    ----------
    instruments, ratios : of the legs
    atomicity : ``rollback`` or ``match``, what becomes of an entry that filled in part
    prefix : what client order ids begin with
    volatility_pct : of a minute, by leg; None where it is not known
    """

    def __init__(
        self,
        desk: Desk,
        guard: RiskGuard,
        *,
        instruments: Sequence[str],
        ratios: Sequence[float],
        limits: Limits,
        execution: Execution,
        atomicity: str = "rollback",
        prefix: str = "bbt",
        volatility_pct: Callable[[int], float | None] = lambda leg: None,
    ) -> None:
        self.desk, self.guard = desk, guard
        self.instruments, self.ratios = list(instruments), list(ratios)
        self.limits, self.execution, self.atomicity, self.prefix = limits, execution, atomicity, prefix
        self._volatility_pct = volatility_pct
        #: held by whoever sends orders
        self.lock = asyncio.Lock()
        #: orders whose end was not awaited: they are settled, and taken back, when it is known
        self.late: dict[str, asyncio.Task[LegResult] | asyncio.Task[Closed]] = {}
        self._n_late = 0
        #: orders the venue never had, as far as anybody could tell, and until when they are looked for
        self.watched: dict[str, tuple[LegOrder, float]] = {}

    # -- entries -------------------------------------------------------------------------------------------------------

    async def enter(self, instruction: Instruction) -> ComboResult:
        """Open the combo, or leave everything as it was."""
        async with self.lock:
            if self.execution.style == "twap" and not self.desk.is_modelled:
                return await self._enter_in_slices(instruction)
            return await self._attempt(instruction, instruction.intent, instruction.quantity)

    async def _enter_in_slices(self, instruction: Instruction) -> ComboResult:
        """TWAP: each slice is a combo of its own, so the legs never differ by more than one."""
        contract = self._contract(max(range(len(self.ratios)), key=lambda leg: self._contract(leg).lot_base))
        whole = lots_down(instruction.quantity, contract.lot_base)
        if whole <= 0.0:
            return await self._attempt(instruction, instruction.intent, instruction.quantity)
        parts = twap_slices(whole, contract=contract, price=instruction.arrival_price[0], execution=self.execution)
        begun_s, done = self.desk.clock.monotonic_s(), list[ComboResult]()
        for number, part in enumerate(parts):
            wait_s = begun_s + part.after_s - self.desk.clock.monotonic_s()
            if wait_s > 0.0:
                await self.desk.clock.sleep(wait_s)
            done.append(await self._attempt(instruction, f"{instruction.intent}.{number}", part.quantity_base))
            if done[-1].outcome != "opened":
                break
        last, is_some = done[-1], any(one.outcome in ("opened", "reduced") for one in done)
        outcome = "halted" if last.outcome == "halted" else "reduced" if is_some and last.reason else last.outcome
        return ComboResult(
            intent=instruction.intent,
            outcome=outcome,
            reason=last.reason,
            legs=tuple(leg for one in done for leg in one.legs),
            rollback_usd=sum(one.rollback_usd for one in done),
            naked_base=last.naked_base,
            facts={"slices": len(done)},
        )

    async def _attempt(self, instruction: Instruction, intent: str, quantity: float) -> ComboResult:
        signed = [instruction.direction * ratio for ratio in self.ratios]
        try:
            contracts = await self._contracts()
            books = await asyncio.gather(*(self._venue(leg).book(one) for leg, one in enumerate(self.instruments)))
        except VenueDown as error:
            return ComboResult(intent=intent, outcome="refused", reason=f"no pre-flight: {error}")
        sized = common_quantity(quantity, contracts, signed)
        refused, checks = self._preflight(contracts, books, sized.order_base, signed)
        facts: dict[str, Any] = {"checks": [_facts(check) for check in checks]}
        if refused is not None:
            return ComboResult(intent=intent, outcome="refused", reason=refused, facts=facts)
        hurry = asyncio.Event()
        tasks = [
            asyncio.create_task(
                self._work(instruction, intent, leg, contracts[leg], books[leg], sized.order_base[leg], hurry)
            )
            for leg in range(len(self.instruments))
        ]
        opened = await self._together(tasks, hurry)
        units = [
            0.0 if one is None else abs(one.position_change_base / ratio)
            for one, ratio in zip(opened, self.ratios, strict=True)
        ]
        wanted, common = sized.quantity, min(units)
        tolerance = max(
            contract.lot_base / abs(ratio) for contract, ratio in zip(contracts, self.ratios, strict=True)
        ) + 1e-9 * wanted  # fmt: skip
        legs = [one for one in opened if one is not None]
        if common >= wanted - tolerance and max(units) - common <= tolerance:
            return ComboResult(intent=intent, outcome="opened", legs=tuple(legs), facts=facts)
        if common >= wanted - tolerance:  # a fee in another coin than was thought: only the surplus goes
            return await self._roll_back(instruction, intent, opened, units, common, facts, is_whole=True)
        keep = common if self.atomicity == "match" and self._is_tradable(common, contracts, books) else 0.0
        return await self._roll_back(instruction, intent, opened, units, keep, facts)

    def _preflight(
        self, contracts: Sequence[Contract], books: Sequence[Book], orders: Sequence[float], signed: Sequence[float]
    ) -> tuple[str | None, list[BookCheck]]:
        """Why nothing may be sent; of a replay the model has said so already."""
        if self.desk.is_modelled:
            return None, []
        now_us = self.desk.clock.now_us()
        checks = [
            check_book(book, side=1 if ratio > 0 else -1, quantity_base=order, now_us=now_us, limits=self.limits)
            for book, order, ratio in zip(books, orders, signed, strict=True)
        ]
        bad = next((check for check in checks if check.reason is not None), None)
        if bad is not None:
            return f"{bad.reason}: {bad.sentence}", checks
        prices = [check.mid or 0.0 for check in checks]
        small = check_minimums(contracts, orders, prices)
        if small is not None:
            return f"minimum: {small}", checks
        notional: dict[str, float] = {}
        held = self.desk.journal.positions_base()
        for contract, order, price in zip(contracts, orders, prices, strict=True):
            before = abs(held.get(contract.instrument, 0.0))
            notional[contract.venue] = notional.get(contract.venue, 0.0) + (before + order) * price
        reason = self.guard.entry_reason(
            now_us,
            notional_by_venue_usd=notional,
            order_usd=max(order * price for order, price in zip(orders, prices, strict=True)),
            data_age_s=max(check.age_s for check in checks),
        )
        if reason is None and (self.late or self.watched):
            reason = "an earlier order is not settled yet"
        return (None if reason is None else f"risk: {reason}"), checks

    async def _work(
        self, instruction: Instruction, intent: str, leg: int, contract: Contract, book: Book, quantity: float,
        hurry: asyncio.Event,
    ) -> LegResult:  # fmt: skip
        """The orders of one leg, in the configured style, one result."""
        side = 1 if instruction.direction * self.ratios[leg] > 0.0 else -1
        arrival = instruction.arrival_price[leg]
        results: list[LegResult] = []
        for number, one in enumerate(self._slices(leg, side, contract, book, quantity)):
            limit = one.limit_price
            if one.kind == "market" and not self.desk.is_modelled:
                limit = protected_price(
                    side=side, arrival_price=book.mid, slippage_limit_bps=self.execution.slippage_limit_bps,
                    tick=contract.tick,
                )  # fmt: skip
            order = LegOrder(
                intent=intent,
                client_order_id=client_order_id(self.prefix, intent, purpose="entry", leg=leg, attempt=number),
                instrument=self.instruments[leg],
                leg=leg,
                side=side,
                quantity_base=one.quantity_base,
                kind=one.kind,
                limit_price=limit,
                post_only=one.post_only,
                arrival_price=arrival,
                reference_price=book.mid,
                half_spread_bps=book.spread_bps / 2.0,
                decided_us=instruction.decided_us,
            )
            timeout_s = one.timeout_s if one.kind == "limit" else None
            results.append(await self.desk.place(order, timeout_s=timeout_s, hurry=hurry))
            rest = lots_down(one.quantity_base - results[-1].filled_base, contract.lot_base)
            is_over = results[-1].event in ("missing", "refused") and not results[-1].reason.startswith("post_only")
            if rest > 0.0 and not is_over and (one.fallback == "market" or (hurry.is_set() and one.kind == "limit")):
                results.append(await self._fall_back(order, rest, contract, number))
        return merged(results)

    def _slices(self, leg: int, side: int, contract: Contract, book: Book, quantity: float) -> list[Slice]:
        style = self.execution.style_of(contract.instrument.split(":")[0])
        if self.desk.is_modelled or style in ("market", "twap"):
            return [Slice(quantity_base=quantity, kind="market", timeout_s=self.execution.leg_timeout_s)]
        taken = book.asks if side > 0 else book.bids
        return plan_order(
            quantity,
            side=side,
            contract=contract,
            arrival_price=book.mid,
            best_bid=book.bids[0][0],
            best_ask=book.asks[0][0],
            depth_base=sum(level[1] for level in taken),
            min_depth_share=self.limits.min_depth_share,
            minute_volatility_pct=self._volatility_pct(leg),
            execution=self.execution,
        )

    async def _fall_back(self, order: LegOrder, rest: float, contract: Contract, number: int) -> LegResult:
        """The part of a limit order that did not fill, taken at the market as far as slippage may go."""
        market = LegOrder(
            intent=order.intent,
            client_order_id=client_order_id(
                self.prefix, order.intent, purpose="fallback", leg=order.leg, attempt=number
            ),
            instrument=order.instrument,
            leg=order.leg,
            side=order.side,
            quantity_base=rest,
            limit_price=protected_price(
                side=order.side, arrival_price=order.reference_price,
                slippage_limit_bps=self.execution.slippage_limit_bps, tick=contract.tick,
            ),
            purpose="fallback",
            arrival_price=order.arrival_price,
            reference_price=order.reference_price,
            half_spread_bps=order.half_spread_bps,
            decided_us=order.decided_us,
        )
        return await self.desk.place(market)

    async def _together(
        self, tasks: Sequence["asyncio.Task[LegResult]"], hurry: asyncio.Event
    ) -> list[LegResult | None]:
        """Wait for all legs; once one has filled, no longer than ``naked_s`` for the others, which rest no more."""
        execution, is_filled = self.execution, False
        patience_s = max(execution.leg_timeout_s, execution.limit_timeout_s) + execution.grace_s + execution.naked_s
        pending, deadline_s = set(tasks), self.desk.clock.monotonic_s() + patience_s
        try:
            while pending:
                left_s = max(deadline_s - self.desk.clock.monotonic_s(), 0.0)
                done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if not is_filled and any(task.result().filled_base > 0.0 for task in done):
                    is_filled = True
                    hurry.set()
                    deadline_s = self.desk.clock.monotonic_s() + self.execution.naked_s
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for task in pending:
            self._give_up(task)
        if pending:
            self.desk.journal.append(
                event_types.INCIDENT, ts_us=self.desk.clock.now_us(), kind="not_settled_in_time",
                reason=f"{len(pending)} of {len(tasks)} legs; nothing is entered until they are settled",
            )  # fmt: skip
        for task in set(tasks) - pending:
            self.watch(task.result())
        return [None if task in pending else task.result() for task in tasks]

    def _give_up(self, task: "asyncio.Task[LegResult] | asyncio.Task[Closed]") -> None:
        """Wait no longer for it; reconciliation takes in what it comes to."""
        self._n_late += 1
        self.late[f"late{self._n_late}"] = task

    def watch(self, result: LegResult) -> None:
        """An order that the venue never had may still land: look for it until its time is over."""
        if result.event == "missing":
            order = self.desk.unfound.pop(result.client_order_id, None)
            if order is not None:
                self.watched[order.client_order_id] = (order, self.desk.clock.monotonic_s() + self.execution.grace_s)

    def _is_tradable(self, units: float, contracts: Sequence[Contract], books: Sequence[Book]) -> bool:
        quantities = [units * abs(ratio) for ratio in self.ratios]
        floored = [lots_down(one, contract.lot_base) for one, contract in zip(quantities, contracts, strict=True)]
        return check_minimums(contracts, floored, [book.mid for book in books]) is None

    # -- taking back ---------------------------------------------------------------------------------------------------

    async def _roll_back(
        self, instruction: Instruction, intent: str, opened: Sequence[LegResult | None], units: Sequence[float],
        keep: float, facts: dict[str, Any], is_whole: bool = False,
    ) -> ComboResult:  # fmt: skip
        """Close what is more than ``keep`` of each leg; with ``is_whole`` that is all that was wanted."""
        legs = [one for one in opened if one is not None]
        reason = "; ".join(
            f"{self.instruments[leg]}: " + ("not known in time" if one is None else one.reason or one.event)
            for leg, one in enumerate(opened)
            if one is None or not one.success
        ) or "the legs differ"  # fmt: skip
        jobs = [
            self._close(leg, -instruction.direction * self.ratios[leg] * (units[leg] - keep), intent, "rollback", None)
            for leg, one in enumerate(opened)
            if one is not None and one.position_change_base != 0.0 and units[leg] > keep
        ]
        closed = await asyncio.gather(*jobs)
        back = [result for one in closed for result in one.results]
        kept = {leg: keep / held for leg, held in enumerate(units) if held > 0.0}
        cost_usd = rollback_usd(legs, back, kept=kept)
        naked = {self.instruments[one.leg]: -one.left_base for one in closed if not one.is_done}
        self._note(event_types.INCIDENT, intent, kind="rollback", reason=reason, rollback_usd=cost_usd, kept=keep)
        if naked:
            self._halt(intent, f"the rollback failed: {_amounts(naked)} is naked", naked)
        outcome = "opened" if is_whole else "reduced" if keep > 0.0 else "flat" if back or legs else "refused"
        if naked:
            outcome = "halted"
        if outcome == "flat" and not any(one.filled_base for one in legs):
            outcome = "refused"
        return ComboResult(
            intent=intent, outcome=outcome, reason=reason, legs=(*legs, *back), rollback_usd=cost_usd,
            naked_base=naked, facts=facts,
        )  # fmt: skip

    async def leave(self, instruction: Instruction) -> ComboResult:
        """Close what ``change_base`` says, all legs together, each until it is gone."""
        async with self.lock:
            return await self._leave(instruction)

    async def _leave(self, instruction: Instruction) -> ComboResult:
        intent = instruction.intent
        jobs = [
            self._close(leg, change, intent, "exit", instruction.arrival_price[leg])
            for leg, change in enumerate(instruction.change_base)
            if change != 0.0
        ]
        closed = await asyncio.gather(*jobs)
        results = tuple(result for one in closed for result in one.results)
        open_legs = [one for one in closed if not one.is_done]
        dust = {self.instruments[one.leg]: -one.left_base for one in closed if one.is_done and one.left_base}
        if not open_legs:
            return ComboResult(intent=intent, outcome="flat", legs=results, facts={"dust_base": dust})
        reason = "; ".join(result.reason or result.event for result in results if not result.success)
        if len(open_legs) == len(closed) and not any(result.filled_base for result in results):
            return ComboResult(intent=intent, outcome="reduced", reason=f"nothing was closed: {reason}", legs=results)
        naked = {self.instruments[one.leg]: -one.left_base for one in closed if not one.is_done}
        self._halt(intent, f"the exit failed: {_amounts(naked)} is left", naked)
        return ComboResult(intent=intent, outcome="halted", reason=reason, legs=results, naked_base=naked)

    async def unwind(self, changes: dict[int, float], *, intent: str, purpose: str = "unwind") -> list[LegResult]:
        """Change positions of legs towards zero outside of any instruction, e.g. after the venue closed the other."""
        closed = await asyncio.gather(
            *(self._close(leg, change, intent, purpose, None) for leg, change in changes.items())
        )
        naked = {self.instruments[one.leg]: -one.left_base for one in closed if not one.is_done}
        if naked:
            self._halt(intent, f"closing failed: {_amounts(naked)} is left", naked)
        return [result for one in closed for result in one.results]

    async def _close(self, leg: int, change: float, intent: str, purpose: str, arrival: float | None) -> Closed:
        """Close a leg, or say after a while that it is not known to be closed: the work goes on as a late one."""
        work = asyncio.create_task(
            close_leg(
                self.desk,
                self.instruments[leg],
                leg=leg,
                change_base=change,
                intent=intent,
                purpose=purpose,
                prefix=self.prefix,
                arrival_price=arrival,
                decided_us=self.desk.clock.now_us(),
                tries=self.execution.rollback_tries,
            )
        )
        try:
            done, _ = await asyncio.wait({work}, timeout=LONGEST_CLOSING_S)
        except BaseException:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        if not done:
            self._give_up(work)
            return Closed(leg, [], change, False)
        for result in work.result().results:
            self.watch(result)
        return work.result()

    def _halt(self, intent: str, reason: str, naked: dict[str, float]) -> None:
        """Open the breaker until a person has looked; it survives a restart."""
        now_us = self.desk.clock.now_us()
        self.guard.open_breaker(now_us, reason, needs_reset=True)
        with self.desk.journal.together():
            self._note(event_types.BREAKER_OPEN, intent, reason=reason, naked_base=naked, needs_reset=True)
            self.desk.journal.put("guard", self.guard.to_state(), ts_us=now_us)

    # -- small things --------------------------------------------------------------------------------------------------

    async def _contracts(self) -> list[Contract]:
        """The contracts as they are now: whether they trade is asked again before each entry."""
        if self.desk.is_modelled:
            return [self._contract(leg) for leg in range(len(self.instruments))]
        return [await self._venue(leg).refresh(one) for leg, one in enumerate(self.instruments)]

    def _venue(self, leg: int) -> Any:
        return self.desk.venues[self.instruments[leg].split(":")[1]]

    def _contract(self, leg: int) -> Contract:
        return self._venue(leg).contract(self.instruments[leg])

    def _note(self, type: str, intent: str, **facts: Any) -> None:
        self.desk.journal.append(type, ts_us=self.desk.clock.now_us(), intent=intent, **facts)


def _amounts(naked: dict[str, float]) -> str:
    return ", ".join(f"{amount:+.10g} of {instrument}" for instrument, amount in naked.items())


def _facts(check: BookCheck) -> dict[str, Any]:
    names = ("instrument", "mid", "spread_bps", "slippage_bps", "depth_base", "liquidity_score", "age_s", "reason")
    return {name: getattr(check, name) for name in names}
