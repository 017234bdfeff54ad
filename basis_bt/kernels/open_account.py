"""The account and the order that a trial begins with."""

import math

import numpy as np

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.structs import (
    ACCOUNT_LEGS,
    ACTION,
    CASH,
    CLOSE_FROM,
    COUNTS,
    DROPPED_BAR,
    ENTRY_BAR,
    EXIT_BAR,
    HEDGE_RATIO,
    LAST_ARRIVAL,
    MIN_HEALTH,
    MIN_MARGIN_RATIO,
    N_BOOKS,
    NOTIONAL,
    ORDER_LEGS,
    ORDER_MARKS,
    ORDER_STATE,
    RATE,
    SENDING_DAY,
    SHORT_SINCE,
    SUMS,
    Account,
    Order,
)


@inner_kernel
def new_account(n_bars, n_legs, size, ratio, wallets, contracts):
    """All capital in cash: in the one wallet, or in none until the first entry splits it."""
    n_wallets, n_arrivals = len(wallets.weight), 1
    if wallets.is_split:
        n_arrivals = n_bars
    account = Account(
        np.zeros((len(ACCOUNT_LEGS), n_legs)),
        np.zeros((n_legs, N_BOOKS)),
        np.zeros(len(COUNTS), dtype=np.int64),
        np.zeros(len(SUMS)),
        contracts.is_inverse,
        wallets.wallet_of,
        np.zeros(n_wallets),
        wallets.weight.copy(),
        np.zeros((n_wallets, n_wallets)),
        np.zeros((n_arrivals, n_wallets)),
    )
    for leg in range(n_legs):
        account.legs[RATE, leg], account.legs[SHORT_SINCE, leg] = 1.0, -1.0
        account.legs[NOTIONAL, leg] = 0.0 if contracts.is_inverse[leg] else -1.0
        account.legs[HEDGE_RATIO, leg] = ratio[leg]
    for count in (ENTRY_BAR, EXIT_BAR, SENDING_DAY, LAST_ARRIVAL, DROPPED_BAR):
        account.counts[count] = -1
    account.sums[CASH], account.sums[MIN_MARGIN_RATIO] = size.capital_usd, math.inf
    account.sums[MIN_HEALTH] = math.inf
    if not wallets.is_split:
        account.wallet_cash_usd[0] = size.capital_usd
    return account


@kernel
def new_order(n_legs):
    """No order."""
    order = Order(
        np.zeros((len(ORDER_LEGS), n_legs)),
        np.zeros((len(ORDER_MARKS), n_legs), dtype=np.int64),
        np.zeros(len(ORDER_STATE), dtype=np.int64),
    )
    order.state[ACTION] = -1
    order.state[CLOSE_FROM] = -1
    return order
