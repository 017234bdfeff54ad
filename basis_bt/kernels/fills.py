"""Filling one leg: what share of it fills, at which price, and what that costs."""

import math

from basis_bt.kernels import costs as cost_rules
from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.draws import FILL, REJECT, uniform
from basis_bt.kernels.status import COST_OVER_PRICE, OK, PRICE_MISSING, VOLUME_MISSING
from basis_bt.kernels.structs import BERNOULLI, BUCKET, BY_VOLUME, DELAY, FEES, IMPACT, ROLLBACK_EXECUTION, SPREAD


@kernel
def net_share(direction, ratio, base_fee_frac):
    """Share of the quantity that a combo keeps when its spot buys pay their fee in base: one minus the largest fee."""
    largest = 0.0
    for leg in range(len(ratio)):
        if direction * ratio[leg] > 0.0 and base_fee_frac[leg] > largest:
            largest = base_fee_frac[leg]
    return 1.0 - largest


@kernel
def gross_base(position_change_base, base_fee_frac):
    """Quantity to order so that a change of position arrives: more by the fee where a buy pays it in base."""
    return abs(position_change_base) / (1.0 - (base_fee_frac if position_change_base > 0.0 else 0.0))


@inner_kernel
def fill_fraction(bar, leg, quantity_base, market, fills):
    """Share of a leg's order that a bar fills, in [0, 1]; a refused leg fills nothing."""
    if is_rejected(bar, leg, fills):
        return 0.0
    if fills.model == BY_VOLUME:
        available = fills.volume_cap * market.volume[bar, leg]
        return 1.0 if available >= quantity_base else available / quantity_base
    if fills.model == BERNOULLI:
        return 1.0 if uniform(fills.seed, fills.trial, bar, leg, FILL) < fills.fill_probability else 0.0
    return 1.0


@inner_kernel
def is_rejected(bar, leg, fills):
    """Whether the venue refuses this leg's order in this bar."""
    if fills.reject_probability <= 0.0:
        return False
    return uniform(fills.seed, fills.trial, bar, leg, REJECT) < fills.reject_probability


@kernel
def limit_price(arrival_price, side, offset_bps):
    """Price of a resting order: better than the arrival price for both sides."""
    return arrival_price * (1.0 - side * offset_bps / 1e4)


@inner_kernel
def is_traded_through(bar, leg, price, side, market):
    """Whether the bar trades strictly through a limit; at the limit itself the queue may be in front."""
    return market.low_price[bar, leg] < price if side > 0.0 else market.high_price[bar, leg] > price


@inner_kernel
def cost_components_bps(bar, leg, quantity_base, reference_price, market, costs):
    """Status, and half spread, bucket and impact of a market order in bps."""
    return order_cost_bps(
        quantity_base, reference_price, market.volume_before[bar, leg], costs.half_spread_bps[leg],
        costs.bucket_usd[leg], costs.bucket_bps[leg, costs.bucket_row[bar]], costs.impact_coef_bps[leg],
        costs.impact_exponent,
    )  # fmt: skip


@kernel
def order_cost_bps(
    quantity_base, reference_price, volume_before, half_spread_bps, bucket_usd, bucket_bps, impact_coef_bps,
    impact_exponent,
):  # fmt: skip
    """As ``cost_components_bps``, of one leg's own numbers."""
    if impact_coef_bps != 0.0 and not volume_before > 0.0:
        return VOLUME_MISSING, 0.0, 0.0, 0.0
    bucket = cost_rules.bucket_bps(quantity_base * reference_price, bucket_usd, bucket_bps)
    impact = cost_rules.impact_bps(quantity_base, volume_before, impact_coef_bps, impact_exponent)
    return OK, half_spread_bps, bucket, impact


