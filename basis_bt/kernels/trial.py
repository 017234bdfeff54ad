"""One backtest of one parameter set.

The order of events in a bar, as in SPEC 2:

1. arrivals: none in a pooled wallet without dated legs
2. accruals: the settlements of the bar, on the position held before its fills
3. decision: on what was known at the stamp, unless an order is in flight
4. fill: of the order in flight, when its latency is over and every leg can be traded
5. intrabar risk: none in this release
6. mark: equity at the closes, and the books
"""

import math

import numpy as np

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.books import book_price_move, equity_usd
from basis_bt.kernels.fills import all_tradable, fill_leg, net_share
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.rule import HOLD, entry_direction, exit_reason
from basis_bt.kernels.sizing import combo_quantity, meets_minimums
from basis_bt.kernels.status import MARK_MISSING, OK
from basis_bt.kernels.structs import (
    ENTRY,
    EXIT,
    FUNDING,
    MAX_BASIS,
    MIN_NOTIONAL,
    N_BOOKS,
    REFUSED,
    SIGNAL,
    SIZE,
    UNTRADABLE,
    WAITING,
    Totals,
)


@kernel
def refusal(quantity, ratio, arrival_price, basis_bps, rule, size):
    """Why an entry may not be sent, or -1."""
    if not math.isnan(rule.max_basis_bps) and not abs(basis_bps) <= rule.max_basis_bps:
        return MAX_BASIS
    if not quantity > 0.0:
        return SIZE
    if not meets_minimums(quantity, ratio, arrival_price, size.min_notional_usd):
        return MIN_NOTIONAL
    return -1


@kernel
def write_event(out, n_events, bar, event, reason, direction, quantity):
    """Append an event; returns the new number of events."""
    row = out.event_index[n_events]
    row[0], row[1], row[2], row[3] = bar, event, reason, direction
    out.event_quantity[n_events] = quantity
    return n_events + 1


@kernel
def book_prices(bar, market, reference, held_before, filled, change, arrival, books):
    """Price PnL of a bar: of what was held, from close to close; of what was filled, from its arrival prices."""
    close, reference_close = market.close_price[bar], market.close_price[bar, reference]
    for leg in range(len(change)):
        if bar > 0:
            before = market.close_price[bar - 1]
            book_price_move(books, leg, held_before[leg], before[leg], close[leg], before[reference], reference_close)
        if filled:
            book_price_move(books, leg, change[leg], arrival[leg], close[leg], arrival[reference], reference_close)


@kernel
def is_stale(position, missing):
    """Whether a held leg has no bar."""
    for leg in range(len(position)):
        if position[leg] != 0.0 and missing[leg]:
            return True
    return False


