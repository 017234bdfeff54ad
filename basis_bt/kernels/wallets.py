"""Cash of several wallets: its split at an entry, what moves between them, when it arrives.

Total cash is unchanged by a movement but for its fee; what is under way belongs to no wallet.
"""

import numpy as np

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.structs import (
    CASH,
    HELD,
    IN_FLIGHT,
    IS_SPLIT,
    LAST_ARRIVAL,
    LEG_CASH,
    QUEUED,
    SENDING_DAY,
    SENT_TODAY,
    TRANSFER,
)


@inner_kernel
def pay(account, leg, amount_usd):
    """Cash that a leg receives (or pays, below zero) in its wallet."""
    account.sums[CASH] += amount_usd
    account.legs[LEG_CASH, leg] += amount_usd
    account.wallet_cash_usd[account.wallet_of[leg]] += amount_usd


@kernel
def wallet_target_usd(wallet, equity_usd, ratio, price, margin_weight, wallet_of):
    """The share of equity that a wallet should have: that of the capital its legs tie up."""
    own, total = 0.0, 0.0
    for leg in range(len(ratio)):
        capital = abs(ratio[leg]) * price[leg] * margin_weight[leg]
        total += capital
        if wallet_of[leg] == wallet:
            own += capital
    return equity_usd * own / total


@inner_kernel
def worth_usd(wallet, account, price):
    """What a wallet is worth: its cash and all its legs."""
    worth = account.wallet_cash_usd[wallet]
    for leg in range(len(price)):
        if account.wallet_of[leg] == wallet:
            worth += account.legs[HELD, leg] * price[leg]
    return worth


@inner_kernel
def split(account, combo, price, equity_usd):
    """Set the cash of every wallet to its target: at the first entry, free and at once."""
    for wallet in range(len(account.wallet_cash_usd)):
        account.wallet_cash_usd[wallet] = wallet_target_usd(
            wallet, equity_usd, combo.ratio, price, combo.margin_weight, account.wallet_of
        )
    account.counts[IS_SPLIT] = 1


@inner_kernel
def plan_transfers(account, combo, wallets, price, equity_usd):
    """Queue what wallets above their target owe to those below, in wallet order."""
    n_wallets = len(account.wallet_cash_usd)
    left = np.zeros(n_wallets)
    for wallet in range(n_wallets):
        left[wallet] = worth_usd(wallet, account, price) - wallet_target_usd(
            wallet, equity_usd, combo.ratio, price, combo.margin_weight, account.wallet_of
        )
    giver, taker = 0, 0
    while giver < n_wallets and taker < n_wallets:
        if left[giver] <= 0.0:
            giver += 1
        elif left[taker] >= 0.0:
            taker += 1
        else:
            amount = min(left[giver], -left[taker])
            left[giver] -= amount
            left[taker] += amount
            if amount >= wallets.transfer_min_usd and amount > wallets.transfer_fee_usd:
                account.queue_usd[giver, taker] += amount
                account.sums[QUEUED] += amount


@inner_kernel
def send_queued(bar, account, wallets):
    """Send what is queued, as far as halts and the daily cap let it; a rest that is not above the fee is dropped."""
    if wallets.is_halted[bar]:
        return
    sums, counts, fee = account.sums, account.counts, wallets.transfer_fee_usd
    if counts[SENDING_DAY] != wallets.day[bar]:
        counts[SENDING_DAY], sums[SENT_TODAY] = wallets.day[bar], 0.0
    n_wallets = len(account.wallet_cash_usd)
    for giver in range(n_wallets):
        for taker in range(n_wallets):
            queued = account.queue_usd[giver, taker]
            amount = min(queued, wallets.transfer_daily_cap_usd - sums[SENT_TODAY])
            if queued == 0.0 or amount <= fee:
                continue
            account.queue_usd[giver, taker] = queued - amount if queued - amount > fee else 0.0
            sums[SENT_TODAY] += amount
            account.wallet_cash_usd[giver] -= amount
            leg = first_leg(taker, account.wallet_of)
            sums[CASH] -= fee
            account.legs[LEG_CASH, leg] -= fee
            account.books[leg, TRANSFER] += fee
            arrival = bar + wallets.transfer_bars
            if arrival == bar:
                account.wallet_cash_usd[taker] += amount - fee
                continue
            sums[IN_FLIGHT] += amount - fee
            counts[LAST_ARRIVAL] = arrival
            if arrival < len(account.arriving_usd):
                account.arriving_usd[arrival, taker] += amount - fee
    sums[QUEUED] = account.queue_usd.sum()


@inner_kernel
def receive(bar, account):
    """Credit what arrives in a bar."""
    for wallet in range(len(account.wallet_cash_usd)):
        amount = account.arriving_usd[bar, wallet]
        account.wallet_cash_usd[wallet] += amount
        account.sums[IN_FLIGHT] -= amount
    if bar >= account.counts[LAST_ARRIVAL]:
        account.sums[IN_FLIGHT] = 0.0


@inner_kernel
def is_settled(bar, account):
    """Whether nothing is left to be sent or under way."""
    return account.sums[QUEUED] == 0.0 and bar >= account.counts[LAST_ARRIVAL]


@kernel
def first_leg(wallet, wallet_of):
    """The first leg of a wallet."""
    for leg in range(len(wallet_of)):
        if wallet_of[leg] == wallet:
            return leg
    return 0
