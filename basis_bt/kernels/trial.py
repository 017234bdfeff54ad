"""One backtest of one parameter set.

The order of events in a bar, as in SPEC 2:

1. arrivals: transfers reach their wallet, queued ones are sent
2. accruals: the settlements of the bar, on the position held before its fills
3. decision: on what was known at the stamp, unless an order is in flight; else whether a wallet needs cash
4. fill: of the order in flight, as far as the bar gives it
5. intrabar risk: the margin of each wallet at the bar's worst prices
6. mark: equity at the closes, and the books
"""

import math

import numpy as np

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.books import book_price_move, equity_usd
from basis_bt.kernels.fills import cost_components_bps, gross_base, net_share
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.margin_call import check_margins, margin_state
from basis_bt.kernels.orders import is_hedged, send, work_order, write_event
from basis_bt.kernels.rule import HOLD, entry_direction, exit_reason
from basis_bt.kernels.sizing import combo_quantity, is_capital, meets_minimums
from basis_bt.kernels.status import MARK_MISSING, OK
from basis_bt.kernels.structs import (
    ACTION,
    CASH,
    CASH_BEFORE_ENTRY,
    CLOSE_FROM,
    COUNTS,
    ENTRY,
    ENTRY_BAR,
    EXIT,
    EXIT_BAR,
    FUNDED,
    FUNDING,
    HELD_DIRECTION,
    IN_FLIGHT,
    IS_SPLIT,
    LAST_ARRIVAL,
    MARGIN,
    MAX_BASIS,
    MAX_COST,
    MAX_SPREAD,
    MAX_VOLUME_SHARE,
    MIN_MARGIN_RATIO,
    MIN_NOTIONAL,
    N_BOOKS,
    N_EVENTS,
    N_FILLS,
    N_LIQUIDATIONS,
    N_NAKED_BARS,
    N_REFUSED,
    N_ROLLBACKS,
    N_TRADES,
    N_UNFILLED,
    ORDER_STATE,
    QUEUED,
    REFUSED,
    RESIZE,
    ROLLBACK_PRICE,
    SENDING_DAY,
    SIGNAL,
    SIZE,
    START_BAR,
    SUMS,
    TURNOVER,
    Account,
    Order,
    Totals,
)
from basis_bt.kernels.wallets import is_settled, pay, plan_transfers, receive, send_queued, split


@kernel
def refusal(bar, quantity, ratio, arrival_price, market, rule, size, costs, fills):
    """Why an entry may not be sent, or -1: the rule, the size, then the pre-flight of its costs."""
    if not math.isnan(rule.max_basis_bps) and not abs(market.basis_bps[bar]) <= rule.max_basis_bps:
        return MAX_BASIS
    if not quantity > 0.0:
        return SIZE
    if not meets_minimums(quantity, ratio, arrival_price, size.min_notional_usd):
        return MIN_NOTIONAL
    if fills.max_cost_bps < math.inf or fills.max_volume_share < math.inf or fills.max_spread_bps < math.inf:
        return preflight(bar, quantity, ratio, arrival_price, market, costs, fills)
    return -1


@kernel
def preflight(bar, quantity, ratio, arrival_price, market, costs, fills):
    """Whether an entry's estimated cost, its share of the last volume, or a quoted spread is over its limit."""
    cost_usd, notional_usd, share, spread_bps = 0.0, 0.0, 0.0, 0.0
    for leg in range(len(ratio)):
        n = gross_base(quantity * ratio[leg], costs.base_fee_frac[leg])
        status, half_spread, bucket, impact = cost_components_bps(bar, leg, n, arrival_price[leg], market, costs)
        notional = n * arrival_price[leg]
        cost_usd += notional * (half_spread + bucket + impact if status == OK else math.inf)
        notional_usd += notional
        before = market.volume_before[bar, leg]
        share = max(share, n / before if before > 0.0 else math.inf)
        spread_bps = max(spread_bps, 2.0 * costs.half_spread_bps[leg])
    if cost_usd / notional_usd > fills.max_cost_bps:
        return MAX_COST
    if share > fills.max_volume_share:
        return MAX_VOLUME_SHARE
    return MAX_SPREAD if spread_bps > fills.max_spread_bps else -1


