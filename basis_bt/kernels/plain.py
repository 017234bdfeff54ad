"""A plain trial: two legs in one wallet that certainly fill together, and no margin test.

The numbers are those of ``trial.py`` to the last bit, at a fraction of its time: bars without a position are jumped
over (a block of the signal whose extremes are within the thresholds is not looked at), the bar of an exit is known when
a position is entered, and nothing is recorded but what metrics are made of.
"""

import math
from typing import NamedTuple

import numpy as np

from basis_bt.kernels._jit import inlined_kernel, kernel
from basis_bt.kernels.books import book_price_move
from basis_bt.kernels.decisions import entry_refusal, has_preflight, preflight
from basis_bt.kernels.fees import set_fee
from basis_bt.kernels.fills import book_costs, net_share, take_leg
from basis_bt.kernels.funding import funding_usd
from basis_bt.kernels.metrics import Sums
from basis_bt.kernels.search import Alike, next_entry, next_exit
from basis_bt.kernels.sizing import combo_quantity, is_capital
from basis_bt.kernels.status import MARK_MISSING, OK
from basis_bt.kernels.structs import BASIS, DELTA, FUNDING, N_BOOKS, Totals
from basis_bt.kernels.track import Track, draw_curve, track_flat, track_held


class Paid(NamedTuple):
    """Settlements: ``first`` of each bar ``(n_bars + 1,)``; of each its ``bar`` (then ``n_bars``), leg, mark, rate."""

    first: np.ndarray
    bar: np.ndarray
    leg: np.ndarray
    mark_price: np.ndarray
    rate: np.ndarray


class Scratch(NamedTuple):
    """Room for one trial: equity of held bars by bar, returns that are not zero, a fill, books and prices by leg.

    ``curve_usd`` is the equity of the last fresh row at each bar, or has no rows if nobody asks for it.
    """

    equity_usd: np.ndarray
    curve_usd: np.ndarray
    moved: np.ndarray
    fill_values: np.ndarray
    books: np.ndarray
    want: np.ndarray
    arrival: np.ndarray


@kernel
def new_scratch(n_bars, is_sampled):
    """Room for a trial of two legs, with or without its curve."""
    return Scratch(
        np.empty(n_bars), np.empty(n_bars if is_sampled else 0), np.empty(n_bars), np.empty(10),
        np.zeros((2, N_BOOKS)), np.empty(2), np.empty(2),
    )  # fmt: skip


@inlined_kernel
def fill_legs(bar, market, costs, scratch, cash_usd, turnover_usd):
    """Fill both legs of an order at the open of a bar; returns status, cash and turnover."""
    for leg in range(2):
        values, change = scratch.fill_values, scratch.want[leg]
        status = take_leg(
            change, scratch.arrival[leg], market.open_price[bar, leg], 0.0, 1.0, market.volume_before[bar, leg],
            costs.half_spread_bps[leg], costs.bucket_usd[leg], costs.bucket_bps[leg, costs.bucket_row[bar]],
            costs.impact_coef_bps[leg], costs.impact_exponent, costs.fee_bps[leg], costs.base_fee_frac[leg], values,
        )  # fmt: skip
        if status != OK:
            return status, cash_usd, turnover_usd
        notional = values[0] * values[4]
        is_buy = change > 0.0
        fee = 0.0 if is_buy and costs.base_fee_frac[leg] != 0.0 else values[9]
        cash_usd = cash_usd + (-notional if is_buy else notional) - fee
        turnover_usd += notional
        book_costs(scratch.books, leg, values)
    return OK, cash_usd, turnover_usd


