"""What legs do beside moving with prices: inverse contracts, currencies, borrowed coins, income (step 2).

An inverse contract is a linear one whose price is that of the coin and whose price currency, the contract dollar, is
worth coin price over contract price. So all rules of linear legs hold, and what is left is to revalue the contract
dollars of the open position, its face, as that worth changes.
"""

import math

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.structs import (
    ACTION,
    BASIS,
    BORROW,
    CASH,
    FACE,
    FX,
    HEDGE_RATIO,
    HELD,
    HELD_DIRECTION,
    IS_SPLIT,
    LEG_CASH,
    NOTIONAL,
    OWNED,
    POSITION,
    RATE,
    ROLLBACK_PRICE,
    SHORT_SINCE,
    TRADED,
    TURNOVER,
    YIELD,
)
from basis_bt.kernels.wallets import first_leg, pay

HOURS_PER_YEAR = 8760.0
DUST_FRAC = 1e-9  # of a fill: less than that is left of a position by rounding


@inner_kernel
def follow(bar, leg, change_base, price, account):
    """Follow what a fill makes of a leg: what is owned, since when it is short, and the face of an inverse leg."""
    owned = account.legs[OWNED, leg]
    left = owned + change_base
    if left * owned <= 0.0 and abs(left) <= DUST_FRAC * abs(change_base):
        left = 0.0
    if account.is_inverse[leg]:
        if owned * left <= 0.0:
            account.legs[FACE, leg] = left * price / account.legs[RATE, leg]
        elif owned * change_base > 0.0:
            account.legs[FACE, leg] += change_base * price / account.legs[RATE, leg]
        else:
            account.legs[FACE, leg] -= account.legs[FACE, leg] * (abs(change_base) / abs(owned))
    if left >= 0.0:
        account.legs[SHORT_SINCE, leg] = -1.0
    elif owned >= 0.0:
        account.legs[SHORT_SINCE, leg] = bar
    account.legs[OWNED, leg] = left


@inner_kernel
def traded_frac(leg, change_base, price, account):
    """What a fill trades as a share of its quantity at a price: see ``fills.take``."""
    owned = account.legs[OWNED, leg]
    if not account.is_inverse[leg] or owned * change_base >= 0.0:
        return 1.0
    return abs(account.legs[FACE, leg]) * account.legs[RATE, leg] / (abs(owned) * price)


@inner_kernel
def count_turnover(leg, notional_usd, account):
    """Add a fill to the turnover of the trial and of its leg."""
    account.sums[TURNOVER] += notional_usd
    account.legs[TRADED, leg] += notional_usd


@kernel
def revalue_face(leg, rate_from, rate_to, legs, excess_base, books, sums, wallet_cash_usd, wallet_of):
    """What the face of an inverse leg gains as a contract dollar changes its worth: basis, or that of an excess.

    Takes bare arrays, since it is called twice for every bar held.
    """
    gained = -legs[FACE, leg] * (rate_to - rate_from)
    sums[CASH] += gained
    legs[LEG_CASH, leg] += gained
    wallet_cash_usd[wallet_of[leg]] += gained
    of_excess = gained * (excess_base[leg] / legs[OWNED, leg])
    books[leg, BASIS] += gained - of_excess
    books[leg, ROLLBACK_PRICE] -= of_excess


@inner_kernel
def refresh_margin(account, wallets):
    """Fixed notionals of inverse legs and weights of what is owed, after positions or rates have changed."""
    for leg in range(len(account.legs[HELD])):
        if account.is_inverse[leg]:
            account.legs[NOTIONAL, leg] = abs(account.legs[FACE, leg]) * account.legs[RATE, leg]
        for wallet in range(len(account.weight)):
            is_owed = account.legs[HELD, leg] < 0.0
            account.weight[wallet, leg] = wallets.short_weight[wallet, leg] if is_owed else wallets.weight[wallet, leg]