@kernel
def accrue(bar, account, market, out):
    """Pay the settlements of a bar on what is held; returns a status."""
    for k in range(market.first_settlement[bar], market.first_settlement[bar + 1]):
        leg = market.settlement_leg[k]
        held = account.held_base[leg]
        out.settlement_position[k] = held
        if held != 0.0:
            paid = funding_usd(held, market.mark_price[k], market.funding_rate[k])
            if not math.isfinite(paid):
                return MARK_MISSING
            pay(account, leg, paid)
            account.books[leg, FUNDING] += paid
    return OK


@kernel
def decide_entry(bar, wanted, order, account, market, combo, rule, size, costs, fills, wallets, out):
    """Send the entry the rule wants, if nothing speaks against it; returns the equity it was sized on, or NaN."""
    ratio, arrival = combo.ratio, order.arrival_price
    for leg in range(len(ratio)):
        arrival[leg] = market.open_price[bar, leg]
    own = equity_usd(account.sums[CASH], account.position_base, arrival)
    equity = own if size.compounding else size.capital_usd
    quantity = combo_quantity(equity, ratio, arrival, combo.margin_weight, size) if is_capital(own, size) else 0.0
    reason = refusal(bar, quantity, ratio, arrival, market, rule, size, costs, fills)
    if reason >= 0:
        account.counts[N_REFUSED] += 1
        write_event(out, account, bar, REFUSED, reason, wanted, quantity)
        return math.nan
    share = net_share(wanted, ratio, costs.base_fee_frac)
    for leg in range(len(ratio)):
        order.want_base[leg] = wanted * ratio[leg] * (quantity * share)
    account.sums[CASH_BEFORE_ENTRY] = account.sums[CASH]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, ENTRY, SIGNAL, wanted, quantity * share, out)
    if wallets.is_split:
        fund(bar, order, account, combo, wallets, arrival)
    return equity


@kernel
def fund(bar, order, account, combo, wallets, price):
    """Bring the wallets to their targets for an entry, which waits for the cash; the first time it is there."""
    equity = equity_usd(account.sums[CASH], account.held_base, price)
    if not account.counts[IS_SPLIT]:
        split(account, combo, price, equity)
        return
    plan_transfers(account, combo, wallets, price, equity)
    send_queued(bar, account, wallets)
    order.state[FUNDED] = 0


@kernel
def decide_resize(bar, order, account, market, combo, size, fills, wallets, out):
    """A wallet's margin runs low: make the combo as small as its equity bears, and move cash where it is short."""
    price, held = market.open_price[bar], account.held_base
    equity = equity_usd(account.sums[CASH], held, price)
    target = combo_quantity(equity, combo.ratio, price, combo.margin_weight, size) if is_capital(equity, size) else 0.0
    units = 0.0
    for leg in range(len(held)):
        units = max(units, abs(held[leg] / combo.ratio[leg]))
    if not target > 0.0:
        decide_exit(bar, MARGIN, order, account, market, fills, out)
        return
    if target >= units:
        plan_transfers(account, combo, wallets, price, equity)
        send_queued(bar, account, wallets)
        return
    direction = account.counts[HELD_DIRECTION]
    for leg in range(len(held)):
        order.arrival_price[leg] = price[leg]
        order.want_base[leg] = -direction * combo.ratio[leg] * (units - target) if held[leg] != 0.0 else 0.0
    send(order, account, bar, bar + fills.latency_bars.min(), RESIZE, MARGIN, direction, units - target, out)


@kernel
def decide_exit(bar, reason, order, account, market, fills, out):
    """Send the exit the rule wants: all that is held."""
    for leg in range(len(order.want_base)):
        order.arrival_price[leg] = market.open_price[bar, leg]
        order.want_base[leg] = -account.position_base[leg]
    quantity = out.trade_values[account.counts[N_TRADES] - 1, 0]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, EXIT, reason, account.counts[HELD_DIRECTION], quantity, out)


