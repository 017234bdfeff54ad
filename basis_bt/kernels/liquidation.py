"""Where a position or a wallet is liquidated, and what that costs.

Equity is a straight line in the price, and maintenance is one within a tier; so every answer here is found tier by tier
in closed form. Tiers and wallets are described in ``margin.py``. NaN stands for a price that does not exist: never.
"""

import math

import numpy as np

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.margin import maintenance_usd, notional_at_usd, tier_of, wallet_surplus_usd

# ------------------------------------------------------------------------------------------------- one position


@kernel
def _falling_zero(quantity, equity_at_zero, start, floor, mmr, amount):
    """First x on the way down from ``start`` at which ``equity_at_zero + quantity * x`` is at most the maintenance."""
    tier = len(floor) - 1 if start == math.inf else tier_of(quantity * start, floor)
    while tier >= 0:
        zero = (equity_at_zero + amount[tier]) / (quantity * (mmr[tier] - 1.0))
        if zero > floor[tier] / quantity:
            return zero
        tier -= 1
    return math.nan


@kernel
def _rising_zero(quantity, equity_at_zero, start, floor, mmr, amount):
    """First x on the way up from ``start`` at which ``equity_at_zero - quantity * x`` is at most the maintenance."""
    tier = tier_of(quantity * start, floor)
    low = start
    while True:
        zero = (equity_at_zero + amount[tier]) / (quantity * (mmr[tier] + 1.0))
        if zero <= low:
            return low
        if tier + 1 == len(floor) or zero * quantity <= floor[tier + 1]:
            return zero
        low = floor[tier + 1] / quantity
        tier += 1


@kernel
def liquidation_price_linear(
    quantity_base, entry_price, wallet_balance_usd, other_maintenance_usd, other_pnl_usd, floor_usd, mmr, amount_usd
):
    """Mark price at which a linear position uses up its wallet: ``(WB - TMM + UPNL + cum - s Q EP) / (Q mmr - s Q)``.

    The tier is that of the notional at the result: tiers are walked from the entry towards the loss. Where maintenance
    jumps at a floor, the answer is the first price on that walk at which equity is at most the maintenance, which may
    be the floor itself. If the wallet cannot carry the position even at the entry (balance withdrawn or lost since),
    the walk begins at the end where the position gains most, so that the answer lies beyond the entry.

    Parameters
    ----------
    quantity_base : signed, negative for a short
    wallet_balance_usd : the wallet before any unrealised PnL; isolated: the margin of the position
    other_maintenance_usd, other_pnl_usd : of the other positions on the wallet at their present marks
    floor_usd, mmr, amount_usd : tiers; each ``mmr`` under 1

    Returns
    -------
    The price; NaN when none above zero does it; 0 for a short that is lost at every price.
    """
    quantity = abs(quantity_base)
    if quantity == 0.0:
        return math.nan
    balance_usd = wallet_balance_usd - other_maintenance_usd + other_pnl_usd
    is_carried = balance_usd > maintenance_usd(quantity * entry_price, floor_usd, mmr, amount_usd)
    equity_at_zero_usd = balance_usd - quantity_base * entry_price
    if quantity_base > 0.0:
        start = entry_price if is_carried else math.inf
        return _falling_zero(quantity, equity_at_zero_usd, start, floor_usd, mmr, amount_usd)
    start = entry_price if is_carried else 0.0
    return _rising_zero(quantity, equity_at_zero_usd, start, floor_usd, mmr, amount_usd)


