"""What one answer shows of the truth: a venue may answer late, twice, or not at all about what it has."""

from dataclasses import dataclass

from basis_bt.live.fake.books import Levels, SimBook
from basis_bt.live.fake.records import OPEN, OrderMoment, SimOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """How an answer departs from the truth; the default is the truth itself.

    Parameters
    ----------
    is_order_hidden : look-ups find no order
    orders_lag : order states are those of so many changes ago
    fills_lag : the status is that of now, but what has filled is that of so many changes ago
    positions_lag : positions are those of so many changes ago
    copies : every row of a list comes so often
    book_age_us, book_shift : the book is this old, and its prices off by this share
    empty_side : +1 no asks, -1 no bids
    is_crossed : best bid above best ask
    spread_bps : the book is this wide around its mid
    depth_base : a side holds this much in all
    """

    is_order_hidden: bool = False
    orders_lag: int = 0
    fills_lag: int = 0
    positions_lag: int = 0
    copies: int = 1
    book_age_us: int = 0
    book_shift: float = 0.0
    empty_side: int = 0
    is_crossed: bool = False
    spread_bps: float | None = None
    depth_base: float | None = None

    def order(self, order: SimOrder) -> OrderMoment:
        """The state of an order that the answer tells."""
        moment = order.moments[max(0, len(order.moments) - 1 - self.orders_lag)]
        if self.fills_lag:
            older = order.moments[max(0, len(order.moments) - 1 - self.fills_lag)]
            moment = OrderMoment(moment.ts_us, moment.status, older.filled_base, older.filled_quote)
        return moment

    def is_open(self, order: SimOrder) -> bool:
        """Whether the answer counts the order among the open ones."""
        return self.order(order).status == OPEN and not self.is_order_hidden

    def book(self, book: SimBook, now_us: int) -> "SeenBook":
        """The book that the answer tells."""
        bids, asks = book.shifted(self.book_shift) if self.book_shift else (book.bids, book.asks)
        if self.spread_bps is not None and bids and asks:
            mid = (bids[0][0] + asks[0][0]) / 2.0
            away = mid * self.spread_bps / 2e4
            bids = tuple((round((price - bids[0][0] + mid - away) / book.tick) * book.tick, q) for price, q in bids)
            asks = tuple((round((price - asks[0][0] + mid + away) / book.tick) * book.tick, q) for price, q in asks)
        if self.depth_base is not None:
            bids, asks = _cut(bids, self.depth_base), _cut(asks, self.depth_base)
        if self.is_crossed and bids and asks:
            gap = asks[0][0] - bids[0][0] + 10.0 * book.tick
            bids = tuple((price + 2.0 * gap, q) for price, q in bids)
        bids = () if self.empty_side < 0 else bids
        asks = () if self.empty_side > 0 else asks
        at_us = book.frozen_us if book.frozen_us is not None else now_us
        is_old = bool(self.book_age_us) or book.frozen_us is not None
        update_id = book.update_id if is_old else book.update_id + now_us // 1000
        return SeenBook(bids=bids, asks=asks, at_us=at_us - self.book_age_us, update_id=update_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBook:
    """A book as an answer tells it. ``update_id`` stands still where the book does."""

    bids: Levels
    asks: Levels
    at_us: int
    update_id: int


def _cut(levels: Levels, depth_base: float) -> Levels:
    kept = []
    for price, size in levels:
        if depth_base <= 1e-12:
            break
        kept.append((price, min(size, depth_base)))
        depth_base -= size
    return tuple(kept)


TRUTH = Lens()
