"""Pre-flight: an order on its book, and all legs together on lots and minimums. Nothing is sent before these pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from basis_bt.core.live_models import Limits
from basis_bt.kernels.fills import gross_base
from basis_bt.live.amounts import lots_down, lots_up
from basis_bt.live.venue import Book, Contract

REASONS = ("stale_book", "empty_book", "crossed_book", "thin_book", "wide_spread", "slippage")
ROUNDING = 1e-9  # relative: a value that equals its limit but for rounding passes
SOUND = 1e-18, 1e18  # prices and quantities beyond are no market's, and would overflow
MOST_COARSENING = 10  # coarsest lots in a common one, beyond which the legs are floored one by one

Level = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookCheck:
    """What a market order would meet. Whatever cannot be measured is None, never NaN.

    ``depth_base`` is all that is visible on the side taken, ``near_depth_base`` what lies within
    ``max_slippage_bps`` of mid. ``slippage_bps`` is the average price against mid, positive when it hurts; it is
    ``half_spread_bps`` plus ``impact_bps``. ``worst_price`` is the last level needed. ``reason`` is one of ``REASONS``
    (the first that holds) or None, ``sentence`` says it with what was measured and what is allowed.

    ``liquidity_score`` is the room left under the nearest of the three limits on spread, share of the depth and
    slippage: ``100 * (1 - max(measured / limit))``, 100 where nothing is used up, 0 where any limit is reached or the
    book cannot be used. ``recommendation``: ``market``; ``limit`` where the spread is what costs; ``split`` where the
    size does; ``wait`` for a book that can be used.
    """

    instrument: str
    side: int
    quantity_base: float
    age_s: float
    mid: float | None
    spread_bps: float | None
    half_spread_bps: float | None
    depth_base: float
    near_depth_base: float
    average_price: float | None
    worst_price: float | None
    slippage_bps: float | None
    impact_bps: float | None
    liquidity_score: float
    reason: str | None
    sentence: str
    recommendation: str


def check_book(
    book: Book, *, side: int, quantity_base: float, now_us: int, limits: Limits, last_change_us: int | None = None
) -> BookCheck:
    """Check one leg's book for a market order of ``side`` (+1 buy, -1 sell).

    ``last_change_us`` is when the book was last seen to change, for venues that do not stamp it (Binance spot): the
    older of the two stamps counts. A stamp further in the future than ``max_clock_offset_s`` says nothing about age and
    is refused like a stale one. Levels without a finite price and quantity above zero are left out.

    Raises
    ------
    ValueError
        If the side is not +1 or -1, or the quantity not a finite number of at least 0.
    """
    if side not in (1, -1) or not (math.isfinite(quantity_base) and quantity_base >= 0.0):
        raise ValueError(f"an order has side +1 or -1 and a quantity of at least 0, found {side} and {quantity_base!r}")
    bids, asks = sound_levels(book.bids, is_bid=True), sound_levels(book.asks, is_bid=False)
    stamped_us = book.at_us if last_change_us is None else min(book.at_us, last_change_us)
    ahead_s = (stamped_us - now_us) / 1e6
    mid = (bids[0][0] + asks[0][0]) / 2.0 if bids and asks else None
    spread_bps = None if mid is None else 1e4 * (asks[0][0] - bids[0][0]) / mid
    taken = asks if side > 0 else bids
    depth = math.fsum(quantity for _, quantity in taken)
    walked = walk(taken, quantity_base)
    near = 0.0 if mid is None else math.fsum(
        quantity for price, quantity in taken if not _is_over(side * 1e4 * (price / mid - 1.0), limits.max_slippage_bps)
    )  # fmt: skip
    half = None if spread_bps is None else spread_bps / 2.0
    # from the best price, so that an order within the touch has none, whatever rounding does
    impact = None if walked is None or mid is None else side * 1e4 * (walked[0] - taken[0][0]) / mid
    slippage = None if half is None or impact is None else half + impact
    reason, sentence = _refusal(
        book.instrument, side, quantity_base, ahead_s, bids, asks, spread_bps, depth, slippage, limits
    )
    is_usable = reason not in ("stale_book", "empty_book", "crossed_book")
    return BookCheck(
        instrument=book.instrument,
        side=side,
        quantity_base=quantity_base,
        age_s=max(0.0, -ahead_s),
        mid=mid,
        spread_bps=spread_bps,
        half_spread_bps=half,
        depth_base=depth,
        near_depth_base=near,
        average_price=None if walked is None else walked[0],
        worst_price=None if walked is None else walked[1],
        slippage_bps=slippage,
        impact_bps=impact,
        liquidity_score=_score(quantity_base, spread_bps, depth, slippage, limits) if is_usable else 0.0,
        reason=reason,
        sentence=sentence,
        recommendation=_recommendation(reason, half, limits),
    )


def sound_levels(levels: Sequence[Level], *, is_bid: bool) -> list[Level]:
    """The levels with a finite price and quantity above zero, best first."""
    least, most = SOUND
    sound = [(p, q) for p, q in levels if least <= p <= most and least <= q <= most]  # a NaN is in no range
    return sorted(sound, key=lambda level: -level[0] if is_bid else level[0])


def walk(levels: Sequence[Level], quantity_base: float) -> tuple[float, float] | None:
    """Average and last price of taking a quantity from levels; None where they do not hold it."""
    if not levels:
        return None
    if quantity_base <= 0.0:
        return levels[0][0], levels[0][0]
    left, offsets = quantity_base, []
    best = levels[0][0]
    for price, quantity in levels:
        taken = min(left, quantity)
        offsets.append(taken * (price - best))  # from the best price: a tick stays visible beside the price itself
        left -= taken
        if left <= ROUNDING * quantity_base:
            return best + math.fsum(offsets) / quantity_base, price
    return None


def _refusal(
    instrument: str, side: int, quantity_base: float, ahead_s: float, bids: list[Level], asks: list[Level],
    spread_bps: float | None, depth: float, slippage_bps: float | None, limits: Limits,
) -> tuple[str | None, str]:  # fmt: skip
    if _is_over(-ahead_s, limits.book_age_s):
        return "stale_book", f"{instrument}: the book is {-ahead_s:.1f} s old, the limit is {limits.book_age_s:g} s"
    if _is_over(ahead_s, limits.max_clock_offset_s):
        return "stale_book", (
            f"{instrument}: the book is stamped {ahead_s:.1f} s in the future, "
            f"the limit is {limits.max_clock_offset_s:g} s: its age cannot be told"
        )
    if spread_bps is None:
        empty = " and ".join(name for name, levels in (("bids", bids), ("asks", asks)) if not levels)
        return "empty_book", f"{instrument}: the book has no {empty}, needed are both sides"
    if spread_bps <= 0.0:
        return "crossed_book", (
            f"{instrument}: the best bid {bids[0][0]:g} is not under the best ask {asks[0][0]:g} "
            f"(spread {spread_bps:.2f} bps)"
        )
    name = "ask" if side > 0 else "bid"
    if slippage_bps is None or _is_over(quantity_base, limits.min_depth_share * depth):
        return "thin_book", (
            f"{instrument}: depth {depth:.10g} on the {name} side, need {quantity_base:.10g}, "
            f"which may be at most {100 * limits.min_depth_share:g} % of it"
        )
    if _is_over(spread_bps, limits.max_spread_bps):
        return "wide_spread", (
            f"{instrument}: the spread is {spread_bps:.2f} bps, the limit is {limits.max_spread_bps:g} bps"
        )
    if _is_over(slippage_bps, limits.max_slippage_bps):
        return "slippage", (
            f"{instrument}: {quantity_base:.10g} out of depth {depth:.10g} on the {name} side costs "
            f"{slippage_bps:.2f} bps against mid, the limit is {limits.max_slippage_bps:g} bps"
        )
    return None, ""


def _score(
    quantity_base: float, spread_bps: float | None, depth: float, slippage_bps: float | None, limits: Limits
) -> float:
    if spread_bps is None or slippage_bps is None or depth <= 0.0:
        return 0.0
    used = max(
        spread_bps / limits.max_spread_bps,
        quantity_base / depth / limits.min_depth_share,
        slippage_bps / limits.max_slippage_bps,
    )
    return 100.0 * min(1.0, max(0.0, 1.0 - used))


def _recommendation(reason: str | None, half_spread_bps: float | None, limits: Limits) -> str:
    if reason is None:
        return "market"
    if reason in ("stale_book", "empty_book", "crossed_book"):
        return "wait"
    is_spread = half_spread_bps is not None and _is_over(half_spread_bps, limits.max_slippage_bps)
    return "limit" if reason == "wide_spread" or (reason == "slippage" and is_spread) else "split"


def _is_over(value: float, limit: float) -> bool:
    return value > limit * (1.0 + ROUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonQuantity:
    """A combo quantity that every leg can trade, and what each leg is ordered.

    ``position_base`` is signed and equal in base units up to the ratios; ``order_base`` is what is sent, without sign:
    the same, but more by the fee where a buy pays it in base, so that what arrives covers the hedge.
    """

    quantity: float
    position_base: tuple[float, ...]
    order_base: tuple[float, ...]


def common_quantity(quantity: float, contracts: Sequence[Contract], ratios: Sequence[float]) -> CommonQuantity:
    """Floor a combo quantity (what is to be held, net of fees) to the lot that all its legs have in common.

    ``ratios`` are signed by what is bought (+) and sold (-) now. The common lot is the smallest number of combo units
    that is whole lots of every leg. Where that is more than ``MOST_COARSENING`` of the coarsest lots, as with ratios
    that are no simple fractions of one another, the coarsest counts as in the kernels, and each leg is floored to its
    own lot, so that legs differ by less than one.

    Raises
    ------
    ValueError
        If the quantity is not a finite number of at least 0.
    """
    if not (math.isfinite(quantity) and quantity >= 0.0):
        raise ValueError(f"a combo has a quantity of at least 0, found {quantity!r}")
    steps = [
        Fraction(f"{contract.lot_base:.12g}") / abs(Fraction(f"{ratio:.12g}"))
        for contract, ratio in zip(contracts, ratios, strict=True)
        if contract.lot_base > 0.0
    ]
    floored = quantity
    if steps:
        common, coarsest = _common_multiple(steps), max(steps)
        floored = lots_down(quantity, float(common if common <= MOST_COARSENING * coarsest else coarsest))
    positions, orders = [], []
    for contract, ratio in zip(contracts, ratios, strict=True):
        held = lots_down(floored * abs(ratio), contract.lot_base)
        fee_frac = contract.taker_fee_bps / 1e4 if contract.is_fee_in_base and ratio > 0.0 else 0.0
        positions.append(math.copysign(held, ratio))
        orders.append(lots_up(gross_base(held, max(fee_frac, 0.0)), contract.lot_base))
    return CommonQuantity(quantity=floored, position_base=tuple(positions), order_base=tuple(orders))


def _common_multiple(steps: Sequence[Fraction]) -> Fraction:
    return Fraction(math.lcm(*(s.numerator for s in steps)), math.gcd(*(s.denominator for s in steps)))


def check_minimums(
    contracts: Sequence[Contract], quantities_base: Sequence[float], prices: Sequence[float]
) -> str | None:
    """Whether every leg may be sent at all: trading, whole lots, the venue's minimum quantity and notional.

    All legs are looked at before any is sent, so that no leg is filled whose hedge is then refused. None: all may.
    Otherwise the sentences of all that is wrong.
    """
    wrong = []
    for contract, quantity, price in zip(contracts, quantities_base, prices, strict=True):
        quantity, name = abs(quantity), contract.instrument
        if not (math.isfinite(quantity) and math.isfinite(price) and price > 0.0):
            wrong.append(f"{name}: quantity and price must be finite, found {quantity!r} at {price!r}")
            continue
        if not contract.is_trading:
            wrong.append(f"{name}: the venue is not trading it")
        notional_usd = quantity * price
        if quantity <= 0.0 or quantity < contract.min_base * (1.0 - ROUNDING):
            least = max(contract.min_base, contract.lot_base)
            wrong.append(f"{name}: quantity {quantity:.10g} is under the venue's minimum of {least:.10g}")
        elif abs(lots_down(quantity, contract.lot_base) - quantity) > ROUNDING * quantity:
            wrong.append(f"{name}: quantity {quantity:.10g} is no multiple of the lot {contract.lot_base:.10g}")
        if notional_usd < contract.min_notional_usd * (1.0 - ROUNDING):
            wrong.append(
                f"{name}: notional {notional_usd:.2f} USD is under the venue's minimum of "
                f"{contract.min_notional_usd:g} USD"
            )
    return "; ".join(wrong) or None
