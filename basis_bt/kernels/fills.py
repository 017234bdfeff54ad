"""Filling a combo order (SPEC 4): the whole combo in one bar, at the opens, each leg with its costs."""

import math

from basis_bt.kernels import costs as cost_rules
from basis_bt.kernels._jit import kernel
from basis_bt.kernels.status import OK, PRICE_MISSING, VOLUME_MISSING
from basis_bt.kernels.structs import BUCKET, DELAY, FEES, IMPACT, SPREAD


@kernel
def all_tradable(tradable):
    """Whether every leg has an open in this bar."""
    for leg in range(len(tradable)):
        if not tradable[leg]:
            return False
    return True


@kernel
def net_share(direction, ratio, base_fee_frac):
    """Share of the quantity that a combo keeps when its spot buys pay their fee in base: one minus the largest fee."""
    largest = 0.0
    for leg in range(len(ratio)):
        if direction * ratio[leg] > 0.0 and base_fee_frac[leg] > largest:
            largest = base_fee_frac[leg]
    return 1.0 - largest


@kernel
def fill_leg(bar, leg, position_change_base, arrival_price, market, costs, books, values):
    """Fill one leg at the open of a bar; writes its costs into books and values.

    Returns the status, the notional at the fill price, and the fee that is charged in cash (0 if taken in base).
    """
    reference = market.open_price[bar, leg]
    if not (math.isfinite(reference) and math.isfinite(arrival_price)):
        return PRICE_MISSING, 0.0, 0.0
    side = 1.0 if position_change_base > 0.0 else -1.0
    net = abs(position_change_base)
    base_fee = costs.base_fee_frac[leg] if side > 0.0 else 0.0
    quantity = net / (1.0 - base_fee)
    coef = costs.impact_coef_bps[leg]
    if coef != 0.0 and not market.volume_before[bar, leg] > 0.0:
        return VOLUME_MISSING, 0.0, 0.0
    row = costs.bucket_row[bar]
    bucket = cost_rules.bucket_bps(quantity * reference, costs.bucket_usd[leg], costs.bucket_bps[leg, row])
    impact = cost_rules.impact_bps(quantity, market.volume_before[bar, leg], coef, costs.impact_exponent)
    price = cost_rules.fill_price(reference, side, costs.half_spread_bps[leg] + bucket + impact)
    delay_usd = cost_rules.delay_usd(side, net, arrival_price, reference)
    spread_usd = cost_rules.cost_usd(net, reference, costs.half_spread_bps[leg])
    bucket_usd = cost_rules.cost_usd(net, reference, bucket)
    impact_usd = cost_rules.cost_usd(net, reference, impact)
    fee_usd = cost_rules.fee_usd(quantity, price, costs.fee_bps[leg])
    books[leg, DELAY] += delay_usd
    books[leg, SPREAD] += spread_usd
    books[leg, BUCKET] += bucket_usd
    books[leg, IMPACT] += impact_usd
    books[leg, FEES] += fee_usd
    values[0], values[1], values[2] = quantity, position_change_base, arrival_price
    values[3], values[4] = reference, price
    values[5], values[6], values[7], values[8], values[9] = delay_usd, spread_usd, bucket_usd, impact_usd, fee_usd
    return OK, quantity * price, (fee_usd if base_fee == 0.0 else 0.0)
