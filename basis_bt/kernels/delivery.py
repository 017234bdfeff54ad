"""Dated futures: delivery at expiry (step 1) and the roll into the next contract (step 4)."""

from basis_bt.kernels._jit import inner_kernel
from basis_bt.kernels.books import book_price_move
from basis_bt.kernels.contracts import revalue_face, traded_frac
from basis_bt.kernels.costs import fee_usd
from basis_bt.kernels.fills import book_costs, take
from basis_bt.kernels.margin_call import drop_order, is_flat, record_closing, settle_parts
from basis_bt.kernels.orders import append_fill, end_trade, send, trade_of, write_event
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    ACTION,
    ARRIVAL,
    ATTEMPT_BASIS,
    BASIS,
    CLOSE_FROM,
    DECISION_BAR,
    DELIVER,
    DELIVERY_FEE,
    EXCESS,
    EXCESS_PRICE,
    EXIT,
    EXPIRY,
    FILLED,
    HELD,
    HELD_DIRECTION,
    N_FILLS,
    N_ROLLS,
    N_TRADES,
    POSITION,
    RATE,
    ROLL,
    ROLLBACK_PRICE,
    ROLLED,
    START_BAR,
    WANT,
)


@inner_kernel
def deliver(bar, order, account, market, combo, fills, contracts, log):
    """Settle the legs that expire in this bar in cash, and send what is left of the combo to be closed."""
    counts, reference = account.counts, combo.reference_leg
    before, price = market.close_price[max(bar - 1, 0)], market.open_price[bar]
    drop_order(bar, order, account, log)
    settle_parts(account)
    for leg in range(len(price)):
        held = account.legs[HELD, leg]
        if contracts.delivery_bar[leg] != bar or held == 0.0:
            continue
        at = contracts.delivery_price[leg]
        if account.is_inverse[leg]:
            earlier, excess = contracts.rate_close[bar - 1, leg], order.legs[EXCESS]
            cash, wallet_of, sums = account.wallet_cash_usd, account.wallet_of, account.sums
            rate = contracts.delivery_rate[leg]
            revalue_face(leg, earlier, rate, account.legs, excess, account.books, sums, cash, wallet_of)
            account.legs[RATE, leg] = rate
        left_over = order.legs[EXCESS, leg]
        book_price_move(account.books, leg, held - left_over, before[leg], at, before[reference], price[reference])
        account.books[leg, ROLLBACK_PRICE] -= left_over * (at - order.legs[EXCESS_PRICE, leg])
        order.legs[EXCESS, leg] = 0.0
        fee = fee_usd(abs(held) * traded_frac(leg, -held, at, account), at, contracts.delivery_fee_bps[leg])
        account.books[leg, DELIVERY_FEE] += fee
        account.legs[POSITION, leg], account.legs[HELD, leg] = 0.0, 0.0
        record_closing(bar, leg, -held, at, fee, DELIVER, EXPIRY, account, log)
        write_event(log, account, bar, DELIVER, EXPIRY, counts[HELD_DIRECTION], abs(held))
    if is_flat(account.legs[HELD]):
        if counts[HELD_DIRECTION] != 0:
            end_trade(bar, EXPIRY, account, log)
        return
    for leg in range(len(price)):
        order.legs[ARRIVAL, leg] = price[leg]
        order.legs[WANT, leg] = -account.legs[POSITION, leg]
    quantity = log.trade_values[counts[N_TRADES] - 1, 0] if counts[HELD_DIRECTION] != 0 else 0.0
    send(order, account, bar, bar + fills.latency_bars.min(), EXIT, EXPIRY, counts[HELD_DIRECTION], quantity, log)


@inner_kernel
def roll(bar, leg, order, account, market, costs, contracts, log):
    """Close what is held of the old contract and open the same of the new one: two fills; returns a status."""
    old, new, held = contracts.old_open[bar, leg], market.open_price[bar, leg], account.legs[HELD, leg]
    state = order.state
    if state[ACTION] >= 0 and state[DECISION_BAR] < bar:
        order.legs[ARRIVAL, leg] += new - old
        is_open_attempt = state[START_BAR] >= 0 and state[CLOSE_FROM] < 0
        if is_open_attempt and order.legs[FILLED, leg] != 0.0:
            order.legs[ATTEMPT_BASIS, leg] -= order.legs[FILLED, leg] * (new - old)
    if held == 0.0:
        return OK
    excess = order.legs[EXCESS, leg]
    account.books[leg, BASIS] -= (held - excess) * (new - old)
    order.legs[EXCESS_PRICE, leg] += new - old
    if account.is_inverse[leg]:
        account.legs[RATE, leg] = contracts.rate_before[bar, leg]  # the old contract's dollars are closed at their own
    for change, price in ((-held, old), (held, new)):
        share = traded_frac(leg, change, price, account)
        values = log.fill_values[account.counts[N_FILLS]]
        status = take(bar, leg, change, price, price, 0.0, share, market, costs, values)
        if status != OK:
            return status
        append_fill(bar, leg, trade_of(account), ROLL, ROLLED, bar, share, account, costs, log)
        book_costs(account.books, leg, values)
        if account.is_inverse[leg]:
            account.legs[RATE, leg] = contracts.rate_open[bar, leg]
    account.counts[N_ROLLS] += 1
    write_event(log, account, bar, ROLL, ROLLED, account.counts[HELD_DIRECTION], abs(held))
    return OK
