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
def return_moments(equity_usd, stale, capital_usd):
    """Mean, sample deviation (NaN under two returns) and downside deviation of the returns of fresh rows."""
    n, total, last = 0, 0.0, capital_usd
    for t in range(len(equity_usd)):
        if not stale[t]:
            total += simple_return(equity_usd[t], last, capital_usd)
            last = equity_usd[t]
            n += 1
    if n < 2:
        return math.nan, math.nan, math.nan
    mean = total / n
    squares, downside, last = 0.0, 0.0, capital_usd
    for t in range(len(equity_usd)):
        if not stale[t]:
            value = simple_return(equity_usd[t], last, capital_usd)
            squares += (value - mean) ** 2
            downside += min(value, 0.0) ** 2
            last = equity_usd[t]
    return mean, math.sqrt(squares / (n - 1)), math.sqrt(downside / n)


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


@kernel
def trial_metrics(rows, totals, close_price, capital_usd, bar_hours):
    """All metrics of a recorded trial."""
    n_bars, n_legs = close_price.shape
    years = n_bars * bar_hours / HOURS_PER_YEAR
    per_year = math.sqrt(HOURS_PER_YEAR / bar_hours)
    end = rows.equity_usd[n_bars - 1]
    pnl = end - capital_usd
    mean, deviation, downside = return_moments(rows.equity_usd, rows.stale, capital_usd)
    deepest, longest = drawdowns(rows.equity_usd, rows.stale, capital_usd)
    cagr = compound_rate(end / capital_usd, years)

    held, notional = 0, 0.0
    for t in range(n_bars):
        gross = gross_notional_usd(rows.position_base[t], close_price[t])
        if gross > 0.0:
            held += 1
            notional += gross
    closed, won, held_bars = 0, 0, 0
    for k in range(totals.n_trades):
        if rows.log.trade_bars[k, 1] >= 0:
            closed += 1
            won += rows.log.trade_values[k, 1] > 0.0
            held_bars += rows.log.trade_bars[k, 1] - rows.log.trade_bars[k, 0]
    sums = np.zeros(N_BOOKS)
    for leg in range(n_legs):
        for book in range(N_BOOKS):
            sums[book] += rows.books[n_bars - 1, leg, book]
    mean_notional = notional / held if held > 0 else 0.0
    least_health = totals.min_health if totals.min_health < math.inf else math.nan
    least_ratio = totals.min_margin_ratio if totals.min_margin_ratio < math.inf else math.nan
    held_years = held * bar_hours / HOURS_PER_YEAR
    return Metrics(
        pnl / capital_usd,
        cagr,
        deviation * per_year,
        ratio_or_null(mean, above_rounding(deviation)) * per_year,
        ratio_or_null(mean, above_rounding(downside)) * per_year,
        ratio_or_null(cagr, above_rounding(deepest)),
        deepest,
        longest * bar_hours,
        totals.n_trades,
        ratio_or_null(float(won), float(closed)),
        ratio_or_null(held_bars * bar_hours, float(closed)),
        held / n_bars,
        totals.turnover_usd / capital_usd,
        sums[FUNDING],
        sums[BASIS],
        sums[DELTA],
        sums[FEES],
        sums[SPREAD] + sums[BUCKET] + sums[IMPACT] + sums[DELAY],
        sums[ROLLBACK_EXECUTION] + sums[ROLLBACK_PRICE],
        sums[TRANSFER],
        sums[LIQUIDATION],
        sums[BORROW],
        sums[DELIVERY_FEE],
        sums[YIELD],
        sums[FX],
        pnl,
        end,
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