@kernel
def book_held(books, position_base, before, close, reference):
    """Price PnL of a bar on what was held all through it, from close to close."""
    for leg in range(len(close)):
        held = position_base[leg]
        if held != 0.0:
            book_price_move(books, leg, held, before[leg], close[leg], before[reference], close[reference])


@kernel
def book_order(bar, order, account, close_price, reference):
    """Price PnL of a bar on what an order filled, on the parts of an attempt, and on what is to be closed again."""
    close, books, arrival = close_price[bar], account.books, order.arrival_price
    before = close_price[max(bar - 1, 0)]
    is_open_attempt = order.state[ACTION] >= 0 and order.state[START_BAR] >= 0 and order.state[CLOSE_FROM] < 0
    for leg in range(len(close)):
        change = account.change_base[leg]
        if change != 0.0:
            book_price_move(books, leg, change, arrival[leg], close[leg], arrival[reference], close[reference])
        if is_open_attempt and order.filled_base[leg] != 0.0:
            start = arrival if order.fill_bar[leg] == bar else before
            reference_move = close[reference] - start[reference]
            order.delta_usd[leg] += order.filled_base[leg] * reference_move
            order.basis_usd[leg] += order.filled_base[leg] * ((close[leg] - start[leg]) - reference_move)
        excess = order.excess_base[leg]
        if excess != 0.0:
            books[leg, ROLLBACK_PRICE] -= excess * (close[leg] - order.excess_price[leg])
            order.excess_price[leg] = close[leg]


@kernel
def is_stale(position, missing):
    """Whether a held leg has no bar."""
    for leg in range(len(position)):
        if position[leg] != 0.0 and missing[leg]:
            return True
    return False


@kernel
def totals_of(status, bar, account):
    """How the trial ended, from its counts and sums."""
    counts = account.counts
    return Totals(
        status,
        bar,
        counts[N_FILLS],
        counts[N_EVENTS],
        counts[N_TRADES],
        counts[N_REFUSED],
        counts[N_ROLLBACKS],
        counts[N_UNFILLED],
        counts[N_NAKED_BARS],
        counts[N_LIQUIDATIONS],
        account.sums[MIN_MARGIN_RATIO],
        account.sums[TURNOVER],
    )


