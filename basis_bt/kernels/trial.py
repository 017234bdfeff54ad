"""One backtest of one parameter set.

The order of events in a bar, as in docs/semantics.md:

1. arrivals: cash is worth what its currency is, transfers reach their wallet, queued ones are sent, futures delivered
2. accruals: contract dollars revalued, the settlements of the bar on the position held before its fills, interest on
   borrowed spot and on idle cash, growth of indices
3. decision: on what was known at the stamp, unless an order is in flight; else whether a wallet needs cash
4. fill: rolls, then the order in flight, as far as the bar gives it
5. intrabar risk: deleveraging, then the margin of each wallet and the health of loans at the bar's worst prices
6. mark: equity at the closes, and the books
"""

import math

import numpy as np

from basis_bt.kernels._jit import inner_kernel, kernel
from basis_bt.kernels.books import book_price_move, equity_usd
from basis_bt.kernels.contracts import (
    accrue_borrow,
    accrue_cash,
    accrue_fx,
    accrue_growth,
    refresh_margin,
    revalue_face,
)
from basis_bt.kernels.deleverage import deleverage
from basis_bt.kernels.delivery import deliver, roll
from basis_bt.kernels.fees import set_fees, with_own_fees
from basis_bt.kernels.fills import cost_components_bps, gross_base, net_share
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.loans import check_loans
from basis_bt.kernels.margin_call import check_margins, margin_state
from basis_bt.kernels.open_account import new_account, new_order
from basis_bt.kernels.orders import is_hedged, send, work_order, write_event
from basis_bt.kernels.rule import HOLD, entry_direction, exit_reason
from basis_bt.kernels.sizing import combo_quantity, is_capital, meets_minimums
from basis_bt.kernels.status import MARK_MISSING, OK
from basis_bt.kernels.structs import (
    ACTION,
    ARRIVAL,
    ATTEMPT_BASIS,
    ATTEMPT_DELTA,
    BEFORE,
    CASH,
    CASH_BEFORE_ENTRY,
    CHANGE,
    CLOSE_FROM,
    DROPPED_BAR,
    ENTRY,
    ENTRY_BAR,
    EXCESS,
    EXCESS_PRICE,
    EXIT,
    EXIT_BAR,
    EXPIRED,
    FACE,
    FILL_BAR,
    FILLED,
    FROM_PRICE,
    FUNDED,
    FUNDING,
    GAS,
    HEDGE_RATIO,
    HELD,
    HELD_DIRECTION,
    IN_FLIGHT,
    IS_SPLIT,
    LEG_CASH,
    MARGIN,
    MAX_BASIS,
    MAX_COST,
    MAX_SPREAD,
    MAX_VOLUME_SHARE,
    MIN_HEALTH,
    MIN_MARGIN_RATIO,
    MIN_NOTIONAL,
    N_BOOKS,
    N_EVENTS,
    N_FILLS,
    N_LIQUIDATIONS,
    N_NAKED_BARS,
    N_REFUSED,
    N_ROLLBACKS,
    N_ROLLS,
    N_TRADES,
    N_UNFILLED,
    NOTIONAL,
    POSITION,
    QUEUED,
    RATE,
    REASON,
    REFUSED,
    RESIZE,
    ROLLBACK_PRICE,
    SIGNAL,
    SIZE,
    START_BAR,
    TURNOVER,
    WANT,
    Totals,
)
from basis_bt.kernels.wallets import is_settled, pay, plan_transfers, receive, send_queued, split


@inner_kernel
def refusal(bar, quantity, ratio, arrival_price, market, rule, size, costs, fills, contracts):
    """Why an entry may not be sent, or -1: an expired leg, the rule, the size, then the pre-flight of its costs."""
    for leg in range(len(ratio)):
        if 0 <= contracts.delivery_bar[leg] <= bar:
            return EXPIRED
    if not math.isnan(rule.max_basis_bps) and not abs(market.basis_bps[bar]) <= rule.max_basis_bps:
        return MAX_BASIS
    if not quantity > 0.0:
        return SIZE
    if not meets_minimums(quantity, ratio, arrival_price, size.min_notional_usd):
        return MIN_NOTIONAL
    if fills.max_cost_bps < math.inf or fills.max_volume_share < math.inf or fills.max_spread_bps < math.inf:
        return preflight(bar, quantity, ratio, arrival_price, market, costs, fills)
    return -1


