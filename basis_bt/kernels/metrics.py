"""Metrics of one trial, over its recorded rows; NaN stands for null."""

import math
from typing import NamedTuple

import numpy as np

from basis_bt.kernels._jit import kernel
from basis_bt.kernels.books import gross_notional_usd
from basis_bt.kernels.structs import (
    BASIS,
    BORROW,
    BUCKET,
    DELAY,
    DELIVERY_FEE,
    DELTA,
    FEES,
    FUNDING,
    FX,
    IMPACT,
    LIQUIDATION,
    N_BOOKS,
    ROLLBACK_EXECUTION,
    ROLLBACK_PRICE,
    SPREAD,
    TRANSFER,
    YIELD,
)

HOURS_PER_YEAR = 8760.0
ROUNDING_FRAC = 1e-12
LANES = 128  # of the sums over returns
RUIN_FRAC = 1e-9  # of the capital: what is left of an equity that is gone is a rounding difference


class Metrics(NamedTuple):
    """Ratios are fractions, rates simple annual ones, amounts USD, durations hours."""

    total_return: float
    cagr: float
    ann_vol: float
    sharpe: float
    sortino: float
    calmar: float
    max_drawdown: float
    max_drawdown_hours: float
    n_trades: int
    win_rate: float
    avg_hold_hours: float
    time_in_market: float
    turnover: float
    funding_usd: float
    basis_usd: float
    delta_usd: float
    fees_usd: float
    slippage_usd: float
    rollback_usd: float
    transfer_usd: float
    liquidation_usd: float
    borrow_usd: float
    delivery_fee_usd: float
    yield_usd: float
    fx_usd: float
    pnl_usd: float
    end_equity_usd: float
    n_refused: int
    n_rollbacks: int
    n_unfilled: int
    n_liquidations: int
    n_rolls: int
    naked_hours: float
    min_margin_ratio: float
    min_health: float
    apr_on_capital: float
    apr_on_notional: float


@kernel
def simple_return(equity_usd, before_usd, capital_usd):
    """Return of a row; 0 from an equity that is gone, where every change would be infinite."""
    return equity_usd / before_usd - 1.0 if before_usd > RUIN_FRAC * capital_usd else 0.0


@kernel
def returns_into(equity_usd, stale, capital_usd, moved):
    """Write the returns of fresh rows that are not zero to ``moved``; the numbers of these and of fresh rows."""
    n_moved, n, last = 0, 0, capital_usd
    for t in range(len(equity_usd)):
        if not stale[t]:
            value = simple_return(equity_usd[t], last, capital_usd)
            last = equity_usd[t]
            n += 1
            if value != 0.0:
                moved[n_moved] = value
                n_moved += 1
    return n_moved, n


@kernel
def return_moments(moved, n):
    """Mean, sample deviation (NaN under two returns) and downside deviation of ``n`` returns, zeros but for ``moved``.

    Sums run in LANES lanes, which the processor adds side by side; the numbers are the same for the same returns.
    """
    if n < 2:
        return math.nan, math.nan, math.nan
    lanes, losses = np.zeros(LANES), np.zeros(LANES)
    for start in range(0, len(moved), LANES):
        part = moved[start : start + LANES]
        for lane in range(len(part)):
            lanes[lane] += part[lane]
    mean = total_of(lanes) / n
    lanes[:] = 0.0
    for start in range(0, len(moved), LANES):
        part = moved[start : start + LANES]
        for lane in range(len(part)):
            lanes[lane] += (part[lane] - mean) ** 2
        for lane in range(len(part)):
            losses[lane] += min(part[lane], 0.0) ** 2
    squares = total_of(lanes) + (n - len(moved)) * mean**2
    return mean, math.sqrt(squares / (n - 1)), math.sqrt(total_of(losses) / n)


@kernel
def total_of(values):
    """The sum of values, one after the other."""
    total = 0.0
    for value in values:
        total += value
    return total


@kernel
def drawdowns(equity_usd, stale, capital_usd):
    """Largest fall from a peak as a fraction of it, and the longest time under a peak in bars."""
    peak, peak_bar, deepest, longest, under = capital_usd, -1, 0.0, 0, False
    for t in range(len(equity_usd)):
        if stale[t]:
            continue
        if equity_usd[t] >= peak:
            if under:
                longest = max(longest, t - peak_bar)
            peak, peak_bar, under = equity_usd[t], t, False
        else:
            under = True
            deepest = max(deepest, 1.0 - equity_usd[t] / peak)
            longest = max(longest, t - peak_bar)
    return deepest, longest


@kernel
def ratio_or_null(numerator, denominator):
    """The quotient, or NaN where there is nothing to divide by."""
    return numerator / denominator if denominator > 0.0 else math.nan


