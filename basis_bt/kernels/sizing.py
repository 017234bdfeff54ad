"""How much of a combo an entry trades."""

import math

from basis_bt.kernels._jit import kernel

DUST_FRAC = 1e-9


@kernel
def floor_to_lot(quantity, lot):
    """Largest multiple of the lot that is not above the quantity; a quotient within 1e-9 of a whole lot is that lot."""
    if lot <= 0.0:
        return quantity
    units = quantity / lot
    whole = math.floor(units)
    if whole + 1.0 - units < 1e-9:
        whole += 1.0
    return whole * lot


@kernel
def capital_per_combo_usd(ratio, price, margin_weight):
    """Capital that one unit of combo ties up: the sum of |ratio| * price * weight.

    The weight is 1 for what is paid in full, one over the leverage for a margined leg, -1 for a loan.
    """
    total = 0.0
    for leg in range(len(ratio)):
        total += abs(ratio[leg]) * price[leg] * margin_weight[leg]
    return total


@kernel
def is_capital(equity_usd, size):
    """Whether an equity is more than what rounding leaves of a lost capital."""
    return equity_usd > DUST_FRAC * size.capital_usd


@kernel
def combo_quantity(equity_usd, ratio, price, margin_weight, size):
    """Units of combo for an entry, floored to the lot; 0 without capital, or where loans pay for all of it."""
    capital_usd = capital_per_combo_usd(ratio, price, margin_weight)
    if equity_usd <= 0.0 or capital_usd <= 0.0:
        return 0.0
    lot = size.lot
    for leg in range(len(ratio)):
        if size.lot_usd[leg] > 0.0:
            lot = max(lot, size.lot_usd[leg] / (abs(ratio[leg]) * price[leg]))
    return floor_to_lot(size.allocation * equity_usd / capital_usd, lot)


@kernel
def meets_minimums(quantity, ratio, price, min_notional_usd):
    """Whether each leg of an entry is worth at least the venue's minimum."""
    for leg in range(len(ratio)):
        if quantity * abs(ratio[leg]) * price[leg] < min_notional_usd[leg]:
            return False
    return True