@kernel
def run_trial(market, combo, rule, size, costs, fills, out):
    """Run the bars and record them; shapes and meanings in ``structs.py``, the order of events above."""
    n_bars, n_legs = market.close_price.shape
    ratio, reference = combo.ratio, combo.reference_leg
    cash = size.capital_usd
    position = np.zeros(n_legs)
    leg_cash = np.zeros(n_legs)
    books = np.zeros((n_legs, N_BOOKS))
    arrival = np.zeros(n_legs)
    change = np.zeros(n_legs)
    held_before = np.zeros(n_legs)
    direction, order_direction, order_action, order_reason = 0, 0, -1, -1
    order_quantity, decision_bar, waits = 0.0, -1, False
    entry_bar, exit_bar = -1, -1
    entry_equity, cash_before_entry, equity_before = size.capital_usd, cash, size.capital_usd
    n_fills, n_events, n_trades, n_refused, turnover = 0, 0, 0, 0, 0.0

    for bar in range(n_bars):
        # 2. accruals
        for k in range(market.first_settlement[bar], market.first_settlement[bar + 1]):
            leg = market.settlement_leg[k]
            out.settlement_position[k] = position[leg]
            if position[leg] != 0.0:
                paid = funding_usd(position[leg], market.mark_price[k], market.funding_rate[k])
                if not math.isfinite(paid):
                    return Totals(MARK_MISSING, bar, n_fills, n_events, n_trades, n_refused, turnover)
                cash += paid
                leg_cash[leg] += paid
                books[leg, FUNDING] += paid

        # 3. decision
        if order_action < 0:
            if direction == 0:
                wanted = entry_direction(market.signal[bar], rule)
                if wanted != 0 and (exit_bar < 0 or bar - exit_bar >= rule.cooldown_bars):
                    for leg in range(n_legs):
                        arrival[leg] = market.open_price[bar, leg]
                    equity = equity_usd(cash, position, arrival) if size.compounding else size.capital_usd
                    quantity = combo_quantity(equity, ratio, arrival, combo.margin_weight, size)
                    reason = refusal(quantity, ratio, arrival, market.basis_bps[bar], rule, size)
                    if reason >= 0:
                        n_refused += 1
                        n_events = write_event(out, n_events, bar, REFUSED, reason, wanted, quantity)
                    else:
                        share = net_share(wanted, ratio, costs.base_fee_frac)
                        for leg in range(n_legs):
                            change[leg] = wanted * ratio[leg] * (quantity * share)
                        order_action, order_reason, order_direction = ENTRY, SIGNAL, wanted
                        order_quantity, decision_bar, waits = quantity * share, bar, False
                        entry_equity = equity
                        n_events = write_event(out, n_events, bar, ENTRY, SIGNAL, wanted, order_quantity)
            else:
                reason = exit_reason(market.signal[bar], direction, bar - entry_bar, equity_before, entry_equity, rule)
                if reason != HOLD:
                    for leg in range(n_legs):
                        arrival[leg] = market.open_price[bar, leg]
                        change[leg] = -position[leg]
                    order_action, order_reason, order_direction = EXIT, reason, direction
                    decision_bar, waits = bar, False
                    n_events = write_event(out, n_events, bar, EXIT, reason, direction, order_quantity)

        # 4. fill
        for leg in range(n_legs):
            held_before[leg] = position[leg]
        filled = False
        if order_action >= 0 and bar >= decision_bar + fills.latency_bars:
            if all_tradable(market.tradable[bar]):
                filled = True
                if order_action == ENTRY:
                    n_trades += 1
                    cash_before_entry = cash
                for leg in range(n_legs):
                    status, notional, fee = fill_leg(
                        bar, leg, change[leg], arrival[leg], market, costs, books, out.fill_values[n_fills]
                    )
                    if status != OK:
                        return Totals(status, bar, n_fills, n_events, n_trades, n_refused, turnover)
                    paid = -notional if change[leg] > 0.0 else notional
                    cash = cash + paid - fee
                    leg_cash[leg] += paid - fee
                    turnover += notional
                    row = out.fill_index[n_fills]
                    row[0], row[1], row[2], row[3] = bar, leg, n_trades, order_action
                    row[4], row[5], row[6] = order_reason, decision_bar, 1 if change[leg] > 0.0 else -1
                    n_fills += 1
                    position[leg] = position[leg] + change[leg] if order_action == ENTRY else 0.0
                trade = out.trade_bars[n_trades - 1]
                if order_action == ENTRY:
                    direction, entry_bar = order_direction, bar
                    trade[0], trade[1], trade[2], trade[3] = bar, -1, direction, -1
                    out.trade_values[n_trades - 1, 0] = order_quantity
                else:
                    direction, exit_bar = 0, bar
                    trade[1], trade[3] = bar, order_reason
                    out.trade_values[n_trades - 1, 1] = cash - cash_before_entry
                order_action = -1
            elif not waits:
                waits = True
                n_events = write_event(out, n_events, bar, WAITING, UNTRADABLE, order_direction, order_quantity)

        # 6. mark
        book_prices(bar, market, reference, held_before, filled, change, arrival, books)
        equity_before = equity_usd(cash, position, market.close_price[bar])
        out.equity_usd[bar] = equity_before
        out.cash_usd[bar] = cash
        out.position_base[bar] = position
        out.leg_cash_usd[bar] = leg_cash
        out.stale[bar] = is_stale(position, market.missing[bar])
        out.direction[bar] = direction
        out.books[bar] = books
    return Totals(OK, -1, n_fills, n_events, n_trades, n_refused, turnover)