@inner_kernel
def take(
    bar, leg, position_change_base, arrival_price, reference_price, penalty_bps, traded_frac, market, costs, values
):
    """A market order at a reference price; writes its prices and costs into ``values`` and returns the status.

    ``traded_frac`` is what is traded as a share of the quantity at the reference price: 1, but for an inverse position
    that is reduced, whose contract dollars were another quantity when it was opened.
    """
    return take_leg(
        position_change_base, arrival_price, reference_price, penalty_bps, traded_frac, market.volume_before[bar, leg],
        costs.half_spread_bps[leg], costs.bucket_usd[leg], costs.bucket_bps[leg, costs.bucket_row[bar]],
        costs.impact_coef_bps[leg], costs.impact_exponent, costs.fee_bps[leg], costs.base_fee_frac[leg], values,
    )  # fmt: skip


@kernel
def take_leg(
    position_change_base, arrival_price, reference_price, penalty_bps, traded_frac, volume_before, half_spread_bps,
    bucket_usd, bucket_bps, impact_coef_bps, impact_exponent, fee_bps, base_fee_frac, values,
):  # fmt: skip
    """As ``take``, of one leg's own numbers."""
    if not (math.isfinite(reference_price) and math.isfinite(arrival_price)):
        return PRICE_MISSING
    side = 1.0 if position_change_base > 0.0 else -1.0
    net = abs(position_change_base)
    quantity = gross_base(position_change_base, base_fee_frac)
    traded = quantity * traded_frac
    status, spread, bucket, impact = order_cost_bps(
        traded, reference_price, volume_before, half_spread_bps, bucket_usd, bucket_bps, impact_coef_bps,
        impact_exponent,
    )  # fmt: skip
    if status != OK:
        return status
    spread, bucket, impact = (spread + penalty_bps) * traded_frac, bucket * traded_frac, impact * traded_frac
    if side < 0.0 and spread + bucket + impact >= 1e4:
        return COST_OVER_PRICE
    price = cost_rules.fill_price(reference_price, side, spread + bucket + impact)
    values[0], values[1], values[2] = quantity, position_change_base, arrival_price
    values[3], values[4] = reference_price, price
    values[5] = cost_rules.delay_usd(side, net, arrival_price, reference_price)
    values[6] = cost_rules.cost_usd(net, reference_price, spread)
    values[7] = cost_rules.cost_usd(net, reference_price, bucket)
    values[8] = cost_rules.cost_usd(net, reference_price, impact)
    values[9] = cost_rules.fee_usd(traded, price, fee_bps)
    return OK


@kernel
def rest(position_change_base, arrival_price, open_price, limit, traded_frac, maker_fee_bps, values):
    """A limit order that was reached: filled at its limit with the maker fee, nothing else.

    With a ``traded_frac`` (see ``take``) other than 1 only that share of the way from the open to the limit counts.
    """
    side = 1.0 if position_change_base > 0.0 else -1.0
    quantity = abs(position_change_base)
    price = limit if traded_frac == 1.0 else open_price + traded_frac * (limit - open_price)
    values[0], values[1], values[2], values[3], values[4] = quantity, position_change_base, arrival_price, price, price
    values[5] = cost_rules.delay_usd(side, quantity, arrival_price, price)
    values[6], values[7], values[8] = 0.0, 0.0, 0.0
    values[9] = cost_rules.fee_usd(quantity * traded_frac, price, maker_fee_bps)


@kernel
def book_costs(books, leg, values):
    """Add the components of a fill to the books of its leg."""
    books[leg, DELAY] += values[5]
    books[leg, SPREAD] += values[6]
    books[leg, BUCKET] += values[7]
    books[leg, IMPACT] += values[8]
    books[leg, FEES] += values[9]


@kernel
def move_to_rollback(books, leg, values, share):
    """Take the share of a fill's costs that has to be closed again out of its books: it is a cost of the rollback."""
    books[leg, DELAY] -= share * values[5]
    books[leg, SPREAD] -= share * values[6]
    books[leg, BUCKET] -= share * values[7]
    books[leg, IMPACT] -= share * values[8]
    books[leg, FEES] -= share * values[9]
    books[leg, ROLLBACK_EXECUTION] += share * (values[5] + values[6] + values[7] + values[8] + values[9])
