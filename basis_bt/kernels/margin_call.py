"""Intrabar risk (step 5): the margin of each wallet at a bar's worst prices, and what happens when it does not hold."""

import math

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.books import book_price_move
from basis_bt.kernels.costs import fee_usd
from basis_bt.kernels.liquidation import path_crossing
from basis_bt.kernels.margin import maintenance_of_leg_usd
from basis_bt.kernels.orders import end_trade, send, trade_of, write_event
from basis_bt.kernels.structs import (
    ACTION,
    CLOSE_FROM,
    ENTRY,
    EXIT,
    FORCED,
    HELD_DIRECTION,
    KEPT,
    LIQUIDATE,
    LIQUIDATED,
    LIQUIDATION,
    N_FILLS,
    N_LIQUIDATIONS,
    N_TRADES,
    QUEUED,
    ROLLBACK_PRICE,
    TURNOVER,
)
from basis_bt.kernels.wallets import pay, worth_usd


@kernel
def margin_state(
    bar, cash_usd, held_base, margin_open, margin_high, margin_low, weight, is_margined, floor_usd, mmr, amount_usd
):
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
                size, worst = abs(held), 0.0
                open_usd, high_usd, low_usd = open_usd + size * start, high_usd + size * high, low_usd + size * low
                for price in (start, high, low):
                    worst = max(worst, maintenance_of_leg_usd(size * price, leg, floor_usd, mmr, amount_usd))
                most += worst
        if open_usd > 0.0:
            least_ratio = min(least_ratio, at_open / open_usd, at_high / high_usd, at_low / low_usd)
            is_safe = is_safe and min(at_open, at_high, at_low) >= most
    return least_ratio, is_safe


@kernel
def check_margins(bar, order, account, market, combo, wallets, out):
    """Test every wallet along the highs and along the lows of a bar; liquidates those that fail."""
    start, is_called = market.margin_open[bar], False
    for wallet in range(len(account.wallet_cash_usd)):
        if not has_margined(wallet, account.held_base, wallets.is_margined):
            continue
        for end in (market.margin_high[bar], market.margin_low[bar]):
            path_frac = path_crossing(
                account.wallet_cash_usd[wallet],
                account.held_base,
                wallets.weight[wallet],
                wallets.is_margined[wallet],
                start,
                end,
                wallets.floor_usd,
                wallets.mmr,
                wallets.amount_usd,
            )
            if path_frac >= 0.0:
                if not is_called:
                    is_called = True
                    drop_order(order, account, out)
                price = start + path_frac * (end - start)
                liquidate(bar, wallet, price, order, account, market, combo, wallets, out)
                break
    if is_called:
        close_rest(bar, order, account, market, combo, out)


@kernel
def has_margined(wallet, held_base, is_margined):
    """Whether a wallet holds a margined position."""
    for leg in range(len(held_base)):
        if is_margined[wallet, leg] and held_base[leg] != 0.0:
            return True
    return False


@kernel
def liquidate(bar, wallet, price, order, account, market, combo, wallets, out):
    """Close a wallet's margined legs at their prices on the path."""
    reference, arrival = combo.reference_leg, order.arrival_price
    before = market.close_price[max(bar - 1, 0)]
    first, quantity = -1, 0.0
    for leg in range(len(price)):
        held = account.held_base[leg]
        if not wallets.is_margined[wallet, leg] or held == 0.0:
            continue
        if bar > 0:
            moved = account.before_base[leg]
            book_price_move(account.books, leg, moved, before[leg], price[leg], before[reference], price[reference])
        moved = account.change_base[leg]
        if moved != 0.0:
            book_price_move(account.books, leg, moved, arrival[leg], price[leg], arrival[reference], price[reference])
        account.books[leg, ROLLBACK_PRICE] -= order.excess_base[leg] * (price[leg] - order.excess_price[leg])
        account.before_base[leg], account.change_base[leg], order.excess_base[leg] = 0.0, 0.0, 0.0
        fee = fee_usd(abs(held), price[leg], wallets.liquidation_fee_bps[leg])
        record_liquidation(bar, leg, held, price[leg], fee, account, out)
        if first < 0:
            first, quantity = leg, abs(held)
        account.position_base[leg], account.held_base[leg] = 0.0, 0.0
    absorb(wallet, first, price, account)
    account.counts[N_LIQUIDATIONS] += 1
    write_event(out, account, bar, LIQUIDATE, LIQUIDATED, account.counts[HELD_DIRECTION], quantity)