@inlined_kernel
def hold(first, end, cash_usd, stop_usd, p0, p1, reference, close_price, paid, scratch, notional_usd):
    """Hold two positions through bars ``first`` to ``end``, or up to the one after which the stop is hit.

    Pays settlements, marks the bars into ``scratch.equity_usd`` and books them; returns status, the bar after the last
    one held, cash and the sum of notionals.
    """
    if first >= end:
        return OK, first, cash_usd, notional_usd
    books, rows, out = scratch.books, close_price[first - 1 : end], scratch.equity_usd[first:end]
    other = 1 - reference  # the reference leg has no basis
    p_other = p1 if other == 1 else p0
    delta0, delta1, basis = books[0, DELTA], books[1, DELTA], books[other, BASIS]
    size0, size1, before0, before1 = abs(p0), abs(p1), rows[0, 0], rows[0, 1]
    k = paid.first[first]
    due, n = paid.bar[k] - first, len(out)
    for i in range(len(out)):
        if i == due:
            while paid.bar[k] == first + i:
                usd = funding_usd(p0 if paid.leg[k] == 0 else p1, paid.mark_price[k], paid.rate[k])
                if not math.isfinite(usd):
                    return MARK_MISSING, first + i, cash_usd, notional_usd
                cash_usd += usd
                books[paid.leg[k], FUNDING] += usd
                k += 1
            due = paid.bar[k] - first
        price0, price1 = rows[i + 1, 0], rows[i + 1, 1]
        move0, move1 = price0 - before0, price1 - before1
        reference_move = move0 if reference == 0 else move1
        delta0 += p0 * reference_move
        delta1 += p1 * reference_move
        basis += p_other * ((move1 if other == 1 else move0) - reference_move)
        notional_usd += size0 * price0 + size1 * price1
        equity = cash_usd + p0 * price0 + p1 * price1
        out[i] = equity
        before0, before1 = price0, price1
        if equity <= stop_usd:
            n = i + 1
            break
    books[0, DELTA], books[1, DELTA], books[other, BASIS] = delta0, delta1, basis
    return OK, first + n, cash_usd, notional_usd


@inlined_kernel
def with_fees_of(bar, fee_row, fees, costs):
    """Set the fees in force at a bar in ``costs``, unless they are those of ``fee_row``; returns the row in force."""
    row = fees.row[bar]
    if row != fee_row:
        for leg in range(2):
            set_fee(leg, fees.fee_bps[row, leg], fees.maker_fee_bps[row, leg], fees, costs)
    return row


@inlined_kernel
def accrue_at(bar, cash_usd, p0, p1, paid, books):
    """Pay the settlements of one bar; returns status and cash."""
    for k in range(paid.first[bar], paid.first[bar + 1]):
        usd = funding_usd(p0 if paid.leg[k] == 0 else p1, paid.mark_price[k], paid.rate[k])
        if not math.isfinite(usd):
            return MARK_MISSING, cash_usd
        cash_usd += usd
        books[paid.leg[k], FUNDING] += usd
    return OK, cash_usd


@kernel
def mark_fill(books, leg, change_base, arrival, close, reference):
    """Price PnL of what a fill changed, from its arrival price to the close of its bar."""
    book_price_move(books, leg, change_base, arrival[leg], close[leg], arrival[reference], close[reference])


