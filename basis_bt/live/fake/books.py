"""The order book of one instrument: levels, walking them, moving them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from basis_bt.live.fake.records import clean

Levels = tuple[tuple[float, float], ...]
_DEPTH_LEVELS = 10


def make_book(
    mid: float, *, spread_bps: float = 1.0, depth_base: float = 10.0, tick: float = 0.01, n_levels: int = _DEPTH_LEVELS
) -> tuple[Levels, Levels]:
    """Bids and asks around ``mid``; ``depth_base`` is the whole side, spread evenly, one half-spread apart a level.

    The best prices are rounded away from the mid to the tick, so the spread is never below the one asked for.
    """
    half = mid * spread_bps / 2e4
    step = max(half, tick)
    size = depth_base / n_levels
    bids = tuple((_down(mid - half - i * step, tick), size) for i in range(n_levels))
    asks = tuple((-_down(-(mid + half + i * step), tick), size) for i in range(n_levels))
    return bids, asks


def _down(price: float, tick: float) -> float:
    return clean(math.floor(price / tick + 1e-9) * tick)


@dataclass(slots=True, kw_only=True)
class SimBook:
    """Price levels, best first. ``frozen_us`` is the instant they were true; None: they are always those of now."""

    tick: float
    bids: Levels = ()
    asks: Levels = ()
    is_refilled: bool = True
    frozen_us: int | None = None
    update_id: int = 1
    mid: float = float("nan")
    _given: tuple[float, Levels, Levels] = (float("nan"), (), ())

    def set(self, bids: Levels, asks: Levels, frozen_us: int | None) -> None:
        """New levels. The mid stays what it was where a side is empty."""
        self._put(bids, asks)
        self.frozen_us = frozen_us
        self._given = (self.mid, bids, asks)

    def move_to(self, mid: float) -> None:
        """The levels that were set last, around another mid."""
        given_mid, bids, asks = self._given
        self._put(*shifted(bids, asks, mid / given_mid - 1.0, self.tick))

    def _put(self, bids: Levels, asks: Levels) -> None:
        self.bids, self.asks = bids, asks
        self.update_id += 1
        if bids and asks:
            self.mid = (bids[0][0] + asks[0][0]) / 2.0

    def fills(self, side: int, quantity_base: float, worst_price: float | None) -> list[tuple[float, float]]:
        """What an order would take: ``(price, quantity)`` from the best level on, no worse than ``worst_price``."""
        taken = []
        for price, size in self.asks if side > 0 else self.bids:
            if quantity_base <= 0.0 or (worst_price is not None and side * (price - worst_price) > 1e-9):
                break
            part = clean(min(size, quantity_base))
            taken.append((price, part))
            quantity_base = clean(quantity_base - part)
        return taken

    def take(self, side: int, taken: Sequence[tuple[float, float]]) -> None:
        """Remove what was taken, unless the book refills at once."""
        self.update_id += 1
        if self.is_refilled:
            return
        gone = dict(taken)
        levels = self.asks if side > 0 else self.bids
        left = tuple((price, clean(size - gone.get(price, 0.0))) for price, size in levels)
        left = tuple((price, size) for price, size in left if size > 0.0)
        if side > 0:
            self.asks = left
        else:
            self.bids = left

    def shifted(self, share: float) -> tuple[Levels, Levels]:
        """The same levels with every price moved by a share of itself."""
        return shifted(self.bids, self.asks, share, self.tick)


def shifted(bids: Levels, asks: Levels, share: float, tick: float) -> tuple[Levels, Levels]:
    """Levels with every price moved by a share of itself and rounded, away from the mid, to the tick."""
    factor = 1.0 + share
    return (
        tuple((_down(price * factor, tick), size) for price, size in bids),
        tuple((-_down(-price * factor, tick), size) for price, size in asks),
    )
