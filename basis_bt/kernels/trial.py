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
from basis_bt.kernels.books import equity_usd
from basis_bt.kernels.contracts import (
    accrue_borrow,
    accrue_cash,
    accrue_fx,
    accrue_growth,
    refresh_margin,
    revalue_face,
)
from basis_bt.kernels.decisions import decide_entry, decide_exit, decide_resize
from basis_bt.kernels.deleverage import deleverage
from basis_bt.kernels.delivery import deliver, roll
from basis_bt.kernels.fees import set_fees, with_own_costs
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.happenings import bars_with, delivery_bars, is_moved, is_short
from basis_bt.kernels.loans import check_loans
from basis_bt.kernels.margin_call import check_margins, margin_state
from basis_bt.kernels.marking import book_held, book_order, is_stale
from basis_bt.kernels.open_account import new_account, new_order
from basis_bt.kernels.orders import is_hedged, work_order
from basis_bt.kernels.rule import HOLD, entry_direction, exit_reason
from basis_bt.kernels.status import MARK_MISSING, OK
from basis_bt.kernels.structs import (
    ACTION,
    ARRIVAL,
    BEFORE,
    CASH,
    CHANGE,
    DROPPED_BAR,
    ENTRY_BAR,
    EXCESS,
    EXIT_BAR,
    FACE,
    FROM_PRICE,
    FUNDING,
    GAS,
    HEDGE_RATIO,
    HELD,
    HELD_DIRECTION,
    IN_FLIGHT,
    IS_SPLIT,
    LEG_CASH,
    MARGIN,
    MIN_HEALTH,
    MIN_MARGIN_RATIO,
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
    RESIZE,
    TURNOVER,
    Totals,
)
from basis_bt.kernels.wallets import is_settled, pay, plan_transfers, receive, send_queued


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
def run_trial(market, combo, rule, size, cost_rules, fees, fills, wallets, contracts, out):
    """Run the bars and record them; shapes and meanings in ``structs.py``, the order of events above."""
    n_bars, n_legs = market.close_price.shape
    costs = with_own_costs(cost_rules)
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