@inner_kernel
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


@inner_kernel
def accrue(bar, account, market, out):
    """Pay the settlements of a bar on what is held; returns a status."""
    for k in range(market.first_settlement[bar], market.first_settlement[bar + 1]):
        leg = market.settlement_leg[k]
        held = account.legs[HELD, leg]
        out.settlement_position[k] = held
        if held != 0.0:
            if account.is_inverse[leg]:
                paid = -account.legs[FACE, leg] * market.funding_rate[k]
            else:
                paid = funding_usd(held, market.mark_price[k], market.funding_rate[k])
            if not math.isfinite(paid):
                return MARK_MISSING
            pay(account, leg, paid)
            account.books[leg, FUNDING] += paid
            out.settlement_usd[k] = paid
    return OK


@inner_kernel
def decide_entry(bar, wanted, order, account, market, combo, rule, size, costs, fills, wallets, contracts, log):
    """Send the entry the rule wants, if nothing speaks against it; returns the equity it was sized on, or NaN."""
    ratio, arrival = combo.ratio, order.legs[ARRIVAL]
    for leg in range(len(ratio)):
        account.legs[HEDGE_RATIO, leg] = ratio[leg]
        arrival[leg] = market.open_price[bar, leg]
    own = equity_usd(account.sums[CASH], account.legs[POSITION], arrival)
    equity = own if size.compounding else size.capital_usd
    quantity = combo_quantity(equity, ratio, arrival, combo.margin_weight, size) if is_capital(own, size) else 0.0
    reason = refusal(bar, quantity, ratio, arrival, market, rule, size, costs, fills, contracts)
    if reason >= 0:
        account.counts[N_REFUSED] += 1
        write_event(log, account, bar, REFUSED, reason, wanted, quantity)
        return math.nan
    share = net_share(wanted, ratio, costs.base_fee_frac)
    for leg in range(len(ratio)):
        order.legs[WANT, leg] = wanted * ratio[leg] * (quantity * share)
    account.sums[CASH_BEFORE_ENTRY] = account.sums[CASH]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, ENTRY, SIGNAL, wanted, quantity * share, log)
    if wallets.is_split:
        fund(bar, order, account, combo, wallets, arrival)
    return equity


@inner_kernel
def fund(bar, order, account, combo, wallets, price):
    """Bring the wallets to their targets for an entry, which waits for the cash; the first time it is there."""
    equity = equity_usd(account.sums[CASH], account.legs[HELD], price)
    if not account.counts[IS_SPLIT]:
        split(account, combo, price, equity)
        return
    plan_transfers(account, combo, wallets, price, equity)
    send_queued(bar, account, wallets)
    order.state[FUNDED] = 0


@inner_kernel
def decide_resize(bar, order, account, market, combo, size, fills, wallets, log):
    """A wallet's margin runs low: make the combo as small as its equity bears, and move cash where it is short."""
    price, held = market.open_price[bar], account.legs[HELD]
    equity = equity_usd(account.sums[CASH], held, price)
    target = combo_quantity(equity, combo.ratio, price, combo.margin_weight, size) if is_capital(equity, size) else 0.0
    units = 0.0
    for leg in range(len(held)):
        units = max(units, abs(held[leg] / account.legs[HEDGE_RATIO, leg]))
    if not target > 0.0:
        decide_exit(bar, MARGIN, order, account, market, fills, log)
        return
    if target >= units:
        plan_transfers(account, combo, wallets, price, equity)
        send_queued(bar, account, wallets)
        return
    direction = account.counts[HELD_DIRECTION]
    for leg in range(len(held)):
        order.legs[ARRIVAL, leg] = price[leg]
        order.legs[WANT, leg] = (
            -direction * account.legs[HEDGE_RATIO, leg] * (units - target) if held[leg] != 0.0 else 0.0
        )
    send(order, account, bar, bar + fills.latency_bars.min(), RESIZE, MARGIN, direction, units - target, log)


@inner_kernel
def decide_exit(bar, reason, order, account, market, fills, log):
    """Send the exit the rule wants: all that is held."""
    for leg in range(len(order.legs[WANT])):
        order.legs[ARRIVAL, leg] = market.open_price[bar, leg]
        order.legs[WANT, leg] = -account.legs[POSITION, leg]
    quantity = log.trade_values[account.counts[N_TRADES] - 1, 0]
    ready_bar = bar + fills.latency_bars.min()
    send(order, account, bar, ready_bar, EXIT, reason, account.counts[HELD_DIRECTION], quantity, log)


