"""How an order is worked: which style, at what price, in what slices. Plans as data; nothing is sent from here."""

import math
from dataclasses import dataclass
from typing import Literal

from basis_bt.core.live_models import Execution
from basis_bt.kernels import fills
from basis_bt.live.amounts import lot_count, lots_down, tick_price
from basis_bt.live.orders import Kind
from basis_bt.live.venue import Contract

Chosen = Literal["market", "limit", "protected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One order of a plan, to be sent ``after_s`` seconds from the start of it.

    ``quantity_base`` is whole lots. ``timeout_s`` is how long it may stay open; what is unfilled then is cancelled, and
    with ``fallback`` ``"market"`` sent again as a market order, with None given up.
    """

    quantity_base: float
    kind: Kind
    limit_price: float | None = None
    post_only: bool = False
    after_s: float = 0.0
    timeout_s: float
    fallback: Literal["market"] | None = None


def choose_style(
    *,
    minute_volatility_pct: float | None,
    spread_bps: float,
    quantity_base: float,
    depth_base: float,
    min_depth_share: float,
    execution: Execution,
) -> tuple[Chosen, str]:
    """The style of an ``adaptive`` order, and why.

    ``limit`` when a minute moves more than ``volatile_pct`` (the first rule that holds counts), ``protected``, a
    marketable limit, when the quoted spread is over ``wide_spread_bps``, or the order over ``min_depth_share`` of the
    depth that is visible; else ``market``. An unknown volatility (None or NaN) is no reason for a limit; an unknown
    spread is one for protection.
    """
    if minute_volatility_pct is not None and minute_volatility_pct > execution.volatile_pct:
        return "limit", (
            f"a minute moves {minute_volatility_pct:.2f} %, which is over volatile_pct = {execution.volatile_pct:g}"
        )
    if not spread_bps <= execution.wide_spread_bps:
        return "protected", (
            f"the spread is {spread_bps:.2f} bps, which is over wide_spread_bps = {execution.wide_spread_bps:g}"
        )
    if not quantity_base <= min_depth_share * depth_base:
        return "protected", (
            f"{quantity_base:.10g} is over {100 * min_depth_share:g} % of the visible depth of {depth_base:.10g}"
        )
    return "market", "volatility, spread and depth are within their limits"


def limit_price(*, side: int, mid: float, offset_bps: float, tick: float) -> float:
    """Price of a resting order, ``offset_bps`` better than mid, rounded to the tick on the passive side.

    A buy is rounded down, a sell up, so that rounding never makes the order pay more; on a book that is not crossed the
    price is at least a tick from the opposite side, as ``post_only`` needs it.
    """
    return tick_price(fills.limit_price(mid, side, offset_bps), tick, is_up=side < 0)


def protected_price(*, side: int, arrival_price: float, slippage_limit_bps: float, tick: float) -> float:
    """Price of a marketable limit: as much worse than arrival as slippage may be, rounded so as not to exceed it.

    Each leg is measured against its own arrival price, so that a leg that ran away is not chased.
    """
    return tick_price(fills.limit_price(arrival_price, side, -slippage_limit_bps), tick, is_up=side < 0)


def twap_slices(quantity_base: float, *, contract: Contract, price: float, execution: Execution) -> list[Slice]:
    """Market orders evenly over ``twap_minutes``, the first at once, the last one interval before the end.

    Quantities are whole lots that differ by at most one and add up to the quantity. There are ``twap_slices`` of them,
    or as many as the venue's minimum quantity and notional allow each to be above.

    Raises
    ------
    ValueError
        If the quantity is not above zero or no multiple of the lot.
    """
    _check_whole(quantity_base, contract.lot_base)
    least_base = max(contract.min_base, contract.min_notional_usd / price)
    n = execution.twap_slices
    count = lot_count(quantity_base, contract.lot_base)
    if count is None:
        n = max(1, min(n, math.floor(quantity_base / least_base) if least_base > 0.0 else n))
        parts = [quantity_base / n] * (n - 1)
        parts.append(quantity_base - math.fsum(parts))
    else:
        n = max(1, min(n, count))
        # the smallest slice has count // n lots
        while n > 1 and lots_down(count // n * contract.lot_base, contract.lot_base) < least_base:
            n -= 1
        ends = [(i * count) // n for i in range(n + 1)]
        parts = [
            lots_down((high - low) * contract.lot_base, contract.lot_base)
            for low, high in zip(ends, ends[1:], strict=False)
        ]
    step_s = 60.0 * execution.twap_minutes / n
    return [
        Slice(quantity_base=part, kind="market", after_s=i * step_s, timeout_s=execution.leg_timeout_s)
        for i, part in enumerate(parts)
    ]


def plan_order(
    quantity_base: float,
    *,
    side: int,
    contract: Contract,
    arrival_price: float,
    best_bid: float,
    best_ask: float,
    depth_base: float,
    min_depth_share: float,
    minute_volatility_pct: float | None,
    execution: Execution,
) -> list[Slice]:
    """The slices of an order in the configured style; their quantities add up to the order's.

    A ``limit`` and a ``post_only`` order that time out are given up; ``limit_then_market``, and the limit that
    ``adaptive`` chooses, fall back to the market. A protected limit is not repeated: what is left is beyond the price
    that was allowed.

    Raises
    ------
    ValueError
        If the quantity is not above zero or no multiple of the lot.
    """
    _check_whole(quantity_base, contract.lot_base)
    style: str = execution.style_of(contract.instrument.split(":")[0])
    if style == "twap":
        return twap_slices(quantity_base, contract=contract, price=arrival_price, execution=execution)
    mid = (best_bid + best_ask) / 2.0
    is_falling_back = style == "limit_then_market"
    if style == "adaptive":
        style, _ = choose_style(
            minute_volatility_pct=minute_volatility_pct,
            spread_bps=1e4 * (best_ask - best_bid) / mid,
            quantity_base=quantity_base,
            depth_base=depth_base,
            min_depth_share=min_depth_share,
            execution=execution,
        )
        is_falling_back = style == "limit"
    if style == "market":
        return [Slice(quantity_base=quantity_base, kind="market", timeout_s=execution.leg_timeout_s)]
    if style == "protected":
        price = protected_price(
            side=side, arrival_price=arrival_price, slippage_limit_bps=execution.slippage_limit_bps, tick=contract.tick
        )
        return [Slice(quantity_base=quantity_base, kind="limit", limit_price=price, timeout_s=execution.leg_timeout_s)]
    price = limit_price(side=side, mid=mid, offset_bps=execution.limit_offset_bps, tick=contract.tick)
    return [
        Slice(
            quantity_base=quantity_base,
            kind="limit",
            limit_price=price,
            post_only=style == "post_only",
            timeout_s=execution.limit_timeout_s,
            fallback="market" if is_falling_back else None,
        )
    ]


def _check_whole(quantity_base: float, lot: float) -> None:
    if not (math.isfinite(quantity_base) and quantity_base > 0.0):
        raise ValueError(f"an order has a quantity above 0, found {quantity_base!r}")
    if abs(lots_down(quantity_base, lot) - quantity_base) > 1e-9 * quantity_base:
        raise ValueError(f"an order is whole lots of {lot:.10g}, found {quantity_base!r}")
