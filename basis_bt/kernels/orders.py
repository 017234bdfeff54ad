"""An order from its decision until it is done: attempts, what stays of a part, closing what does not.

An attempt begins when every leg can be traded, fills each leg in its own bar, and resolves in the bar of the last one.
What does not stay is the excess; it is closed, and its whole loss is a cost of the rollback.
"""

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.contracts import count_turnover, follow, traded_frac
from basis_bt.kernels.fills import (
    book_costs,
    fill_fraction,
    gross_base,
    is_rejected,
    is_traded_through,
    limit_price,
    move_to_rollback,
    rest,
    take,
)
from basis_bt.kernels.status import OK
from basis_bt.kernels.structs import (
    ACTION,
    ARRIVAL,
    ATTEMPT_BASIS,
    ATTEMPT_DELTA,
    BASIS,
    BEFORE,
    BY_MATCH,
    CASH,
    CASH_BEFORE_ENTRY,
    CHANGE,
    CLOSE_FROM,
    DECISION_BAR,
    DELTA,
    DIRECTION,
    DONE,
    ENTRY,
    ENTRY_BAR,
    EXCESS,
    EXCESS_PRICE,
    EXIT,
    EXIT_BAR,
    FILL_BAR,
    FILL_ROW,
    FILLED,
    FORCED,
    FUNDED,
    GAS,
    HEDGE_RATIO,
    HELD_DIRECTION,
    KEPT,
    LEG_CASH,
    MAKER,
    MISSED,
    N_EVENTS,
    N_FILLS,
    N_ROLLBACKS,
    N_TRADES,
    N_UNFILLED,
    NAKED,
    ORDER_QUANTITY,
    PARTIAL,
    PENDING,
    POSITION,
    READY_BAR,
    REASON,
    ROLLBACK,
    ROLLBACK_EXECUTION,
    ROLLBACK_PRICE,
    SINGLE,
    STAGE,
    START_BAR,
    STARTED,
    UNFILLED,
    UNTRADABLE,
    WAITED,
    WAITING,
    WANT,
)
from basis_bt.kernels.wallets import is_settled

HEDGE_TOLERANCE = 1e-9


@inner_kernel
def write_event(log, account, bar, event, reason, direction, quantity):
    """Append an event."""
    row = log.event_index[account.counts[N_EVENTS]]
    row[0], row[1], row[2], row[3] = bar, event, reason, direction
    log.event_quantity[account.counts[N_EVENTS]] = quantity
    account.counts[N_EVENTS] += 1


@kernel
def is_hedged(position_base, ratio):
    """Whether the legs are one quantity times their ratios, within 1e-9 of the largest."""
    low = position_base[0] / ratio[0]
    high = low
    for leg in range(1, len(ratio)):
        units = position_base[leg] / ratio[leg]
        low, high = min(low, units), max(high, units)
    return high - low <= HEDGE_TOLERANCE * max(abs(low), abs(high))


@inner_kernel
def send(order, account, bar, ready_bar, action, reason, direction, quantity, log):
    """Send the order whose ``want_base`` and ``arrival_price`` are set, and write its event."""
    state = order.state
    state[ACTION], state[REASON], state[DIRECTION] = action, reason, direction
    state[DECISION_BAR], state[READY_BAR] = bar, ready_bar
    state[START_BAR], state[WAITED], state[CLOSE_FROM], state[SINGLE], state[KEPT] = -1, 0, -1, 0, 0
    state[FUNDED], state[FORCED] = 1, 0
    account.sums[ORDER_QUANTITY] = quantity
    begin_attempt(order, account)
    write_event(log, account, bar, action, reason, direction, quantity)


@inner_kernel
def begin_attempt(order, account):
    """Make every leg that still wants something pending."""
    order.state[START_BAR] = -1
    for leg in range(len(order.legs[WANT])):
        order.legs[STARTED, leg] = account.legs[POSITION, leg]
        order.legs[FILLED, leg], order.legs[ATTEMPT_DELTA, leg], order.legs[ATTEMPT_BASIS, leg] = 0.0, 0.0, 0.0
        order.marks[STAGE, leg] = PENDING if order.legs[WANT, leg] != 0.0 else DONE


