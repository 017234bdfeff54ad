"""Books of several venues seen as one: where a size is cheapest, fees and latency counted in, and how to split it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from basis_bt.live.book_check import ROUNDING, sound_levels, walk
from basis_bt.live.venue import Book

SECONDS_PER_DAY = 86_400.0
MEAN_ABSOLUTE = math.sqrt(2.0 / math.pi)  # of a normal variable with standard deviation 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueLevel:
    """A price level with its venue."""

    price: float
    quantity_base: float
    venue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatedBook:
    """The levels of all venues, best first. Best bid over best ask is no error here: those are two venues."""

    bids: tuple[VenueLevel, ...]
    asks: tuple[VenueLevel, ...]

    @property
    def mid(self) -> float | None:
        """Half way between the best prices of all venues; None where a side is empty."""
        return (self.bids[0].price + self.asks[0].price) / 2.0 if self.bids and self.asks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueCost:
    """What a quantity costs at one venue.

    ``all_in_price`` is the average price of the book made worse by the fee and the latency; ``cost_bps`` is that
    against the mid of all venues, positive when it hurts. Both are None where the book does not hold the quantity.
    """

    venue: str
    quantity_base: float
    depth_base: float
    average_price: float | None
    fee_bps: float
    latency_bps: float
    all_in_price: float | None
    cost_bps: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Venues for the whole size, cheapest first (those that cannot fill it last), and the cheapest split over them.

    ``split`` is empty where no venue has anything; ``unfilled_base`` is what all of them together do not hold.
    ``split_price`` and ``split_cost_bps`` are of what the split fills.
    """

    venues: tuple[VenueCost, ...]
    split: tuple[VenueCost, ...]
    split_price: float | None
    split_cost_bps: float | None
    unfilled_base: float

    @property
    def best(self) -> VenueCost | None:
        """The cheapest venue that fills the whole size."""
        return self.venues[0] if self.venues and self.venues[0].all_in_price is not None else None


def aggregate(books: Mapping[str, Book]) -> AggregatedBook:
    """Merge books by venue. Levels of one price stay apart, in the order of the venues' names."""
    bids, asks = [], []
    for venue, book in sorted(books.items()):
        bids += [VenueLevel(price=p, quantity_base=q, venue=venue) for p, q in sound_levels(book.bids, is_bid=True)]
        asks += [VenueLevel(price=p, quantity_base=q, venue=venue) for p, q in sound_levels(book.asks, is_bid=False)]
    return AggregatedBook(
        bids=tuple(sorted(bids, key=lambda level: -level.price)),
        asks=tuple(sorted(asks, key=lambda level: level.price)),
    )


def latency_cost_bps(*, latency_ms: float, day_volatility_pct: float) -> float:
    """Mean absolute move of a driftless price while an order travels: sqrt(2 / pi) of its standard deviation.

    Charged in full as a cost, though for a random signal half of those moves are in one's favour: it is what slower
    venues are compared by, and a signal that is short-lived itself does meet adverse ones.
    """
    per_root_second_bps = 100.0 * day_volatility_pct / math.sqrt(SECONDS_PER_DAY)
    return MEAN_ABSOLUTE * per_root_second_bps * math.sqrt(latency_ms / 1e3)


def best_venue(
    books: Mapping[str, Book],
    *,
    side: int,
    quantity_base: float,
    fees_bps: Mapping[str, float],
    latency_ms: Mapping[str, float],
    day_volatility_pct: float,
) -> Route:
    """Where to take a quantity at market. Fees and latencies are by venue, negative fees are rebates.

    Quantities of the split are not rounded to lots. The books should have passed ``check_book`` one by one: an old
    price that looks good here draws the whole size.

    Raises
    ------
    ValueError
        If the side is not +1 or -1, the quantity not finite and above 0, or a latency or the volatility negative.
    """
    if side not in (1, -1) or not (math.isfinite(quantity_base) and quantity_base > 0.0):
        raise ValueError(f"an order has side +1 or -1 and a quantity above 0, found {side} and {quantity_base!r}")
    if not day_volatility_pct >= 0.0 or not all(latency_ms[venue] >= 0.0 for venue in books):
        raise ValueError("latencies and the volatility must be at least 0")
    whole = aggregate(books)
    levels = whole.asks if side > 0 else whole.bids
    by_venue = {
        venue: [(level.price, level.quantity_base) for level in levels if level.venue == venue] for venue in books
    }
    latency_bps = {
        venue: latency_cost_bps(latency_ms=latency_ms[venue], day_volatility_pct=day_volatility_pct) for venue in books
    }

    def cost(venue: str, quantity: float) -> VenueCost:
        walked = walk(by_venue[venue], quantity)
        price = None if walked is None else walked[0] * factor[venue]
        return VenueCost(
            venue=venue,
            quantity_base=quantity,
            depth_base=math.fsum(size for _, size in by_venue[venue]),
            average_price=None if walked is None else walked[0],
            fee_bps=fees_bps[venue],
            latency_bps=latency_bps[venue],
            all_in_price=price,
            cost_bps=_against(price, whole.mid, side),
        )

    factor = {venue: 1.0 + side * (fees_bps[venue] + latency_bps[venue]) / 1e4 for venue in books}
    alone = sorted((cost(venue, quantity_base) for venue in books), key=lambda one: (_rank(one, side), one.venue))
    shares, left = _cheapest_first(levels, factor, side, quantity_base)
    split = tuple(cost(venue, share) for venue, share in sorted(shares.items()))
    filled = math.fsum(shares.values())
    spent = math.fsum(one.quantity_base * one.all_in_price for one in split if one.all_in_price is not None)
    price = spent / filled if filled > 0.0 else None
    return Route(
        venues=tuple(alone),
        split=split,
        split_price=price,
        split_cost_bps=_against(price, whole.mid, side),
        unfilled_base=left,
    )


def _cheapest_first(
    levels: tuple[VenueLevel, ...], factor: Mapping[str, float], side: int, quantity_base: float
) -> tuple[dict[str, float], float]:
    """Quantity by venue, taking levels by their all-in price, and what is left.

    The cheapest split there is: costs are proportional to the quantity within a level, and no level of a venue is
    cheaper than the one before it.
    """
    taken: dict[str, list[float]] = {}
    left = quantity_base
    for level in sorted(levels, key=lambda one: side * one.price * factor[one.venue]):
        if left <= ROUNDING * quantity_base:
            break
        part = min(left, level.quantity_base)
        taken.setdefault(level.venue, []).append(part)
        left -= part
    shares = {venue: math.fsum(parts) for venue, parts in taken.items()}
    return shares, left if left > ROUNDING * quantity_base else 0.0


def _against(price: float | None, mid: float | None, side: int) -> float | None:
    return None if price is None or mid is None else side * 1e4 * (price / mid - 1.0)


def _rank(one: VenueCost, side: int) -> float:
    return math.inf if one.all_in_price is None else side * one.all_in_price