@inlined_kernel
def plain_trial(market, plain, combo, rule, size, costs, fees, fills, scratch):
    """Run the bars; returns how the trial ended, its sums, how many rows of ``scratch.moved`` and how many fresh, and
    the thresholds that would have given the same.

    ``scratch.books`` has its books; ``costs`` are its own, since fees change with the days.
    """
    n_bars, signal, reference = len(market.signal), market.signal, combo.reference_leg
    ratio, latency, capital = combo.ratio, fills.latency_bars[0], size.capital_usd
    want, arrival, books = scratch.want, scratch.arrival, scratch.books
    equity_usd, curve_usd = scratch.equity_usd, scratch.curve_usd
    highest, lowest, next_tradable = plain.highest, plain.lowest, plain.next_tradable
    open_price, close_price = market.open_price, market.close_price
    paid = Paid(
        market.first_settlement, plain.settlement_bar, market.settlement_leg, market.mark_price, market.funding_rate
    )
    books[:] = 0.0
    cash, turnover, notional, status, status_bar = capital, 0.0, 0.0, OK, -1
    n_trades, n_refused, closed, won, trade_bars, held_bars = 0, 0, 0, 0, 0, 0
    track = Track(capital, 0, 0, capital, -1, capital, False, 0.0, 0)
    alike = Alike(-math.inf, math.inf, -math.inf, math.inf)
    bar, flat_from, fee_row = 0, 0, -1
    while bar < n_bars:
        bar, direction, alike = next_entry(bar, signal, highest, lowest, rule, alike)
        if bar >= n_bars:
            break
        fee_row = with_fees_of(bar, fee_row, fees, costs)
        for leg in range(2):
            arrival[leg] = open_price[bar, leg]
        sized_on = cash if size.compounding else capital
        quantity = 0.0
        if is_capital(cash, size):
            quantity = combo_quantity(sized_on, ratio, arrival, combo.margin_weight, size)
        reason = entry_refusal(
            quantity, ratio, arrival, market.basis_bps[bar], rule.max_basis_bps, size.min_notional_usd
        )
        if reason < 0 and has_preflight(fills.max_cost_bps, fills.max_volume_share, fills.max_spread_bps):
            reason = preflight(bar, quantity, ratio, arrival, market, costs, fills)
        if reason >= 0:
            n_refused += 1
            bar += 1
            continue
        share = net_share(direction, ratio, costs.base_fee_frac)
        for leg in range(2):
            want[leg] = direction * ratio[leg] * (quantity * share)
        entry = next_tradable[bar + latency] if bar + latency < n_bars else n_bars
        if entry >= n_bars:
            break
        before_entry = cash
        fee_row = with_fees_of(entry, fee_row, fees, costs)
        status, cash, turnover = fill_legs(entry, market, costs, scratch, cash, turnover)
        if status != OK:
            status_bar = entry
            break
        n_trades += 1
        p0, p1 = want[0], want[1]
        for leg in range(2):
            mark_fill(books, leg, want[leg], arrival, close_price[entry], reference)
        notional += abs(p0) * close_price[entry, 0] + abs(p1) * close_price[entry, 1]
        equity = cash + p0 * close_price[entry, 0] + p1 * close_price[entry, 1]
        equity_usd[entry] = equity

        decision, alike = next_exit(entry, direction, signal, highest, lowest, rule, alike)
        stop_usd = sized_on * (1.0 - rule.stop_loss_pct / 100.0)
        if equity <= stop_usd:
            decision = min(decision, entry + 1)
        held_to = entry + 1
        if not math.isnan(stop_usd) and decision > held_to:
            # a stop hit at the end of a bar decides in the next one
            status, held_to, cash, notional = hold(
                held_to, decision - 1, cash, stop_usd, p0, p1, reference, close_price, paid, scratch, notional
            )
            if status == OK and held_to > entry + 1 and equity_usd[held_to - 1] <= stop_usd:
                decision = held_to
        leave = next_tradable[decision + latency] if decision + latency < n_bars else n_bars
        if status == OK:
            status, held_to, cash, notional = hold(
                held_to, leave, cash, math.nan, p0, p1, reference, close_price, paid, scratch, notional
            )
        if status != OK:
            status_bar = held_to
            break
        held_bars += held_to - entry
        track = track_flat(flat_from, entry, track)
        if leave >= n_bars:
            if len(curve_usd) > 0:
                draw_curve(flat_from, entry, n_bars, False, before_entry, plain, equity_usd, curve_usd)
            track = track_held(entry, n_bars, False, track, plain, capital, equity_usd, scratch.moved)
            flat_from = n_bars
            break
        status, cash = accrue_at(leave, cash, p0, p1, paid, books)
        if status == OK:
            fee_row = with_fees_of(leave, fee_row, fees, costs)
            for leg in range(2):
                arrival[leg] = open_price[decision, leg]
                want[leg] = -want[leg]
            status, cash, turnover = fill_legs(leave, market, costs, scratch, cash, turnover)
        if status != OK:
            status_bar = leave
            break
        for leg in range(2):
            book_price_move(
                books, leg, -want[leg], close_price[leave - 1, leg], close_price[leave, leg],
                close_price[leave - 1, reference], close_price[leave, reference],
            )  # fmt: skip
        for leg in range(2):
            mark_fill(books, leg, want[leg], arrival, close_price[leave], reference)
        equity_usd[leave] = cash
        if len(curve_usd) > 0:
            draw_curve(flat_from, entry, leave + 1, True, before_entry, plain, equity_usd, curve_usd)
        track = track_held(entry, leave + 1, True, track, plain, capital, equity_usd, scratch.moved)
        closed += 1
        won += cash - before_entry > 0.0
        trade_bars += leave - entry
        flat_from = leave + 1
        bar = leave + max(rule.cooldown_bars, 1)
    track = track_flat(flat_from, n_bars, track)
    if len(curve_usd) > 0:
        curve_usd[flat_from:] = cash
    deepest = max(track.deepest, 1.0 - track.trough_usd / track.peak_usd)
    end = equity_usd[n_bars - 1] if flat_from == n_bars and held_bars > 0 else cash
    sums = Sums(end, deepest, track.longest_bars, n_bars, held_bars, notional, closed, won, trade_bars)
    totals = Totals(status, status_bar, 0, 0, n_trades, n_refused, 0, 0, 0, 0, 0, math.inf, math.inf, turnover)
    return totals, sums, track.n_moved, n_bars - track.n_stale, alike
