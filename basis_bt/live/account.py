"""The books of a session: cash, positions and where the result came from, kept as a trial keeps them.

A buy takes its notional from cash and a sale adds it, linear contracts and spot alike, so that equity is cash plus
positions at their prices. Price PnL is counted from the arrival price of each fill, so that no cost is counted twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from basis_bt.core.instruments import Instrument
from basis_bt.kernels.books import book_price_move, equity_usd
from basis_bt.kernels.fills import book_costs, move_to_rollback
from basis_bt.kernels.marking import book_held, is_stale
from basis_bt.kernels.orders import is_hedged
from basis_bt.kernels.structs import BOOKS, FUNDING, N_BOOKS, ROLLBACK_EXECUTION, ROLLBACK_PRICE
from basis_bt.live.feed import Closing, Opening
from basis_bt.live.marks import Mark
from basis_bt.live.orders import LegResult

ROLLED_BACK = "rollback"


class Move(NamedTuple):
    """A change of position in this bar that is still to be marked, from the prices that it was decided at."""

    leg: int
    change_base: float
    from_price: float
    from_reference: float


class Account:
    """What a session owns and what came of it, by leg in the order of the combo.

    ``cash_usd`` begins with the capital; ``books`` ``(n_legs, N_BOOKS)`` is cumulative, in USD.
    """

    def __init__(self, instruments: Sequence[str], *, ratios: Sequence[float], reference: int, capital_usd: float):
        self._instruments = [Instrument.parse(one) for one in instruments]
        self._ratios, self._reference = np.array(ratios), reference
        n_legs = len(instruments)
        self.cash_usd = capital_usd
        self.position_base, self.books = np.zeros(n_legs), np.zeros((n_legs, N_BOOKS))
        self.n_marks = 0
        self._before_base = np.zeros(n_legs)  # held all through the bar
        self._moves: list[Move] = []
        self._last_close: np.ndarray | None = None

    def pay(self, leg: int, usd: float) -> None:
        """Book a funding payment, positive when received."""
        self.cash_usd += usd
        self.books[leg, FUNDING] += usd

    def book(self, results: Sequence[LegResult], arrival_price: Sequence[float]) -> None:
        """Book what an instruction came to: cash, positions and costs.

        ``arrival_price`` are all legs' prices at the decision. What was opened and taken back again costs what both
        orders did and what prices moved in between, all of it as rollback.
        """
        for one in results:
            if one.filled_base and one.purpose != ROLLED_BACK:
                self._fill(one)
                book_costs(self.books, one.leg, _values(one))
                self._moves.append(
                    Move(one.leg, one.position_change_base, one.arrival_price, arrival_price[self._reference])
                )
        for one in results:
            if one.filled_base and one.purpose == ROLLED_BACK:
                self._take_back(one, [other for other in results if _is_opened(other, one.leg)], arrival_price)

    def _take_back(self, back: LegResult, opened: Sequence[LegResult], arrival_price: Sequence[float]) -> None:
        """A fill that closes again what was opened: both are costs of the rollback."""
        self._fill(back)
        excess, leg = -back.position_change_base, back.leg
        whole = sum(one.position_change_base for one in opened)
        for one in opened:
            move_to_rollback(self.books, leg, _values(one), excess / whole)
        from_price = opened[0].arrival_price if opened else back.arrival_price
        self.books[leg, ROLLBACK_EXECUTION] += back.shortfall_usd
        self.books[leg, ROLLBACK_PRICE] -= excess * (back.arrival_price - from_price)
        self._moves.append(Move(leg, -excess, from_price, arrival_price[self._reference]))

    def _fill(self, one: LegResult) -> None:
        instrument = self._instruments[one.leg]
        in_base = 0.0 if instrument.is_margined else one.fees.get(instrument.base, 0.0)
        fee_usd = one.fee_usd - in_base * (one.fill_price or 0.0) if in_base else one.fee_usd
        self.cash_usd = self.cash_usd - one.side * one.notional_usd - fee_usd
        self.position_base[one.leg] += one.position_change_base

    def last_prices(self, known: Mapping[int, float]) -> list[float]:
        """By leg, what is known, else its last close, else 0.0 (nothing has been marked or held before then)."""
        closes = np.zeros(len(self._instruments)) if self._last_close is None else self._last_close
        return [known.get(leg, float(close)) for leg, close in enumerate(closes)]

    def mark(self, opening: Opening, closing: Closing, *, direction: int) -> Mark:
        """Book the price PnL of a bar up to its closes, and say how things stand there."""
        close, reference = closing.close_price, self._reference
        if self._last_close is not None:
            book_held(self.books, self._before_base, self._last_close, close, reference)
        for leg, change, price, from_reference in self._moves:
            book_price_move(self.books, leg, change, price, close[leg], from_reference, close[reference])
        self._moves, self._last_close = [], close
        self._before_base = self.position_base.copy()
        self.n_marks += 1
        return Mark(
            row=self.n_marks - 1,
            bar_us=closing.ts_us,
            equity_usd=equity_usd(self.cash_usd, self.position_base, close),
            cash_usd=self.cash_usd,
            position_base=self.position_base.tolist(),
            close_price=close.tolist(),
            books={BOOKS[book]: self.books[:, book].tolist() for book in np.flatnonzero(self.books.any(axis=0))},
            direction=direction,
            signal=opening.signal,
            basis_bps=opening.basis_bps,
            stale=bool(is_stale(self.position_base, closing.missing)),
            is_naked=not is_hedged(self.position_base, self._ratios),
            margin_ratio=closing.margin_ratio(self.cash_usd, self.position_base),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "cash_usd": self.cash_usd,
            "position_base": self.position_base.tolist(),
            "books": self.books.tolist(),
            "n_marks": self.n_marks,
            "before_base": self._before_base.tolist(),
            "moves": [list(move) for move in self._moves],
            "last_close": None if self._last_close is None else self._last_close.tolist(),
        }

    def take_json(self, plain: Mapping[str, Any]) -> None:
        """Go on from what ``to_json`` gave."""
        self.cash_usd, self.n_marks = plain["cash_usd"], plain["n_marks"]
        self.position_base, self.books = np.array(plain["position_base"]), np.array(plain["books"])
        self._before_base = np.array(plain["before_base"])
        self._moves = [Move(int(leg), *rest) for leg, *rest in plain["moves"]]
        self._last_close = None if plain["last_close"] is None else np.array(plain["last_close"])

    def take_mark(self, mark: Mapping[str, Any]) -> None:
        """Go on from a mark as the journal has it."""
        zeros = [0.0] * len(mark["position_base"])
        books = np.transpose([mark["books"].get(book, zeros) for book in BOOKS])
        self.take_json(
            {
                "cash_usd": mark["cash_usd"],
                "position_base": mark["position_base"],
                "books": np.ascontiguousarray(books),
                "n_marks": mark["row"] + 1,
                "before_base": mark["position_base"],
                "moves": [],
                "last_close": mark["close_price"],
            }
        )


def _values(one: LegResult) -> np.ndarray:
    """The components of a fill's cost where the kernels have them."""
    return np.array([0.0] * 5 + [one.delay_usd, one.spread_usd, one.bucket_usd, one.impact_usd, one.fee_usd])


def _is_opened(one: LegResult, leg: int) -> bool:
    return one.leg == leg and one.purpose != ROLLED_BACK and bool(one.filled_base)
