"""An order from its decision until it is done: attempts, what stays of a part, closing what does not (SPEC 4).

An attempt begins when every leg can be traded, fills each leg in its own bar, and resolves in the bar of the last one.
What does not stay is the excess; it is closed, and its whole loss is a cost of the rollback.
"""

from basis_bt.kernels._jit import kernel
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
    BASIS,
    BY_MATCH,
    CASH,
    CASH_BEFORE_ENTRY,
    CLOSE_FROM,
    DECISION_BAR,
    DELTA,
    DIRECTION,
    DONE,
    ENTRY,
    ENTRY_BAR,
    EXIT,
    EXIT_BAR,
    FORCED,
    FUNDED,
    HELD_DIRECTION,
    KEPT,
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
    READY_BAR,
    REASON,
    ROLLBACK,
    ROLLBACK_EXECUTION,
    ROLLBACK_PRICE,
    SINGLE,
    START_BAR,
    TURNOVER,
    UNFILLED,
    UNTRADABLE,
    WAITED,
    WAITING,
)
from basis_bt.kernels.wallets import is_settled

HEDGE_TOLERANCE = 1e-9


@kernel
def write_event(out, account, bar, event, reason, direction, quantity):
    """Append an event."""
    row = out.event_index[account.counts[N_EVENTS]]
    row[0], row[1], row[2], row[3] = bar, event, reason, direction
    out.event_quantity[account.counts[N_EVENTS]] = quantity
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


@kernel
def send(order, account, bar, ready_bar, action, reason, direction, quantity, out):
    """Send the order whose ``want_base`` and ``arrival_price`` are set, and write its event."""
    state = order.state
    state[ACTION], state[REASON], state[DIRECTION] = action, reason, direction
    state[DECISION_BAR], state[READY_BAR] = bar, ready_bar
    state[START_BAR], state[WAITED], state[CLOSE_FROM], state[SINGLE], state[KEPT] = -1, 0, -1, 0, 0
    state[FUNDED], state[FORCED] = 1, 0
    account.sums[ORDER_QUANTITY] = quantity
    begin_attempt(order, account)
    write_event(out, account, bar, action, reason, direction, quantity)


@kernel
def begin_attempt(order, account):
    """Make every leg that still wants something pending."""
    order.state[START_BAR] = -1
    for leg in range(len(order.want_base)):
        order.before_base[leg] = account.position_base[leg]
        order.filled_base[leg], order.delta_usd[leg], order.basis_usd[leg] = 0.0, 0.0, 0.0
        order.stage[leg] = PENDING if order.want_base[leg] != 0.0 else DONE


@kernel
def work_order(bar, order, account, market, combo, costs, fills, out):
    """What a bar does for the order in flight; returns a status."""
    state = order.state
    if state[CLOSE_FROM] >= 0:
        return close_excess(bar, order, account, market, costs, fills, out)
    if state[START_BAR] < 0:
        if bar < state[READY_BAR]:
            return OK
        if not state[FUNDED]:
            if not is_settled(bar, account):
                return OK
            state[FUNDED] = 1
        if not (state[FORCED] or can_start(order.want_base, market.tradable[bar])):
            if not state[WAITED]:
                state[WAITED] = 1
                write_event(out, account, bar, WAITING, UNTRADABLE, state[DIRECTION], account.sums[ORDER_QUANTITY])
            return OK
        state[START_BAR] = bar
        state[SINGLE] = 1 if state[ACTION] != ENTRY and not is_hedged(account.position_base, combo.ratio) else 0
    is_done = True
    first = fills.latency_bars.min()
    for leg in range(len(order.want_base)):
        if order.stage[leg] == DONE:
            continue
        late_bars = 0 if state[FORCED] else fills.latency_bars[leg] - first
        if bar >= state[START_BAR] + late_bars and market.tradable[bar, leg]:
            status = work_leg(bar, leg, order, account, market, costs, fills, out)
            if status != OK:
                return status
        is_done = is_done and order.stage[leg] == DONE
    return resolve(bar, order, account, market, costs, fills, out) if is_done else OK


