"""Loans from a lending protocol (step 5): their health along a bar's prices, and what a liquidator takes.

``H = Σ collateral q P LT / Σ debt |q| P``; below 1 a share of the debt is repaid with collateral worth a bonus more.
"""

import math

import numpy as np

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.liquidation import path_crossing
from basis_bt.kernels.margin_call import close_at, close_rest, drop_order, record_closing
from basis_bt.kernels.orders import write_event
from basis_bt.kernels.structs import (
    HELD,
    HELD_DIRECTION,
    LIQUIDATE,
    LIQUIDATED,
    LIQUIDATION,
    MIN_HEALTH,
    N_LIQUIDATIONS,
)
from basis_bt.kernels.wallets import pay

CLOSE_HALF_ABOVE = 0.95  # health under which the whole debt may be repaid at once
CLOSE_ALL_UNDER_USD = 2_000.0  # and the size of collateral or debt under which it is


@kernel
def loan_value(loan, price, held_base, loan_of):
    """Collateral and debt of a loan in dollars."""
    collateral, debt = 0.0, 0.0
    for leg in range(len(price)):
        if loan_of[leg] == loan:
            value = held_base[leg] * price[leg]
            collateral += max(value, 0.0)
            debt += max(-value, 0.0)
    return collateral, debt


@kernel
def health(collateral_usd, debt_usd, threshold):
    """Health factor; infinite without a debt."""
    return collateral_usd * threshold / debt_usd if debt_usd > 0.0 else math.inf


@kernel
def repaid_share(collateral_usd, debt_usd, threshold):
    """Share of the debt that a liquidator may repay at once: half of a large loan that is not far under water."""
    is_large = collateral_usd >= CLOSE_ALL_UNDER_USD and debt_usd >= CLOSE_ALL_UNDER_USD
    return 0.5 if is_large and health(collateral_usd, debt_usd, threshold) > CLOSE_HALF_ABOVE else 1.0


@inner_kernel
def check_loans(bar, order, account, market, combo, contracts, log):
    """Test every loan along the highs and along the lows of a bar; liquidates those that fail."""
    n_legs = len(account.legs[HELD])
    start, is_called = market.margin_open[bar], False
    weight, none = np.zeros(n_legs), np.zeros(n_legs, dtype=np.bool_)
    fixed, table = np.zeros(n_legs), np.zeros((n_legs, 1))
    for loan in range(contracts.loan_of.max() + 1):
        for leg in range(n_legs):
            own = contracts.loan_of[leg] == loan
            weight[leg] = (contracts.loan_threshold if account.legs[HELD, leg] > 0.0 else 1.0) if own else 0.0
        collateral, debt = loan_value(loan, start, account.legs[HELD], contracts.loan_of)
        if collateral == 0.0 or debt == 0.0:
            continue
        for end in (start, market.margin_high[bar], market.margin_low[bar]):
            collateral, debt = loan_value(loan, end, account.legs[HELD], contracts.loan_of)
            ratio = health(collateral, debt, contracts.loan_threshold)
            account.sums[MIN_HEALTH] = min(account.sums[MIN_HEALTH], ratio)
        for end in (market.margin_high[bar], market.margin_low[bar]):
            path_frac = path_crossing(0.0, account.legs[HELD], weight, none, fixed, start, end, table, table, table)
            if path_frac >= 0.0:
                if not is_called:
                    is_called = True
                    drop_order(bar, order, account, log)
                price = start + path_frac * (end - start)
                liquidate_loan(bar, loan, price, order, account, market, combo, contracts, log)
                break
    if is_called:
        close_rest(bar, LIQUIDATED, order, account, market, combo, log)


@inner_kernel
def liquidate_loan(bar, loan, price, order, account, market, combo, contracts, log):
    """Repay a share of each debt with collateral worth a bonus more, taken in proportion."""
    collateral, debt = loan_value(loan, price, account.legs[HELD], contracts.loan_of)
    share = repaid_share(collateral, debt, contracts.loan_threshold)
    taken = min(share * debt * (1.0 + contracts.loan_bonus), collateral)
    first, quantity, charged = -1, 0.0, -1
    for leg in range(len(price)):
        held = account.legs[HELD, leg]
        if contracts.loan_of[leg] != loan or held == 0.0:
            continue
        part = min(taken / collateral, 1.0) if held > 0.0 else share
        change = close_at(bar, leg, part, price, order, account, market, combo.reference_leg)
        record_closing(bar, leg, change, price[leg], 0.0, LIQUIDATE, LIQUIDATED, account, log)
        if first < 0:
            first, quantity = leg, abs(change)
        if held > 0.0 and charged < 0:
            charged = leg
    loss = taken - share * debt
    if charged >= 0:
        pay(account, charged, -loss)  # the liquidator's: no cash of the wallet moves
        account.books[charged, LIQUIDATION] += loss
    account.counts[N_LIQUIDATIONS] += 1
    write_event(log, account, bar, LIQUIDATE, LIQUIDATED, account.counts[HELD_DIRECTION], quantity)