@inner_kernel
def work_order(bar, order, account, market, costs, fills, log):
    """What a bar does for the order in flight; returns a status."""
    state = order.state
    if state[CLOSE_FROM] >= 0:
        return close_excess(bar, order, account, market, costs, fills, log)
    if state[START_BAR] < 0:
        if bar < state[READY_BAR]:
            return OK
        if not state[FUNDED]:
            if not is_settled(bar, account):
                return OK
            state[FUNDED] = 1
        if not (state[FORCED] or can_start(order.legs[WANT], market.tradable[bar])):
            if not state[WAITED]:
                state[WAITED] = 1
                write_event(log, account, bar, WAITING, UNTRADABLE, state[DIRECTION], account.sums[ORDER_QUANTITY])
            return OK
        state[START_BAR] = bar
        state[SINGLE] = (
            1 if state[ACTION] != ENTRY and not is_hedged(account.legs[POSITION], account.legs[HEDGE_RATIO]) else 0
        )
    is_done = True
    first = fills.latency_bars.min()
    for leg in range(len(order.legs[WANT])):
        if order.marks[STAGE, leg] == DONE:
            continue
        late_bars = 0 if state[FORCED] else fills.latency_bars[leg] - first
        if bar >= state[START_BAR] + late_bars and market.tradable[bar, leg]:
            status = work_leg(bar, leg, order, account, market, costs, fills, log)
            if status != OK:
                return status
        is_done = is_done and order.marks[STAGE, leg] == DONE
    return resolve(bar, order, account, market, costs, fills, log) if is_done else OK


@inner_kernel
def work_leg(bar, leg, order, account, market, costs, fills, log):
    """Fill what the bar gives of one leg; a limit that is not reached is taken at the next open."""
    want, arrival, status = order.legs[WANT, leg], order.legs[ARRIVAL, leg], OK
    values = log.fill_values[account.counts[N_FILLS]]
    fraction, share = 1.0, 1.0
    is_forced = order.state[FORCED] == 1
    if fills.model == MAKER and order.marks[STAGE, leg] == PENDING and not is_forced:
        side = 1.0 if want > 0.0 else -1.0
        limit = limit_price(arrival, side, fills.offset_bps)
        if is_rejected(bar, leg, fills):
            fraction = 0.0
        elif is_traded_through(bar, leg, limit, side, market):
            open_price = market.open_price[bar, leg]
            share = traded_frac(leg, want, open_price, account)
            rest(want, arrival, open_price, limit, share, costs.maker_fee_bps[leg], values)
        else:
            order.marks[STAGE, leg] = MISSED
            return OK
    else:
        if fills.model != MAKER and not is_forced:
            fraction = fill_fraction(bar, leg, gross_base(want, costs.base_fee_frac[leg]), market, fills)
        if fraction > 0.0:
            price = market.open_price[bar, leg]
            share = traded_frac(leg, want, price, account)
            status = take(bar, leg, want * fraction, arrival, price, 0.0, share, market, costs, values)
    order.marks[STAGE, leg] = DONE
    if fraction > 0.0 and status == OK:
        order.legs[FILLED, leg], order.marks[FILL_BAR, leg], order.marks[FILL_ROW, leg] = (
            values[1],
            bar,
            account.counts[N_FILLS],
        )
        account.legs[POSITION, leg] += values[1]
        account.legs[CHANGE, leg] += values[1]
        record_fill(bar, leg, order.state[ACTION], share, order, account, costs, log)
        book_costs(account.books, leg, values)
    return status


@inner_kernel
def record_fill(bar, leg, action, share, order, account, costs, log):
    """Move the cash of the order's fill just written and append its row."""
    state = order.state
    is_new_trade = state[ACTION] == ENTRY and not state[KEPT]
    trade = account.counts[N_TRADES] + 1 if is_new_trade else trade_of(account)
    append_fill(bar, leg, trade, action, state[REASON], state[DECISION_BAR], share, account, costs, log)