@kernel
def work_leg(bar, leg, order, account, market, costs, fills, out):
    """Fill what the bar gives of one leg; a limit that is not reached is taken at the next open."""
    want, arrival, status = order.want_base[leg], order.arrival_price[leg], OK
    values = out.fill_values[account.counts[N_FILLS]]
    fraction = 1.0
    is_forced = order.state[FORCED] == 1
    if fills.model == MAKER and order.stage[leg] == PENDING and not is_forced:
        side = 1.0 if want > 0.0 else -1.0
        limit = limit_price(arrival, side, fills.offset_bps)
        if is_rejected(bar, leg, fills):
            fraction = 0.0
        elif is_traded_through(bar, leg, limit, side, market):
            rest(want, arrival, limit, fills.maker_fee_bps[leg], values)
        else:
            order.stage[leg] = MISSED
            return OK
    else:
        if fills.model != MAKER and not is_forced:
            fraction = fill_fraction(bar, leg, gross_base(want, costs.base_fee_frac[leg]), market, fills)
        if fraction > 0.0:
            status = take(
                bar, leg, want * fraction, arrival, market.open_price[bar, leg], 0.0, market, costs, values
            )
    order.stage[leg] = DONE
    if fraction > 0.0 and status == OK:
        order.filled_base[leg], order.fill_bar[leg], order.row[leg] = values[1], bar, account.counts[N_FILLS]
        account.position_base[leg] += values[1]
        account.change_base[leg] += values[1]
        book_costs(account.books, leg, values)
        record_fill(bar, leg, order.state[ACTION], order, account, costs, out)
    return status


@kernel
def record_fill(bar, leg, action, order, account, costs, out):
    """Move the cash of the fill just written and append its row."""
    n_fills = account.counts[N_FILLS]
    values, row, state = out.fill_values[n_fills], out.fill_index[n_fills], order.state
    notional = values[0] * values[4]
    is_buy = values[1] > 0.0
    paid = -notional if is_buy else notional
    fee = 0.0 if is_buy and costs.base_fee_frac[leg] != 0.0 else values[9]
    account.sums[CASH] = account.sums[CASH] + paid - fee
    account.leg_cash_usd[leg] += paid - fee
    account.wallet_cash_usd[account.wallet_of[leg]] += paid - fee
    account.sums[TURNOVER] += notional
    is_new_trade = state[ACTION] == ENTRY and not state[KEPT]
    trade = account.counts[N_TRADES] + 1 if is_new_trade else trade_of(account)
    row[0], row[1], row[2], row[3] = bar, leg, trade, action
    row[4], row[5], row[6] = state[REASON], state[DECISION_BAR], 1 if is_buy else -1
    account.counts[N_FILLS] = n_fills + 1


@kernel
def trade_of(account):
    """Number of the trade that is held, 0 for positions that no trade came of."""
    return account.counts[N_TRADES] if account.counts[HELD_DIRECTION] != 0 else 0


@kernel
def resolve(bar, order, account, market, costs, fills, out):
    """Decide what stays of an attempt whose legs are all done, and close the rest or put it off."""
    state, n_legs = order.state, len(order.want_base)
    mode = fills.atomicity if state[ACTION] == ENTRY else BY_MATCH
    common, largest = 1.0, 0.0
    for leg in range(n_legs):
        if order.want_base[leg] != 0.0:
            fraction = order.filled_base[leg] / order.want_base[leg]
            common, largest = min(common, fraction), max(largest, fraction)
    if largest == 0.0:
        if mode == BY_MATCH:
            put_off(bar, order, account)
        else:
            account.counts[N_UNFILLED] += 1
            write_event(out, account, bar, UNFILLED, PARTIAL, state[DIRECTION], account.sums[ORDER_QUANTITY])
            state[ACTION] = -1
        return OK
    kept_share = common if mode == BY_MATCH or common == 1.0 else 0.0
    is_kept, is_excess = kept_share > 0.0, False
    for leg in range(n_legs):
        want, filled = order.want_base[leg], order.filled_base[leg]
        kept = filled
        if not state[SINGLE] and mode != NAKED:
            kept = kept_share * want if kept_share != 1.0 else want
        is_kept = is_kept or kept != 0.0
        order.want_base[leg] = want - kept if mode == BY_MATCH else 0.0
        if kept != filled:
            is_excess = True
            set_excess(bar, leg, filled - kept, order, account, market, out)
    if is_kept:
        keep(bar, common if mode == BY_MATCH else largest, order, account, out)
    if is_excess:
        account.counts[N_ROLLBACKS] += 1
        write_event(out, account, bar, ROLLBACK, PARTIAL, state[DIRECTION], account.sums[ORDER_QUANTITY])
        state[CLOSE_FROM] = bar + fills.rollback_delay_bars
        return close_excess(bar, order, account, market, costs, fills, out)
    finish(bar, order, account, out)
    return OK