@kernel
def liquidation_price_inverse(
    contracts,
    face_usd,
    entry_price,
    wallet_balance_coin,
    other_maintenance_coin,
    other_pnl_coin,
    floor_coin,
    mmr,
    amount_coin,
):
    """Mark price at which an inverse (coin-margined) position uses up its coin.

    Everything is in coin: the notional is ``contracts * face_usd / price`` and so are the tiers. In ``1 / price`` a
    long is a linear short and a short a linear long, so the walk through the tiers is the same one.

    Parameters
    ----------
    contracts : signed, negative for a short; ``face_usd`` is the value of one
    floor_coin, mmr, amount_coin : tiers by notional in coin; each ``mmr`` under 1

    Returns
    -------
    The price; NaN for never (a short whose coin covers it); infinite for a long that is lost at every price.
    """
    value_usd = abs(contracts) * face_usd
    if value_usd == 0.0:
        return math.nan
    balance_coin = wallet_balance_coin - other_maintenance_coin + other_pnl_coin
    entry_coin = value_usd / entry_price
    is_carried = balance_coin > maintenance_usd(entry_coin, floor_coin, mmr, amount_coin)
    if contracts > 0.0:
        start = 1.0 / entry_price if is_carried else 0.0
        coin_per_usd = _rising_zero(value_usd, balance_coin + entry_coin, start, floor_coin, mmr, amount_coin)
    else:
        start = 1.0 / entry_price if is_carried else math.inf
        coin_per_usd = _falling_zero(value_usd, balance_coin - entry_coin, start, floor_coin, mmr, amount_coin)
    return math.inf if coin_per_usd == 0.0 else 1.0 / coin_per_usd


@kernel
def _above_zero(price):
    return price if price > 0.0 else math.nan


@kernel
def bankruptcy_price_linear(quantity_base, entry_price, wallet_balance_usd):
    """Price at which a linear position has lost its whole wallet; NaN when none above zero does it."""
    return _above_zero(entry_price - wallet_balance_usd / quantity_base)


@kernel
def bankruptcy_price_inverse(contracts, face_usd, entry_price, wallet_balance_coin):
    """Price at which an inverse position has lost its whole coin; NaN when none does it."""
    coin_per_usd = 1.0 / entry_price + wallet_balance_coin / (contracts * face_usd)
    return 1.0 / coin_per_usd if coin_per_usd > 0.0 else math.nan


# ------------------------------------------------------------------------------------------------- venue variants


@kernel
def okx_liquidation_price(quantity_base, entry_price, margin_usd, mmr, taker_fee_frac):
    """OKX, isolated linear: equity must also pay the taker fee of the close, which adds to the maintenance rate."""
    side = 1.0 if quantity_base > 0.0 else -1.0
    return _above_zero((entry_price - margin_usd / quantity_base) / (1.0 - side * (mmr + taker_fee_frac)))


@kernel
def bybit_liquidation_price_linear(quantity_base, entry_price, initial_usd, maintenance_at_entry_usd, added_usd):
    """Bybit, isolated linear: maintenance is that of the value at entry; ``added_usd`` is margin added by hand."""
    return _above_zero(entry_price - (initial_usd - maintenance_at_entry_usd + added_usd) / quantity_base)


@kernel
def bybit_liquidation_price_inverse(contracts_usd, entry_price, initial_coin, maintenance_at_entry_coin):
    """Bybit, isolated inverse of signed USD contracts; NaN for a short whose coin covers it."""
    coin = contracts_usd / entry_price + initial_coin - maintenance_at_entry_coin
    return contracts_usd / coin if contracts_usd * coin > 0.0 else math.nan


@kernel
def hyperliquid_liquidation_price(quantity_base, price, account_value_usd, max_leverage):
    """Hyperliquid: from the price and account value now; maintenance is half the initial margin at most leverage."""
    side = 1.0 if quantity_base > 0.0 else -1.0
    mmr = 0.5 / max_leverage
    available_usd = account_value_usd - abs(quantity_base) * price * mmr
    return _above_zero(price - available_usd / quantity_base / (1.0 - side * mmr))


# ------------------------------------------------------------------------------------------------- one wallet


@kernel
def _tier_ahead(notional_from, notional_to, path_frac, floor_usd):
    """Tier that holds just after a point of a straight path, and the point at which that tier ends."""
    move = notional_to - notional_from
    if move == 0.0:
        return tier_of(notional_from, floor_usd), math.inf
    if move > 0.0:
        for tier in range(1, len(floor_usd)):
            end = (floor_usd[tier] - notional_from) / move
            if end > path_frac:
                return tier - 1, end
        return len(floor_usd) - 1, math.inf
    for tier in range(len(floor_usd) - 1, 0, -1):
        end = (floor_usd[tier] - notional_from) / move
        if end > path_frac:
            return tier, end
    return 0, math.inf