@inner_kernel
def append_fill(bar, leg, trade, action, reason, decision_bar, share, account, costs, log):
    """Move the cash and the face of the fill just written and append its row; ``share`` is what it traded of it."""
    n_fills = account.counts[N_FILLS]
    values, row = log.fill_values[n_fills], log.fill_index[n_fills]
    values[9] += account.legs[GAS, leg]
    notional = values[0] * values[4]
    is_buy = values[1] > 0.0
    paid = -notional if is_buy else notional
    fee = account.legs[GAS, leg] if is_buy and costs.base_fee_frac[leg] != 0.0 else values[9]
    account.sums[CASH] = account.sums[CASH] + paid - fee
    account.legs[LEG_CASH, leg] += paid - fee
    account.wallet_cash_usd[account.wallet_of[leg]] += paid - fee
    follow(bar, leg, values[1], values[4], account)
    count_turnover(leg, notional * share, account)
    row[0], row[1], row[2], row[3] = bar, leg, trade, action
    row[4], row[5], row[6] = reason, decision_bar, 1 if is_buy else -1
    account.counts[N_FILLS] = n_fills + 1


@inner_kernel
def trade_of(account):
    """Number of the trade that is held, 0 for positions that no trade came of."""
    return account.counts[N_TRADES] if account.counts[HELD_DIRECTION] != 0 else 0


@inner_kernel
def resolve(bar, order, account, market, costs, fills, log):
    """Decide what stays of an attempt whose legs are all done, and close the rest or put it off."""
    state, n_legs = order.state, len(order.legs[WANT])
    mode = fills.atomicity if state[ACTION] == ENTRY else BY_MATCH
    common, largest = 1.0, 0.0
    for leg in range(n_legs):
        if order.legs[WANT, leg] != 0.0:
            fraction = order.legs[FILLED, leg] / order.legs[WANT, leg]
            common, largest = min(common, fraction), max(largest, fraction)
    if largest == 0.0:
        if mode == BY_MATCH:
            put_off(bar, order, account)
        else:
            account.counts[N_UNFILLED] += 1
            write_event(log, account, bar, UNFILLED, PARTIAL, state[DIRECTION], account.sums[ORDER_QUANTITY])
            state[ACTION] = -1
        return OK
    kept_share = common if mode == BY_MATCH or common == 1.0 else 0.0
    is_kept, is_excess = kept_share > 0.0, False
    for leg in range(n_legs):
        want, filled = order.legs[WANT, leg], order.legs[FILLED, leg]
        kept = filled
        if not state[SINGLE] and mode != NAKED:
            kept = kept_share * want if kept_share != 1.0 else want
        is_kept = is_kept or kept != 0.0
        order.legs[WANT, leg] = want - kept if mode == BY_MATCH else 0.0
        if kept != filled:
            is_excess = True
            set_excess(bar, leg, filled - kept, order, account, market, log)
    if is_kept:
        keep(bar, common if mode == BY_MATCH else largest, order, account, log)
    if is_excess:
        account.counts[N_ROLLBACKS] += 1
        write_event(log, account, bar, ROLLBACK, PARTIAL, state[DIRECTION], account.sums[ORDER_QUANTITY])
        state[CLOSE_FROM] = bar + fills.rollback_delay_bars
        return close_excess(bar, order, account, market, costs, fills, log)
    finish(bar, order, account, log)
    return OK


@inner_kernel
def set_excess(bar, leg, excess, order, account, market, log):
    """Take the part of a fill that does not stay out of the position and its books; it is marked apart from now on."""
    share, row = excess / order.legs[FILLED, leg], order.marks[FILL_ROW, leg]
    books = account.books
    move_to_rollback(books, leg, log.fill_values[row], share)
    books[leg, DELTA] -= share * order.legs[ATTEMPT_DELTA, leg]
    books[leg, BASIS] -= share * order.legs[ATTEMPT_BASIS, leg]
    books[leg, ROLLBACK_PRICE] -= share * (order.legs[ATTEMPT_DELTA, leg] + order.legs[ATTEMPT_BASIS, leg])
    if order.marks[FILL_BAR, leg] == bar:
        account.legs[CHANGE, leg] -= excess
        order.legs[EXCESS_PRICE, leg] = order.legs[ARRIVAL, leg]
    else:
        account.legs[BEFORE, leg] -= excess
        order.legs[EXCESS_PRICE, leg] = market.close_price[bar - 1, leg]
    order.legs[EXCESS, leg] = excess
    account.legs[POSITION, leg] = order.legs[STARTED, leg] + (order.legs[FILLED, leg] - excess)
    if excess == order.legs[FILLED, leg] and order.state[ACTION] == ENTRY and not order.state[KEPT]:
        log.fill_index[row, 2] = 0  # it belongs to no trade


