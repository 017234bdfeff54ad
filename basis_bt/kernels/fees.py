"""Which fees are in force: the row of the day, or the tier of the trailing volume."""

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.structs import TRADED, CostParams

VOLUME_DAYS = 30


@inner_kernel
def with_own_costs(costs):
    """The costs with arrays of their own where a trial, or a batch of them, writes: fees, half spreads, impact."""
    return CostParams(
        costs.half_spread_bps.copy(),
        costs.fee_bps.copy(),
        costs.maker_fee_bps.copy(),
        costs.base_fee_frac.copy(),
        costs.bucket_usd,
        costs.bucket_bps,
        costs.bucket_row,
        costs.impact_coef_bps.copy(),
        costs.impact_exponent,
    )


@inner_kernel
def set_fees(bar, fees, day, cum_usd, account, costs):
    """Set the fees of a bar in ``costs``; ``cum_usd`` keeps the turnover of each leg at the begin of each day."""
    if not fees.is_by_volume:
        if bar == 0 or fees.row[bar] != fees.row[bar - 1]:
            for leg in range(len(costs.fee_bps)):
                set_fee(leg, fees.fee_bps[fees.row[bar], leg], fees.maker_fee_bps[fees.row[bar], leg], fees, costs)
        return
    if bar > 0 and day[bar] == day[bar - 1]:
        return
    row = fees.row[bar]
    now = day[bar] - day[0]
    for leg in range(len(costs.fee_bps)):
        cum_usd[now, leg] = account.legs[TRADED, leg]
    since = max(now - VOLUME_DAYS, 0)
    for leg in range(len(costs.fee_bps)):
        volume_usd = fees.volume_30d_usd
        for other in range(len(costs.fee_bps)):
            if fees.group[other] == fees.group[leg]:
                volume_usd += cum_usd[now, other] - cum_usd[since, other]
        tier = tier_of_volume(volume_usd, fees.tier_volume_usd[row, leg])
        set_fee(leg, fees.tier_fee_bps[row, leg, tier], fees.tier_maker_fee_bps[row, leg, tier], fees, costs)


@kernel
def tier_of_volume(volume_usd, tier_volume_usd):
    """The highest tier whose volume is reached."""
    tier = 0
    while tier + 1 < len(tier_volume_usd) and tier_volume_usd[tier + 1] <= volume_usd:
        tier += 1
    return tier


@inner_kernel
def set_fee(leg, fee_bps, maker_fee_bps, fees, costs):
    """The fees of one leg, and the share of a buy that one taken in base keeps back."""
    costs.fee_bps[leg], costs.maker_fee_bps[leg] = fee_bps, maker_fee_bps
    costs.base_fee_frac[leg] = fee_bps / 1e4 if fees.is_in_base[leg] and fee_bps > 0.0 else 0.0