@kernel
def path_crossing(
    cash_usd, position_base, weight, is_margined, notional_usd, price_from, price_to, floor_usd, mmr, amount_usd
):
    """Where on a straight path of all prices a wallet's equity falls below its maintenance.

    Prices move together, ``P_i = price_from_i + lambda * (price_to_i - price_from_i)``. Equity less maintenance is a
    straight line between the points at which a leg changes tier, with a jump there if the tiers have no amounts, so the
    path is walked from one such point to the next; nothing is iterated in small steps.

    Parameters
    ----------
    cash_usd, position_base, weight, is_margined, notional_usd : the wallet, as described in ``margin.py``
    price_from, price_to : by leg
    floor_usd, mmr, amount_usd : tiers ``(n_legs, n_tiers)``, padded with infinite floors

    Returns
    -------
    0 if equity is below maintenance at the start; else the largest lambda up to which it is not; -1 if it never is,
    which is certain not to be returned when the wallet fails at ``price_to``. NaN if a price or amount is NaN.
    """
    at_start = wallet_surplus_usd(
        cash_usd, position_base, weight, is_margined, notional_usd, price_from, floor_usd, mmr, amount_usd
    )
    at_end = wallet_surplus_usd(
        cash_usd, position_base, weight, is_margined, notional_usd, price_to, floor_usd, mmr, amount_usd
    )
    if math.isnan(at_start) or math.isnan(at_end):
        return math.nan
    if at_start < 0.0:
        return 0.0
    path_frac = 0.0
    while path_frac < 1.0:
        surplus, slope, end = cash_usd, 0.0, 1.0
        for leg in range(len(position_base)):
            move = price_to[leg] - price_from[leg]
            price = price_from[leg] + path_frac * move
            if weight[leg] != 0.0:
                surplus += weight[leg] * position_base[leg] * price
                slope += weight[leg] * position_base[leg] * move
            if is_margined[leg]:
                begin = notional_at_usd(position_base[leg], price_from[leg], notional_usd[leg])
                stop = notional_at_usd(position_base[leg], price_to[leg], notional_usd[leg])
                tier, tier_end = _tier_ahead(begin, stop, path_frac, floor_usd[leg])
                at_price = notional_at_usd(position_base[leg], price, notional_usd[leg])
                surplus -= at_price * mmr[leg, tier] - amount_usd[leg, tier]
                if notional_usd[leg] < 0.0:
                    slope -= abs(position_base[leg]) * move * mmr[leg, tier]
                end = min(end, tier_end)
        if surplus < 0.0:
            return path_frac
        if slope < 0.0 and surplus < -slope * (end - path_frac):
            return min(end, path_frac - surplus / slope)
        path_frac = end
    return 1.0 if at_end < 0.0 else -1.0


@kernel
def liquidation_loss(equity_usd, notional_usd, fee_frac):
    """Fee of closing a wallet's margined legs, and the part of the loss that the venue has to absorb.

    ``equity_usd`` is the wallet's at the price it is closed at; below zero if a bar opens beyond the bankruptcy price.

    Returns
    -------
    ``(fee_usd, absorbed_usd)``: the wallet ends with ``equity_usd - fee_usd + absorbed_usd``, never below zero.
    """
    fee_usd = fee_frac * notional_usd
    return fee_usd, max(0.0, fee_usd - equity_usd)


# ------------------------------------------------------------------------------------------------- a book


@kernel
def stress_factors(
    cash_usd, position_base, weight, is_margined, notional_usd, price, floor_usd, mmr, amount_usd, largest_factor
):
    """Factor on all prices at once at which each wallet of a book dies, falling and rising.

    Parameters
    ----------
    cash_usd : by wallet; ``weight``, ``is_margined`` are ``(n_wallets, n_legs)``, the rest is shared by the wallets
    largest_factor : how far up to look; downwards prices go to zero

    Returns
    -------
    ``(n_wallets, 2)``: factor under 1, factor over 1; 1 for a wallet that is dead already, NaN for never.
    """
    factors = np.full((len(cash_usd), 2), np.nan)
    for direction, last_factor in enumerate((0.0, largest_factor)):
        price_to = price * last_factor
        for wallet in range(len(cash_usd)):
            path_frac = path_crossing(
                cash_usd[wallet], position_base, weight[wallet], is_margined[wallet], notional_usd, price, price_to,
                floor_usd, mmr, amount_usd,
            )  # fmt: skip
            if path_frac >= 0.0:
                factors[wallet, direction] = 1.0 + path_frac * (last_factor - 1.0)
    return factors