@inner_kernel
def keep(bar, share, order, account, log):
    """Book the share of the order that stays; the first part of an entry begins a trade."""
    state, counts, sums = order.state, account.counts, account.sums
    quantity = share * sums[ORDER_QUANTITY]
    sums[ORDER_QUANTITY] -= quantity
    if state[ACTION] == ENTRY:
        if not state[KEPT]:
            counts[N_TRADES] += 1
            counts[HELD_DIRECTION], counts[ENTRY_BAR] = state[DIRECTION], bar
            trade = log.trade_bars[counts[N_TRADES] - 1]
            trade[0], trade[1], trade[2], trade[3] = bar, -1, state[DIRECTION], -1
        log.trade_values[counts[N_TRADES] - 1, 0] += quantity
    state[KEPT] = 1


@inner_kernel
def close_excess(bar, order, account, market, costs, fills, log):
    """Close what does not stay, each leg as soon as it may be; the order goes on when nothing of it is left."""
    state, is_closed = order.state, True
    for leg in range(len(order.legs[EXCESS])):
        excess = order.legs[EXCESS, leg]
        if excess == 0.0:
            continue
        is_same_bar = order.marks[FILL_BAR, leg] == bar
        if bar < state[CLOSE_FROM] or not (is_same_bar or market.tradable[bar, leg]):
            is_closed = False
            continue
        price = log.fill_values[order.marks[FILL_ROW, leg], 3] if is_same_bar else market.open_price[bar, leg]
        values = log.fill_values[account.counts[N_FILLS]]
        share = traded_frac(leg, -excess, price, account)
        status = take(bar, leg, -excess, price, price, fills.rollback_penalty_bps, share, market, costs, values)
        if status != OK:
            return status
        record_fill(bar, leg, ROLLBACK, share, order, account, costs, log)
        account.books[leg, ROLLBACK_EXECUTION] += values[6] + values[7] + values[8] + values[9]
        account.books[leg, ROLLBACK_PRICE] -= excess * (price - order.legs[EXCESS_PRICE, leg])
        if log.fill_index[order.marks[FILL_ROW, leg], 2] == 0:
            log.fill_index[account.counts[N_FILLS] - 1, 2] = 0
        order.legs[EXCESS, leg] = 0.0
    if is_closed:
        state[CLOSE_FROM] = -1
        finish(bar, order, account, log)
    return OK


@kernel
def can_start(want_base, tradable):
    """Whether every leg that has something to do has an open in this bar."""
    for leg in range(len(want_base)):
        if want_base[leg] != 0.0 and not tradable[leg]:
            return False
    return True


@inner_kernel
def put_off(bar, order, account):
    """Try what is left of the order again from the next bar on; of an exit that is all that is held."""
    order.state[READY_BAR] = bar + 1
    if order.state[ACTION] == EXIT:
        for leg in range(len(order.legs[WANT])):
            order.legs[WANT, leg] = -account.legs[POSITION, leg]
    begin_attempt(order, account)


@inner_kernel
def finish(bar, order, account, log):
    """End the order, or put off what is left of it; an exit that is done closes its trade."""
    for leg in range(len(order.legs[WANT])):
        if order.legs[WANT, leg] != 0.0:
            put_off(bar, order, account)
            return
    if order.state[ACTION] == EXIT and account.counts[HELD_DIRECTION] != 0:
        end_trade(bar, order.state[REASON], account, log)
    order.state[ACTION] = -1


@inner_kernel
def end_trade(bar, reason, account, log):
    """Nothing is held any more: the trade ended in this bar, for this reason."""
    counts = account.counts
    counts[HELD_DIRECTION], counts[EXIT_BAR] = 0, bar
    trade = counts[N_TRADES] - 1
    log.trade_bars[trade, 1], log.trade_bars[trade, 3] = bar, reason
    log.trade_values[trade, 1] = account.sums[CASH] - account.sums[CASH_BEFORE_ENTRY]