@kernel
def above_rounding(frac):
    """A fraction, or 0 where it is what rounding alone makes of an equity that stands still or only rises."""
    return frac if frac > ROUNDING_FRAC else 0.0


@kernel
def compound_rate(growth, years):
    """Yearly rate that compounds to a growth factor: -1 when all is lost, infinite beyond what a float holds."""
    if growth <= 0.0:
        return -1.0
    log_rate = math.log(growth) / years
    return math.expm1(log_rate) if log_rate < 709.0 else math.inf


class Sums(NamedTuple):
    """What a trial adds up to beside its returns; ``books`` ``(N_BOOKS,)`` over its legs."""

    end_equity_usd: float
    deepest: float
    longest_bars: int
    n_bars: int
    held_bars: int
    notional_usd: float
    closed: int
    won: int
    trade_bars: int


@kernel
def metrics_of(sums, moved, n_fresh, books, totals, capital_usd, bar_hours):
    """All metrics of a trial from its sums, its returns (see ``return_moments``), its books and its counts."""
    years = sums.n_bars * bar_hours / HOURS_PER_YEAR
    per_year = math.sqrt(HOURS_PER_YEAR / bar_hours)
    pnl = sums.end_equity_usd - capital_usd
    mean, deviation, downside = return_moments(moved, n_fresh)
    cagr = compound_rate(sums.end_equity_usd / capital_usd, years)
    closed = float(sums.closed)
    mean_notional = sums.notional_usd / sums.held_bars if sums.held_bars > 0 else 0.0
    least_health = totals.min_health if totals.min_health < math.inf else math.nan
    least_ratio = totals.min_margin_ratio if totals.min_margin_ratio < math.inf else math.nan
    held_years = sums.held_bars * bar_hours / HOURS_PER_YEAR
    return Metrics(
        pnl / capital_usd,
        cagr,
        deviation * per_year,
        ratio_or_null(mean, above_rounding(deviation)) * per_year,
        ratio_or_null(mean, above_rounding(downside)) * per_year,
        ratio_or_null(cagr, above_rounding(sums.deepest)),
        sums.deepest,
        sums.longest_bars * bar_hours,
        totals.n_trades,
        ratio_or_null(float(sums.won), closed),
        ratio_or_null(sums.trade_bars * bar_hours, closed),
        sums.held_bars / sums.n_bars,
        totals.turnover_usd / capital_usd,
        books[FUNDING],
        books[BASIS],
        books[DELTA],
        books[FEES],
        books[SPREAD] + books[BUCKET] + books[IMPACT] + books[DELAY],
        books[ROLLBACK_EXECUTION] + books[ROLLBACK_PRICE],
        books[TRANSFER],
        books[LIQUIDATION],
        books[BORROW],
        books[DELIVERY_FEE],
        books[YIELD],
        books[FX],
        pnl,
        sums.end_equity_usd,
        totals.n_refused,
        totals.n_rollbacks,
        totals.n_unfilled,
        totals.n_liquidations,
        totals.n_rolls,
        totals.n_naked_bars * bar_hours,
        least_ratio,
        least_health,
        pnl / capital_usd / years,
        ratio_or_null(pnl, mean_notional * held_years),
    )


@kernel
def books_of(by_leg):
    """Books ``(N_BOOKS,)`` summed over the legs ``(n_legs, N_BOOKS)``."""
    books = np.zeros(N_BOOKS)
    for leg in range(len(by_leg)):
        for book in range(N_BOOKS):
            books[book] += by_leg[leg, book]
    return books


@kernel
def trial_metrics(rows, totals, close_price, capital_usd, bar_hours):
    """All metrics of a recorded trial."""
    n_bars = len(close_price)
    deepest, longest = drawdowns(rows.equity_usd, rows.stale, capital_usd)
    held, notional = 0, 0.0
    for t in range(n_bars):
        gross = gross_notional_usd(rows.position_base[t], close_price[t])
        if gross > 0.0:
            held += 1
            notional += gross
    closed, won, trade_bars = 0, 0, 0
    for k in range(totals.n_trades):
        if rows.log.trade_bars[k, 1] >= 0:
            closed += 1
            won += rows.log.trade_values[k, 1] > 0.0
            trade_bars += rows.log.trade_bars[k, 1] - rows.log.trade_bars[k, 0]
    end = rows.equity_usd[n_bars - 1]
    sums = Sums(end, deepest, longest, n_bars, held, notional, closed, won, trade_bars)
    moved = np.empty(n_bars)
    n_moved, n_fresh = returns_into(rows.equity_usd, rows.stale, capital_usd, moved)
    return metrics_of(sums, moved[:n_moved], n_fresh, books_of(rows.books[n_bars - 1]), totals, capital_usd, bar_hours)