@kernel
def set_excess(bar, leg, excess, order, account, market, out):
    """Take the part of a fill that does not stay out of the position and its books; it is marked apart from now on."""
    share, row = excess / order.filled_base[leg], order.row[leg]
    books = account.books
    move_to_rollback(books, leg, out.fill_values[row], share)
    books[leg, DELTA] -= share * order.delta_usd[leg]
    books[leg, BASIS] -= share * order.basis_usd[leg]
    books[leg, ROLLBACK_PRICE] -= share * (order.delta_usd[leg] + order.basis_usd[leg])
    if order.fill_bar[leg] == bar:
        account.change_base[leg] -= excess
        order.excess_price[leg] = order.arrival_price[leg]
    else:
        account.before_base[leg] -= excess
        order.excess_price[leg] = market.close_price[bar - 1, leg]
    order.excess_base[leg] = excess
    account.position_base[leg] = order.before_base[leg] + (order.filled_base[leg] - excess)
    if excess == order.filled_base[leg] and order.state[ACTION] == ENTRY and not order.state[KEPT]:
        out.fill_index[row, 2] = 0  # it belongs to no trade


@kernel
def keep(bar, share, order, account, out):
    """Book the share of the order that stays; the first part of an entry begins a trade."""
    state, counts, sums = order.state, account.counts, account.sums
    quantity = share * sums[ORDER_QUANTITY]
    sums[ORDER_QUANTITY] -= quantity
    if state[ACTION] == ENTRY:
        if not state[KEPT]:
            counts[N_TRADES] += 1
            counts[HELD_DIRECTION], counts[ENTRY_BAR] = state[DIRECTION], bar
            trade = out.trade_bars[counts[N_TRADES] - 1]
            trade[0], trade[1], trade[2], trade[3] = bar, -1, state[DIRECTION], -1
        out.trade_values[counts[N_TRADES] - 1, 0] += quantity
    state[KEPT] = 1


@kernel
def close_excess(bar, order, account, market, costs, fills, out):
    """Close what does not stay, each leg as soon as it may be; the order goes on when nothing of it is left."""
    state, is_closed = order.state, True
    for leg in range(len(order.excess_base)):
        excess = order.excess_base[leg]
        if excess == 0.0:
            continue
        is_same_bar = order.fill_bar[leg] == bar
        if bar < state[CLOSE_FROM] or not (is_same_bar or market.tradable[bar, leg]):
            is_closed = False
            continue
        price = out.fill_values[order.row[leg], 3] if is_same_bar else market.open_price[bar, leg]
        values = out.fill_values[account.counts[N_FILLS]]
        status = take(bar, leg, -excess, price, price, fills.rollback_penalty_bps, market, costs, values)
        if status != OK:
            return status
        account.books[leg, ROLLBACK_EXECUTION] += values[6] + values[7] + values[8] + values[9]
        account.books[leg, ROLLBACK_PRICE] -= excess * (price - order.excess_price[leg])
        record_fill(bar, leg, ROLLBACK, order, account, costs, out)
        if out.fill_index[order.row[leg], 2] == 0:
            out.fill_index[account.counts[N_FILLS] - 1, 2] = 0
        order.excess_base[leg] = 0.0
    if is_closed:
        state[CLOSE_FROM] = -1
        finish(bar, order, account, out)
    return OK


@kernel
def can_start(want_base, tradable):
    """Whether every leg that has something to do has an open in this bar."""
    for leg in range(len(want_base)):
        if want_base[leg] != 0.0 and not tradable[leg]:
            return False
    return True


@kernel
def put_off(bar, order, account):
    """Try what is left of the order again from the next bar on; of an exit that is all that is held."""
    order.state[READY_BAR] = bar + 1
    if order.state[ACTION] == EXIT:
        for leg in range(len(order.want_base)):
            order.want_base[leg] = -account.position_base[leg]
    begin_attempt(order, account)


@kernel
def finish(bar, order, account, out):
    """End the order, or put off what is left of it; an exit that is done closes its trade."""
    for leg in range(len(order.want_base)):
        if order.want_base[leg] != 0.0:
            put_off(bar, order, account)
            return
    if order.state[ACTION] == EXIT and account.counts[HELD_DIRECTION] != 0:
        end_trade(bar, order.state[REASON], account, out)
    order.state[ACTION] = -1


@kernel
def end_trade(bar, reason, account, out):
    """Nothing is held any more: the trade ended in this bar, for this reason."""
    counts = account.counts
    counts[HELD_DIRECTION], counts[EXIT_BAR] = 0, bar
    trade = counts[N_TRADES] - 1
    out.trade_bars[trade, 1], out.trade_bars[trade, 3] = bar, reason
    out.trade_values[trade, 1] = account.sums[CASH] - account.sums[CASH_BEFORE_ENTRY]
