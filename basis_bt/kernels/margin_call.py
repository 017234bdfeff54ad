"""Intrabar risk (step 5): the margin of each wallet at a bar's worst prices, and what happens when it does not hold."""

import math

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.books import book_price_move
from basis_bt.kernels.contracts import count_turnover, follow, traded_frac
from basis_bt.kernels.costs import fee_usd
from basis_bt.kernels.liquidation import path_crossing
from basis_bt.kernels.margin import maintenance_of_leg_usd, notional_at_usd
from basis_bt.kernels.orders import end_trade, send, trade_of, write_event
from basis_bt.kernels.structs import (
    ACTION,
    ARRIVAL,
    BEFORE,
    CHANGE,
    CLOSE_FROM,
    DROPPED_BAR,
    ENTRY,
    EXCESS,
    EXCESS_PRICE,
    EXIT,
    FILL_ROW,
    FILLED,
    FORCED,
    FROM_PRICE,
    HELD,
    HELD_DIRECTION,
    KEPT,
    LIQUIDATE,
    LIQUIDATED,
    LIQUIDATION,
    N_FILLS,
    N_LIQUIDATIONS,
    N_TRADES,
    NOTIONAL,
    POSITION,
    QUEUED,
    ROLLBACK_PRICE,
    WANT,
)
from basis_bt.kernels.wallets import pay


@kernel
def margin_state(
    bar, cash_usd, held_base, margin_open, margin_high, margin_low, weight, is_margined, notional_usd, floor_usd, mmr,
    amount_usd,
):  # fmt: skip
    """Least margin ratio of all wallets at a bar's open, highs and lows, and whether none can fail in between.

    Equity is straight along a path and the maintenance of a leg is largest at one of its ends, so a wallet whose least
    equity is not under its largest maintenance is safe. Takes bare arrays, since it is called for every bar held.
    """
    least_ratio, is_safe = math.inf, True
    for wallet in range(len(cash_usd)):
        at_open = at_high = at_low = cash_usd[wallet]
        open_usd, high_usd, low_usd, most = 0.0, 0.0, 0.0, 0.0
        for leg in range(len(held_base)):
            held = held_base[leg]
            if held == 0.0 or weight[wallet, leg] == 0.0:
                continue
            start, high, low = margin_open[bar, leg], margin_high[bar, leg], margin_low[bar, leg]
            weighted = weight[wallet, leg] * held
            at_open, at_high, at_low = at_open + weighted * start, at_high + weighted * high, at_low + weighted * low
            if is_margined[wallet, leg]:
                fixed, worst = notional_usd[leg], 0.0
                open_usd += notional_at_usd(held, start, fixed)
                high_usd += notional_at_usd(held, high, fixed)
                low_usd += notional_at_usd(held, low, fixed)
                for price in (start, high, low):
                    at_price = notional_at_usd(held, price, fixed)
                    worst = max(worst, maintenance_of_leg_usd(at_price, leg, floor_usd, mmr, amount_usd))
                most += worst
        if open_usd > 0.0:
            least_ratio = min(least_ratio, at_open / open_usd, at_high / high_usd, at_low / low_usd)
            is_safe = is_safe and min(at_open, at_high, at_low) >= most
    return least_ratio, is_safe


@inner_kernel
def check_margins(bar, order, account, market, combo, wallets, log):
    """Test every wallet along the highs and along the lows of a bar; liquidates those that fail."""
    start, is_called, row = market.margin_open[bar], False, wallets.margin_row[bar]
    for wallet in range(len(account.wallet_cash_usd)):
        if not has_margined(wallet, account.legs[HELD], wallets.is_margined):
            continue
        for end in (market.margin_high[bar], market.margin_low[bar]):
            path_frac = path_crossing(
                account.wallet_cash_usd[wallet],
                account.legs[HELD],
                account.weight[wallet],
                wallets.is_margined[wallet],
                account.legs[NOTIONAL],
                start,
                end,
                wallets.floor_usd[row],
                wallets.mmr[row],
                wallets.amount_usd[row],
            )
            if path_frac >= 0.0:
                if not is_called:
                    is_called = True
                    drop_order(bar, order, account, log)
                price = start + path_frac * (end - start)
                liquidate(bar, wallet, price, order, account, market, combo, wallets, log)
                break
    if is_called:
        close_rest(bar, LIQUIDATED, order, account, market, combo, log)


@kernel
def has_margined(wallet, held_base, is_margined):
    """Whether a wallet holds a margined position."""
    for leg in range(len(held_base)):
        if is_margined[wallet, leg] and held_base[leg] != 0.0:
            return True
    return False


@inner_kernel
def liquidate(bar, wallet, price, order, account, market, combo, wallets, log):
    """Close a wallet's margined legs at their prices on the path."""
    first, quantity = -1, 0.0
    fee_bps = wallets.liquidation_fee_bps[wallets.margin_row[bar]]
    for leg in range(len(price)):
        held = account.legs[HELD, leg]
        if not wallets.is_margined[wallet, leg] or held == 0.0:
            continue
        fee = fee_usd(abs(held) * traded_frac(leg, -held, price[leg], account), price[leg], fee_bps[leg])
        close_at(bar, leg, 1.0, price, order, account, market, combo.reference_leg)
        account.books[leg, LIQUIDATION] += fee
        record_closing(bar, leg, -held, price[leg], fee, LIQUIDATE, LIQUIDATED, account, log)
        if first < 0:
            first, quantity = leg, abs(held)
    absorb(wallet, first, price, account, wallets)
    account.counts[N_LIQUIDATIONS] += 1
    write_event(log, account, bar, LIQUIDATE, LIQUIDATED, account.counts[HELD_DIRECTION], quantity)