@kernel
def record_liquidation(bar, leg, held, price, fee, account, out):
    """Book the closing of one leg, its fee as a cost of the liquidation, and its row among the fills."""
    n_fills = account.counts[N_FILLS]
    values, row = out.fill_values[n_fills], out.fill_index[n_fills]
    pay(account, leg, held * price)
    pay(account, leg, -fee)
    account.books[leg, LIQUIDATION] += fee
    account.sums[TURNOVER] += abs(held) * price
    values[:] = 0.0
    values[0], values[1], values[2], values[3], values[4], values[9] = abs(held), -held, price, price, price, fee
    row[0], row[1], row[2], row[3] = bar, leg, trade_of(account), LIQUIDATE
    row[4], row[5], row[6] = LIQUIDATED, bar, -1 if held > 0.0 else 1
    account.counts[N_FILLS] = n_fills + 1


@kernel
def absorb(wallet, leg, price, account):
    """The venue takes what a wallet would owe beyond all it holds; ``leg`` is the leg that is credited."""
    worth = worth_usd(wallet, account, price)
    if worth < 0.0:
        pay(account, leg, -worth)
        account.books[leg, LIQUIDATION] += worth


@kernel
def drop_order(order, account, out):
    """Take the order in flight and all queued transfers away; what was filled of it stays a position."""
    state = order.state
    if state[ACTION] == ENTRY and not state[KEPT]:
        for leg in range(len(order.filled_base)):
            if order.filled_base[leg] != 0.0:
                out.fill_index[order.row[leg], 2] = 0
    state[ACTION], state[CLOSE_FROM] = -1, -1
    account.queue_usd[:] = 0.0
    account.sums[QUEUED] = 0.0


@kernel
def is_flat(held_base):
    """Whether nothing is held."""
    for leg in range(len(held_base)):
        if held_base[leg] != 0.0:
            return False
    return True


@kernel
def close_rest(bar, order, account, market, combo, out):
    """Send what is left of the combo to be closed at the next opens, or end the trade if nothing is."""
    counts, reference, books = account.counts, combo.reference_leg, account.books
    close, arrival = market.close_price[bar], order.arrival_price
    for leg in range(len(close)):
        moved = account.change_base[leg]
        if moved != 0.0:  # what this bar filled is marked from its own arrival, which is about to change
            book_price_move(books, leg, moved, arrival[leg], close[leg], arrival[reference], close[reference])
            account.change_base[leg] = 0.0
        excess = order.excess_base[leg]
        if excess != 0.0:
            books[leg, ROLLBACK_PRICE] -= excess * (close[leg] - order.excess_price[leg])
            order.excess_base[leg] = 0.0
        account.position_base[leg] = account.held_base[leg]
    if is_flat(account.held_base):
        if counts[HELD_DIRECTION] != 0:
            end_trade(bar, LIQUIDATED, account, out)
        return
    for leg in range(len(close)):
        arrival[leg] = close[leg]
        order.want_base[leg] = -account.position_base[leg]
    quantity = out.trade_values[counts[N_TRADES] - 1, 0] if counts[HELD_DIRECTION] != 0 else 0.0
    send(order, account, bar, bar + 1, EXIT, LIQUIDATED, counts[HELD_DIRECTION], quantity, out)
    order.state[FORCED] = 1