@kernel
def book_held(books, position_base, before, close, reference):
    """Price PnL of a bar on what was held all through it, from close to close."""
    for leg in range(len(close)):
        held = position_base[leg]
        if held != 0.0:
            book_price_move(books, leg, held, before[leg], close[leg], before[reference], close[reference])


@inner_kernel
def book_order(bar, order, account, close_price, reference):
    """Price PnL of a bar on what an order filled, on the parts of an attempt, and on what is to be closed again."""
    close, books, start_price = close_price[bar], account.books, account.legs[FROM_PRICE]
    before = close_price[max(bar - 1, 0)]
    is_open_attempt = order.state[ACTION] >= 0 and order.state[START_BAR] >= 0 and order.state[CLOSE_FROM] < 0
    for leg in range(len(close)):
        change = account.legs[CHANGE, leg]
        if change != 0.0:
            book_price_move(books, leg, change, start_price[leg], close[leg], start_price[reference], close[reference])
        if is_open_attempt and order.legs[FILLED, leg] != 0.0:
            start = start_price if order.marks[FILL_BAR, leg] == bar else before
            reference_move = close[reference] - start[reference]
            order.legs[ATTEMPT_DELTA, leg] += order.legs[FILLED, leg] * reference_move
            order.legs[ATTEMPT_BASIS, leg] += order.legs[FILLED, leg] * ((close[leg] - start[leg]) - reference_move)
        excess = order.legs[EXCESS, leg]
        if excess != 0.0:
            books[leg, ROLLBACK_PRICE] -= excess * (close[leg] - order.legs[EXCESS_PRICE, leg])
            order.legs[EXCESS_PRICE, leg] = close[leg]
            if account.counts[DROPPED_BAR] == bar:
                order.legs[EXCESS, leg] = 0.0


@kernel
def is_stale(position, missing):
    """Whether a held leg has no bar."""
    for leg in range(len(position)):
        if position[leg] != 0.0 and missing[leg]:
            return True
    return False


@inner_kernel
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
        counts[N_ROLLS],
        account.sums[MIN_MARGIN_RATIO],
        account.sums[MIN_HEALTH],
        account.sums[TURNOVER],
    )


@kernel
def is_moved(rate, bar):
    """Whether any rate differs from that of the bar before."""
    for column in range(rate.shape[1]):
        if rate[bar, column] != rate[bar - 1, column]:
            return True
    return False


@kernel
def is_short(held_base, borrow_period_hours):
    """Whether anything that pays interest is borrowed."""
    for leg in range(len(held_base)):
        if held_base[leg] < 0.0 and borrow_period_hours[leg] > 0.0:
            return True
    return False


@kernel
def bars_with(by_leg):
    """The bars in which anything of ``(n_bars, n_legs)`` is not zero."""
    out = np.zeros(len(by_leg), dtype=np.bool_)
    for bar in range(len(by_leg)):
        for leg in range(by_leg.shape[1]):
            out[bar] |= by_leg[bar, leg] != 0
    return out


@kernel
def delivery_bars(n_bars, delivery_bar):
    """The bars in which a leg is delivered."""
    out = np.zeros(n_bars, dtype=np.bool_)
    for leg in range(len(delivery_bar)):
        if delivery_bar[leg] >= 0:
            out[delivery_bar[leg]] = True
    return out