@kernel
def run_trial(market, combo, rule, size, costs, fills, wallets, out):
    """Run the bars and record them; shapes and meanings in ``structs.py``, the order of events above."""
    n_bars, n_legs = market.close_price.shape
    n_wallets = len(wallets.weight)
    n_arrivals = n_bars if wallets.is_split else 1
    arriving = np.zeros((n_arrivals, n_wallets))
    account = Account(
        np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs),
        np.zeros((n_legs, N_BOOKS)), np.zeros(len(COUNTS), dtype=np.int64), np.zeros(len(SUMS)), wallets.wallet_of,
        np.zeros(n_wallets), np.zeros((n_wallets, n_wallets)), arriving,
    )  # fmt: skip
    order = Order(
        np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs),
        np.zeros(n_legs), np.zeros(n_legs), np.zeros(n_legs, dtype=np.int64), np.zeros(n_legs, dtype=np.int64),
        np.zeros(n_legs, dtype=np.int64), np.zeros(len(ORDER_STATE), dtype=np.int64),
    )  # fmt: skip
    order.state[ACTION] = -1
    order.state[CLOSE_FROM] = -1
    counts, position, held = account.counts, account.position_base, account.held_base
    counts[ENTRY_BAR], counts[EXIT_BAR] = -1, -1
    counts[SENDING_DAY], counts[LAST_ARRIVAL] = -1, -1
    account.sums[CASH], account.sums[MIN_MARGIN_RATIO] = size.capital_usd, math.inf
    if not wallets.is_split:
        account.wallet_cash_usd[0] = size.capital_usd
    entry_equity, equity = size.capital_usd, size.capital_usd

    state, before, books = order.state, account.before_base, account.books
    close_price, signal, first_settlement = market.close_price, market.signal, market.first_settlement
    # bare arrays: handing a struct to a function for every bar would count the references of all its arrays
    margin_open, margin_high, margin_low = market.margin_open, market.margin_high, market.margin_low
    cash, weight, is_margined = account.wallet_cash_usd, wallets.weight, wallets.is_margined
    floor_usd, mmr, amount_usd, open_price = wallets.floor_usd, wallets.mmr, wallets.amount_usd, market.open_price

    for bar in range(n_bars):
        # 1. arrivals
        if wallets.is_split and (account.sums[IN_FLIGHT] != 0.0 or account.sums[QUEUED] > 0.0):
            receive(bar, account)
            send_queued(bar, account, wallets)

        # 2. accruals
        if first_settlement[bar + 1] > first_settlement[bar]:
            status = accrue(bar, account, market, out)
            if status != OK:
                return totals_of(status, bar, account)

        # 3. decision
        direction = counts[HELD_DIRECTION]
        if state[ACTION] < 0 and direction == 0:
            wanted = entry_direction(signal[bar], rule)
            if wanted != 0 and (counts[EXIT_BAR] < 0 or bar - counts[EXIT_BAR] >= rule.cooldown_bars):
                sized_on = decide_entry(
                    bar, wanted, order, account, market, combo, rule, size, costs, fills, wallets, out
                )
                if sized_on > 0.0:
                    entry_equity = sized_on
        elif state[ACTION] < 0:
            reason = exit_reason(signal[bar], direction, bar - counts[ENTRY_BAR], equity, entry_equity, rule)
            if reason != HOLD:
                decide_exit(bar, reason, order, account, market, fills, out)
            elif wallets.rebalance_below > 0.0:
                least_ratio, _ = margin_state(
                    bar, cash, held, open_price, open_price, open_price, weight, is_margined, floor_usd, mmr, amount_usd
                )
                if least_ratio < wallets.rebalance_below and is_settled(bar, account):
                    decide_resize(bar, order, account, market, combo, size, fills, wallets, out)

        # 4. fill
        for leg in range(n_legs):
            before[leg], account.change_base[leg] = position[leg], 0.0
        action = state[ACTION]
        is_worked = action >= 0
        if is_worked:
            status = work_order(bar, order, account, market, combo, costs, fills, out)
            if status != OK:
                return totals_of(status, bar, account)
            for leg in range(n_legs):
                held[leg] = position[leg] + order.excess_base[leg]
            if action == RESIZE and state[ACTION] < 0:
                price = market.open_price[bar]
                plan_transfers(account, combo, wallets, price, equity_usd(account.sums[CASH], held, price))
                send_queued(bar, account, wallets)

        # 5. intrabar risk
        if wallets.is_tested and (is_worked or counts[HELD_DIRECTION] != 0):
            least_ratio, is_safe = margin_state(
                bar, cash, held, margin_open, margin_high, margin_low, weight, is_margined, floor_usd, mmr, amount_usd
            )
            account.sums[MIN_MARGIN_RATIO] = min(account.sums[MIN_MARGIN_RATIO], least_ratio)
            if not is_safe:
                check_margins(bar, order, account, market, combo, wallets, out)
        if not is_hedged(held, combo.ratio):
            counts[N_NAKED_BARS] += 1

        # 6. mark
        if bar > 0:
            book_held(books, before, close_price[bar - 1], close_price[bar], combo.reference_leg)
        if is_worked:
            book_order(bar, order, account, close_price, combo.reference_leg)
        equity = equity_usd(account.sums[CASH], held, close_price[bar])
        out.equity_usd[bar] = equity
        out.cash_usd[bar] = account.sums[CASH]
        out.position_base[bar] = held
        out.leg_cash_usd[bar] = account.leg_cash_usd
        out.wallet_cash_usd[bar] = account.wallet_cash_usd
        out.in_flight_usd[bar] = account.sums[IN_FLIGHT]
        out.stale[bar] = is_stale(held, market.missing[bar])
        out.direction[bar] = counts[HELD_DIRECTION]
        out.books[bar] = books
    return totals_of(OK, -1, account)