@inner_kernel
def accrue_fx(bar, account, wallets, contracts):
    """Revalue the cash of every wallet as its currency changes its worth in dollars."""
    if wallets.is_split and not account.counts[IS_SPLIT]:
        return
    for wallet in range(len(account.wallet_cash_usd)):
        change = contracts.wallet_rate[bar, wallet] / contracts.wallet_rate[bar - 1, wallet] - 1.0
        cash = account.wallet_cash_usd[wallet]
        for leg in range(len(account.legs[FACE])):
            if account.is_inverse[leg] and account.wallet_of[leg] == wallet:
                cash += account.legs[FACE, leg] * contracts.rate_close[bar - 1, leg]
        gained = cash * change
        leg = first_leg(wallet, account.wallet_of)
        pay(account, leg, gained)
        account.books[leg, FX] += gained


@kernel
def charged_hours(hours, period_hours, opening_periods):
    """Hours of interest a loan of this age has been charged: whole periods from their beginning, and an opening."""
    if hours <= 0.0:
        return 0.0
    return period_hours * (opening_periods + max(math.ceil(hours / period_hours - 1e-9), 1.0))


@inner_kernel
def accrue_borrow(bar, account, market, contracts):
    """Charge the interest of bar t - 1 on spot that is short."""
    hours = contracts.bar_hours
    for leg in range(len(account.legs[HELD])):
        held = account.legs[HELD, leg]
        if not contracts.borrow_period_hours[leg] > 0.0 or held >= 0.0:
            continue
        age = bar - account.legs[SHORT_SINCE, leg]
        period, opening = contracts.borrow_period_hours[leg], contracts.borrow_opening_periods[leg]
        charged = charged_hours(age * hours, period, opening) - charged_hours((age - 1) * hours, period, opening)
        interest = -held * market.close_price[bar - 1, leg] * contracts.borrow_apr[bar, leg] * charged / HOURS_PER_YEAR
        pay(account, leg, -interest)
        account.books[leg, BORROW] += interest


@kernel
def accrue_cash(
    bar, is_apart, cash_yield_frac, legs, books, sums, wallet_cash_usd, wallet_of, is_margined, close_price
):
    """Interest on idle cash: what a wallet would have if its margined legs were closed at the last closes.

    ``is_apart``: cash is in no wallet yet. Takes bare arrays, since it is called for every bar.
    """
    for wallet in range(1 if is_apart else len(wallet_cash_usd)):
        idle = sums[CASH] if is_apart else wallet_cash_usd[wallet]
        if not is_apart:
            for leg in range(len(wallet_of)):
                if is_margined[wallet, leg]:
                    idle += legs[HELD, leg] * close_price[bar - 1, leg]
        earned = max(idle, 0.0) * cash_yield_frac
        leg = 0 if is_apart else first_leg(wallet, wallet_of)
        sums[CASH] += earned
        legs[LEG_CASH, leg] += earned
        books[leg, YIELD] += earned
        if not is_apart:
            wallet_cash_usd[wallet] += earned


@inner_kernel
def accrue_growth(bar, order, account, market, contracts):
    """Let positions with an index grow in kind, and the ratio they are hedged by; in cash while an order is out."""
    for leg in range(len(account.legs[HELD])):
        growth, held = contracts.growth[bar, leg], account.legs[HELD, leg]
        if growth == 0.0 or held == 0.0:
            continue
        value = held * growth * market.close_price[bar - 1, leg]
        if held > 0.0:
            account.books[leg, YIELD] += value
        else:
            account.books[leg, BORROW] -= value
        if order.state[ACTION] >= 0:
            pay(account, leg, value)
            continue
        account.legs[POSITION, leg] *= 1.0 + growth
        account.legs[HELD, leg] *= 1.0 + growth
        account.legs[OWNED, leg] *= 1.0 + growth
        if account.counts[HELD_DIRECTION] != 0:
            account.legs[HEDGE_RATIO, leg] *= 1.0 + growth
