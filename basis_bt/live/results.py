"""What an order came to: its fills as one result, with costs split by the functions that a backtest uses."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from basis_bt.kernels.costs import cost_usd, delay_usd
from basis_bt.live.orders import LegOrder, LegResult, VenueTrade
from basis_bt.live.venue import Contract


def leg_result(
    order: LegOrder,
    trades: Sequence[VenueTrade],
    *,
    contract: Contract,
    worth: Mapping[str, float],
    done_us: int,
    venue_order_id: str | None,
    event: str = "",
    reason: str = "",
) -> LegResult:
    """The result of one order.

    Parameters
    ----------
    worth : price in quote of each asset that a fee was paid in, beside base and quote
    event : where it is not what the fills say: refused, missing, unknown
    """
    filled = sum(trade.quantity_base for trade in trades)
    paid = sum(trade.quantity_base * trade.price for trade in trades)
    price = paid / filled if filled > 0.0 else None
    fees: dict[str, float] = defaultdict(float)
    fee_usd, in_base = 0.0, 0.0
    for trade in trades:
        fees[trade.fee_asset] += trade.fee
        is_base = trade.fee_asset == contract.base and not contract.is_margined
        in_base += trade.fee if is_base else 0.0
        fee_usd += trade.fee * (
            trade.price if trade.fee_asset == contract.base else worth.get(trade.fee_asset, 1.0)
        )  # fmt: skip
    change = order.side * filled - in_base
    spread, bucket, impact, delay = _costs_usd(order, trades, abs(change), price)
    cash: dict[str, float] = defaultdict(float)
    for asset, fee in fees.items():
        cash[asset] -= fee
    if not contract.is_margined:
        cash[contract.quote] -= order.side * paid
        cash[contract.base] += order.side * filled
    is_whole = filled >= order.quantity_base - contract.lot_base / 2.0 - 1e-12 * order.quantity_base
    return LegResult(
        success=is_whole and filled > 0.0,
        event=event or ("filled" if is_whole else "partial"),
        venue=order.venue,
        instrument=order.instrument,
        leg=order.leg,
        side=order.side,
        client_order_id=order.client_order_id,
        venue_order_id=venue_order_id,
        purpose=order.purpose,
        requested_base=order.quantity_base,
        filled_base=filled,
        position_change_base=change,
        arrival_price=order.arrival_price,
        reference_price=order.reference_price,
        fill_price=price,
        notional_usd=paid,
        delay_usd=delay,
        spread_usd=spread,
        bucket_usd=bucket,
        impact_usd=impact,
        fee_usd=fee_usd,
        fees=dict(fees),
        cash_change=dict(cash),
        is_maker=bool(trades) and all(trade.is_maker for trade in trades),
        decided_us=order.decided_us,
        sent_us=order.sent_us,
        done_us=done_us,
        reason=reason,
    )


def venue_order(trade: VenueTrade, leg: int) -> LegOrder:
    """A fill that no order of ours asked for, as if one had, at its own price."""
    return LegOrder(
        intent="0-venue", client_order_id=trade.trade_id, instrument=trade.instrument, leg=leg, side=trade.side,
        quantity_base=trade.quantity_base, purpose="venue", arrival_price=trade.price, reference_price=trade.price,
        decided_us=trade.ts_us, sent_us=trade.ts_us,
    )  # fmt: skip


def _costs_usd(
    order: LegOrder, trades: Sequence[VenueTrade], net_base: float, price: float | None
) -> tuple[float, float, float, float]:
    """Spread, bucket, impact and delay on what arrived.

    What a taker paid beyond half the quoted spread is impact. A maker's fill is at its own limit: all of it is delay,
    as in ``kernels/fills.rest``.
    """
    if price is None:
        return 0.0, 0.0, 0.0, 0.0
    if all(trade.is_maker for trade in trades):
        return 0.0, 0.0, 0.0, delay_usd(float(order.side), net_base, order.arrival_price, price)
    delay = delay_usd(float(order.side), net_base, order.arrival_price, order.reference_price)
    parts = [trade.parts_usd for trade in trades if trade.parts_usd is not None]
    if len(parts) == len(trades):
        return sum(one[0] for one in parts), sum(one[1] for one in parts), sum(one[2] for one in parts), delay
    spread = cost_usd(net_base, order.reference_price, order.half_spread_bps)
    whole = delay_usd(float(order.side), net_base, order.reference_price, price)
    return spread, 0.0, whole - spread, delay


def merged(results: Sequence[LegResult]) -> LegResult:
    """Several orders for one leg as one result: sums, and the average price. The first tells what was asked."""
    first = results[0]
    if len(results) == 1:
        return first
    filled = sum(one.filled_base for one in results)
    paid = sum(one.notional_usd for one in results)

    def summed(name: str) -> float:
        return sum(getattr(one, name) for one in results)

    def by_asset(name: str) -> dict[str, float]:
        out: dict[str, float] = defaultdict(float)
        for one in results:
            for asset, amount in getattr(one, name).items():
                out[asset] += amount
        return dict(out)

    last = results[-1]
    return LegResult(
        success=last.success,
        event=last.event if filled == 0.0 or last.event == "unknown" else "filled" if last.success else "partial",
        venue=first.venue,
        instrument=first.instrument,
        leg=first.leg,
        side=first.side,
        client_order_id=last.client_order_id,
        venue_order_id=last.venue_order_id,
        purpose=first.purpose,
        requested_base=first.requested_base,
        filled_base=filled,
        position_change_base=summed("position_change_base"),
        arrival_price=first.arrival_price,
        reference_price=first.reference_price,
        fill_price=paid / filled if filled else None,
        notional_usd=paid,
        **{name: summed(name) for name in ("delay_usd", "spread_usd", "bucket_usd", "impact_usd", "fee_usd")},
        fees=by_asset("fees"),
        cash_change=by_asset("cash_change"),
        is_maker=all(one.is_maker for one in results if one.filled_base),
        decided_us=first.decided_us,
        sent_us=first.sent_us,
        done_us=last.done_us,
        reason=last.reason,
    )