@kernel
def run_trial(market, combo, rule, size, cost_rules, fees, fills, wallets, contracts, out):
    """Run the bars and record them; shapes and meanings in ``structs.py``, the order of events above."""
    n_bars, n_legs = market.close_price.shape
    costs = with_own_fees(cost_rules)
    account, order = new_account(n_bars, n_legs, size, combo.ratio, wallets, contracts), new_order(n_legs)
    log = out.log
    counts, position, held = account.counts, account.legs[POSITION], account.legs[HELD]
    entry_equity, equity = size.capital_usd, size.capital_usd

    state, before, books = order.state, account.legs[BEFORE], account.books
    close_price, signal, first_settlement = market.close_price, market.signal, market.first_settlement
    # bare arrays: handing a struct to a function for every bar would count the references of all its arrays
    margin_open, margin_high, margin_low = market.margin_open, market.margin_high, market.margin_low
    cash, weight, is_margined = account.wallet_cash_usd, account.weight, wallets.is_margined
    notional, margin_row, open_price = account.legs[NOTIONAL], wallets.margin_row, market.open_price
    floor_usd, mmr, amount_usd = wallets.floor_usd[0], wallets.mmr[0], wallets.amount_usd[0]
    has_fx, has_inverse = len(contracts.wallet_rate) > 0, contracts.is_inverse.any()
    has_growth, has_borrow = len(contracts.growth) > 0, contracts.borrow_period_hours.max() > 0.0
    has_delivery, has_rolls = contracts.delivery_bar.max() >= 0, len(contracts.is_roll) > 0
    has_adl, has_loans, has_gas = len(contracts.adl_share) > 0, contracts.loan_of.max() >= 0, len(contracts.gas_usd) > 0
    cum_usd = np.zeros((int(wallets.day[-1] - wallets.day[0]) + 1 if fees.is_by_volume else 0, n_legs))
    has_fee_rows = fees.is_by_volume or len(fees.fee_bps) > 1
    legs, excess, sums, wallet_of = account.legs, order.legs[EXCESS], account.sums, account.wallet_of
    rate_open, rate_close, rate_before = contracts.rate_open, contracts.rate_close, contracts.rate_before
    wallet_rate, borrow_period, cash_yield_frac = (
        contracts.wallet_rate, contracts.borrow_period_hours, contracts.cash_yield_frac
    )  # fmt: skip
    day, fee_row = wallets.day, fees.row
    is_delivery, is_roll_bar = delivery_bars(n_bars, contracts.delivery_bar), bars_with(contracts.is_roll)
    is_adl_bar, is_growing = bars_with(contracts.adl_share), bars_with(contracts.growth)
    row = -1

    for bar in range(n_bars):
        if bar == 0 or (has_fee_rows and (day[bar] != day[bar - 1] or fee_row[bar] != fee_row[bar - 1])):
            set_fees(bar, fees, wallets.day, cum_usd, account, costs)
        if margin_row[bar] != row:
            row = margin_row[bar]
            floor_usd, mmr, amount_usd = wallets.floor_usd[row], wallets.mmr[row], wallets.amount_usd[row]
        if has_gas:
            for leg in range(n_legs):
                account.legs[GAS, leg] = contracts.gas_usd[bar, leg]

        # 1. arrivals, after what cash itself has gained in dollars
        if has_fx and bar > 0 and is_moved(wallet_rate, bar):
            accrue_fx(bar, account, wallets, contracts)
        if wallets.is_split and (account.sums[IN_FLIGHT] != 0.0 or account.sums[QUEUED] > 0.0):
            receive(bar, account)
            send_queued(bar, account, wallets)
        if has_delivery and is_delivery[bar]:
            deliver(bar, order, account, market, combo, fills, contracts, log)

        # 2. accruals
        if has_inverse:
            for leg in range(n_legs):
                if account.is_inverse[leg]:
                    if legs[FACE, leg] != 0.0:
                        earlier = rate_close[bar - 1, leg]
                        revalue_face(leg, earlier, rate_before[bar, leg], legs, excess, books, sums, cash, wallet_of)
                    legs[RATE, leg] = rate_open[bar, leg]
        if first_settlement[bar + 1] > first_settlement[bar]:
            status = accrue(bar, account, market, out)
            if status != OK:
                return totals_of(status, bar, account)
        if has_borrow and is_short(held, borrow_period):
            accrue_borrow(bar, account, market, contracts)
        if cash_yield_frac != 0.0 and bar > 0:
            is_apart = wallets.is_split and not counts[IS_SPLIT]
            accrue_cash(bar, is_apart, cash_yield_frac, legs, books, sums, cash, wallet_of, is_margined, close_price)
        if has_growth and is_growing[bar]:
            accrue_growth(bar, order, account, market, contracts)
        if has_inverse or (has_delivery and is_delivery[bar]):
            refresh_margin(account, wallets)

        # 3. decision
        direction = counts[HELD_DIRECTION]
        if state[ACTION] < 0 and direction == 0:
            wanted = entry_direction(signal[bar], rule)
            if wanted != 0 and (counts[EXIT_BAR] < 0 or bar - counts[EXIT_BAR] >= rule.cooldown_bars):
                sized_on = decide_entry(
                    bar, wanted, order, account, market, combo, rule, size, costs, fills,
                    wallets, contracts, log,
                )  # fmt: skip
                if sized_on > 0.0:
                    entry_equity = sized_on
        elif state[ACTION] < 0:
            reason = exit_reason(signal[bar], direction, bar - counts[ENTRY_BAR], equity, entry_equity, rule)
            if reason != HOLD:
                decide_exit(bar, reason, order, account, market, fills, log)
            elif wallets.rebalance_below > 0.0:
                least_ratio, _ = margin_state(
                    bar, cash, held, open_price, open_price, open_price, weight, is_margined, notional, floor_usd, mmr,
                    amount_usd,
                )  # fmt: skip
                if least_ratio < wallets.rebalance_below and is_settled(bar, account):
                    decide_resize(bar, order, account, market, combo, size, fills, wallets, log)

        # 4. fill
        for leg in range(n_legs):
            before[leg], account.legs[CHANGE, leg] = position[leg], 0.0
            if counts[DROPPED_BAR] == bar:
                before[leg] -= order.legs[EXCESS, leg]
        is_rolled = has_rolls and is_roll_bar[bar]
        if is_rolled:
            for leg in range(n_legs):
                if contracts.is_roll[bar, leg]:
                    status = roll(bar, leg, order, account, market, costs, contracts, log)
                    if status != OK:
                        return totals_of(status, bar, account)
        action = state[ACTION]
        is_worked = action >= 0
        if is_worked:
            for leg in range(n_legs):
                account.legs[FROM_PRICE, leg] = order.legs[ARRIVAL, leg]
            status = work_order(bar, order, account, market, costs, fills, log)
            if status != OK:
                return totals_of(status, bar, account)
            for leg in range(n_legs):
                held[leg] = position[leg]
                if counts[DROPPED_BAR] != bar:
                    held[leg] += order.legs[EXCESS, leg]
            if action == RESIZE and state[ACTION] < 0 and state[REASON] == MARGIN:
                price = market.open_price[bar]
                plan_transfers(account, combo, wallets, price, equity_usd(account.sums[CASH], held, price))
                send_queued(bar, account, wallets)
        if is_worked or is_rolled:
            refresh_margin(account, wallets)

        # 5. intrabar risk
        if has_adl and is_adl_bar[bar]:
            deleverage(bar, order, account, market, combo, contracts, log)
            refresh_margin(account, wallets)
        if wallets.is_tested and (is_worked or counts[HELD_DIRECTION] != 0):
            least_ratio, is_safe = margin_state(
                bar, cash, held, margin_open, margin_high, margin_low, weight, is_margined, notional, floor_usd, mmr,
                amount_usd,
            )  # fmt: skip
            account.sums[MIN_MARGIN_RATIO] = min(account.sums[MIN_MARGIN_RATIO], least_ratio)
            if not is_safe:
                check_margins(bar, order, account, market, combo, wallets, log)
                refresh_margin(account, wallets)
            if has_loans:
                check_loans(bar, order, account, market, combo, contracts, log)
        if not is_hedged(held, account.legs[HEDGE_RATIO]):
            counts[N_NAKED_BARS] += 1

        # 6. mark
        if has_inverse:
            for leg in range(n_legs):
                if legs[FACE, leg] != 0.0:
                    earlier = rate_open[bar, leg]
                    revalue_face(leg, earlier, rate_close[bar, leg], legs, excess, books, sums, cash, wallet_of)
        if bar > 0:
            book_held(books, before, close_price[bar - 1], close_price[bar], combo.reference_leg)
        if is_worked:
            book_order(bar, order, account, close_price, combo.reference_leg)
        equity = equity_usd(account.sums[CASH], held, close_price[bar])
        out.equity_usd[bar] = equity
        out.cash_usd[bar] = account.sums[CASH]
        for leg in range(n_legs):
            out.position_base[bar, leg] = held[leg]
            out.leg_cash_usd[bar, leg] = account.legs[LEG_CASH, leg]
            for book in range(N_BOOKS):
                out.books[bar, leg, book] = books[leg, book]
        for wallet in range(len(cash)):
            out.wallet_cash_usd[bar, wallet] = cash[wallet]
        out.in_flight_usd[bar] = account.sums[IN_FLIGHT]
        out.stale[bar] = is_stale(held, market.missing[bar])
        out.direction[bar] = counts[HELD_DIRECTION]
    return totals_of(OK, -1, account)