@inner_kernel
def close_at(bar, leg, share, price, order, account, market, reference):
    """Take a share of what is held of a leg away within a bar, its price PnL booked to a price of the bar.

    Returns the change of the position.
    """
    before, start, held = market.close_price[max(bar - 1, 0)], account.legs[FROM_PRICE], account.legs[HELD, leg]
    if bar > 0:
        moved = share * account.legs[BEFORE, leg]
        book_price_move(account.books, leg, moved, before[leg], price[leg], before[reference], price[reference])
    moved = share * account.legs[CHANGE, leg]
    if moved != 0.0:
        book_price_move(account.books, leg, moved, start[leg], price[leg], start[reference], price[reference])
    excess = share * order.legs[EXCESS, leg]
    account.books[leg, ROLLBACK_PRICE] -= excess * (price[leg] - order.legs[EXCESS_PRICE, leg])
    if share == 1.0:
        account.legs[BEFORE, leg], account.legs[CHANGE, leg], order.legs[EXCESS, leg] = 0.0, 0.0, 0.0
        account.legs[POSITION, leg], account.legs[HELD, leg] = 0.0, 0.0
        return -held
    account.legs[BEFORE, leg] -= share * account.legs[BEFORE, leg]
    account.legs[CHANGE, leg] -= moved
    order.legs[EXCESS, leg] -= excess
    account.legs[HELD, leg] = held - share * held
    account.legs[POSITION, leg] = account.legs[HELD, leg] - order.legs[EXCESS, leg]
    return -share * held


@inner_kernel
def record_closing(bar, leg, change_base, price, fee, action, reason, account, log):
    """The cash, face and row of a fill that no order asked for: a liquidation, a delivery, a deleveraging."""
    n_fills = account.counts[N_FILLS]
    values, row = log.fill_values[n_fills], log.fill_index[n_fills]
    size = abs(change_base)
    traded = size * traded_frac(leg, change_base, price, account)
    pay(account, leg, -change_base * price)
    pay(account, leg, -fee)
    follow(bar, leg, change_base, price, account)
    count_turnover(leg, traded * price, account)
    for column in range(len(values)):
        values[column] = 0.0
    values[0], values[1], values[2], values[3], values[4], values[9] = size, change_base, price, price, price, fee
    row[0], row[1], row[2], row[3] = bar, leg, trade_of(account), action
    row[4], row[5], row[6] = reason, bar, 1 if change_base > 0.0 else -1
    account.counts[N_FILLS] = n_fills + 1


@inner_kernel
def absorb(wallet, leg, price, account, wallets):
    """The venue takes what a wallet would owe beyond all it holds there; ``leg`` is the leg that is credited."""
    worth = account.wallet_cash_usd[wallet]
    for other in range(len(price)):
        if wallets.short_weight[wallet, other] > 0.0:
            worth += account.legs[HELD, other] * price[other]
    if worth < 0.0:
        pay(account, leg, -worth)
        account.books[leg, LIQUIDATION] += worth


@inner_kernel
def drop_order(bar, order, account, log):
    """Take the order in flight and all queued transfers away; what was filled of it stays a position."""
    account.counts[DROPPED_BAR] = bar
    state = order.state
    if state[ACTION] == ENTRY and not state[KEPT]:
        for leg in range(len(order.legs[FILLED])):
            if order.legs[FILLED, leg] != 0.0:
                log.fill_index[order.marks[FILL_ROW, leg], 2] = 0
    state[ACTION], state[CLOSE_FROM] = -1, -1
    for giver in range(len(account.queue_usd)):
        for taker in range(len(account.queue_usd)):
            account.queue_usd[giver, taker] = 0.0
    account.sums[QUEUED] = 0.0


@kernel
def is_flat(held_base):
    """Whether nothing is held."""
    for leg in range(len(held_base)):
        if held_base[leg] != 0.0:
            return False
    return True


@inner_kernel
def close_rest(bar, reason, order, account, market, combo, log):
    """Send what is left of the combo to be closed at the next opens, or end the trade if nothing is."""
    counts = account.counts
    settle_parts(account)
    if is_flat(account.legs[HELD]):
        if counts[HELD_DIRECTION] != 0:
            end_trade(bar, reason, account, log)
        return
    for leg in range(len(order.legs[WANT])):
        order.legs[ARRIVAL, leg] = market.close_price[bar, leg]
        order.legs[WANT, leg] = -account.legs[POSITION, leg]
    quantity = log.trade_values[counts[N_TRADES] - 1, 0] if counts[HELD_DIRECTION] != 0 else 0.0
    send(order, account, bar, bar + 1, EXIT, reason, counts[HELD_DIRECTION], quantity, log)
    order.state[FORCED] = 1


@inner_kernel
def settle_parts(account):
    """Make what a dropped order filled and left over an ordinary position."""
    for leg in range(len(account.legs[HELD])):
        account.legs[POSITION, leg] = account.legs[HELD, leg]
