"""The task every engine of the comparison is given: a threshold rule on two legs, many pairs of thresholds.

    python -m benchmarks.peers.task --json      # the hand-written loop, against the reference

Hourly bars of a spot and a perp price and a signal known at each bar's open. Flat and ``signal >= entry``: at the open
buy ``q`` of the spot and sell ``q`` of the perp, ``q = allocation * E / (S + P / leverage)`` with both prices at the
open and E the equity there, or the starting capital where an engine cannot compound. Held and ``signal <= exit``: close
both at the open. A fill is worse than the open by the half spread; the fee is on the fill's notional; any fraction of a
unit trades. Equity is valued at closes, a position is left open at the end, the first peak is the starting capital.

Funding: every 8 bars, before the fills of its bar, on the position held. No peer books it, so answers are compared
without it.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

CAPITAL_USD = 1_000_000.0
ALLOCATION = 0.9
LEVERAGE = 3.0
SPOT_FEE_BPS, PERP_FEE_BPS, HALF_SPREAD_BPS = 10.0, 5.0, 0.5
SPOT_FEE, PERP_FEE, HALF_SPREAD = SPOT_FEE_BPS / 1e4, PERP_FEE_BPS / 1e4, HALF_SPREAD_BPS / 1e4
SETTLEMENT_BARS = 8
HOURS_PER_YEAR = 8_760.0
START = "2023-01-01T00:00"  # of the first bar, UTC
TICK_USD = 0.01

Pairs = Sequence[tuple[float, float]]


class Market(NamedTuple):
    """Arrays with one value a bar; those of settlements have one for every eighth bar from the first."""

    spot_open: np.ndarray
    spot_close: np.ndarray
    perp_open: np.ndarray
    perp_close: np.ndarray
    signal_apr: np.ndarray  # known at the open
    mark_price: np.ndarray  # at settlements
    funding_rate: np.ndarray  # at settlements, a fraction of notional


class Answers(NamedTuple):
    """What an engine made of the pairs, in their order, and how long it took from arrays to these two numbers each."""

    total_return: np.ndarray
    max_drawdown: np.ndarray  # a positive fraction of the peak
    seconds: float
    note: str


def make_market(n_bars: int = 15_000, *, seed: int = 7) -> Market:
    """A walk of 60 % a year, a funding APR that swings around 11 %, a premium of some ten basis points that follows it.

    The signal is the APR with noise. It starts below any entry, as some peers cannot trade in the first bars.
    """
    draw = np.random.default_rng(seed)
    hours = np.arange(n_bars)
    apr = 0.11 - 0.10 * np.cos(2.0 * np.pi * hours / 500.0) - 0.04 * np.cos(2.0 * np.pi * hours / 131.0)
    spot_close = 40_000.0 * np.exp(np.cumsum(draw.normal(0.0, 0.6 / np.sqrt(HOURS_PER_YEAR), n_bars)))
    spot_open = np.concatenate(([40_000.0], spot_close[:-1])) * (1.0 + draw.normal(0.0, 1e-4, n_bars))
    premium = 0.03 * (apr - 0.11) + draw.normal(0.0, 5e-4, n_bars)
    perp_close = spot_close * (1.0 + premium)
    perp_open = spot_open * (1.0 + np.concatenate(([0.0], premium[:-1])) + draw.normal(0.0, 5e-5, n_bars))
    rounded = (np.round(prices / TICK_USD) * TICK_USD for prices in (spot_open, spot_close, perp_open, perp_close))
    settled = slice(None, None, SETTLEMENT_BARS)
    mark_price = 0.5 * (spot_open + perp_open)[settled]
    funding_rate = apr[settled] * SETTLEMENT_BARS / HOURS_PER_YEAR
    return Market(*rounded, apr + draw.normal(0.0, 0.025, n_bars), mark_price, funding_rate)


def threshold_pairs(n_trials: int = 400) -> list[tuple[float, float]]:
    """(entry, exit) APRs, every exit below every entry: a square grid of 400 or more, or a fixed random part of it."""
    side = max(20, int(np.ceil(np.sqrt(n_trials))))
    pairs = [(float(a), float(b)) for a in np.linspace(0.12, 0.24, side) for b in np.linspace(-0.02, 0.10, side)]
    order = np.random.default_rng(0).permutation(len(pairs))[:n_trials]
    return [pairs[k] for k in sorted(order)]


def spread_quantity(equity_usd, spot_price, perp_price):
    """Units of each leg an entry trades, of scalars or arrays."""
    return ALLOCATION * equity_usd / (spot_price + perp_price / LEVERAGE)


def reference(
    market: Market, entry: float, exit_: float, *, funding: bool = False, compounding: bool = True
) -> tuple[float, float, int]:
    """Total return, largest fall from a peak and number of entries of one trial, in plain Python."""
    spot_open, spot_close, perp_open, perp_close, signal, mark_price, funding_rate = (a.tolist() for a in market)
    cash = equity = peak = CAPITAL_USD
    quantity, deepest, n_trades = 0.0, 0.0, 0
    for t in range(len(signal)):
        if funding and t % SETTLEMENT_BARS == 0:
            k = t // SETTLEMENT_BARS
            cash += quantity * mark_price[k] * funding_rate[k]
        spot, perp = spot_open[t], perp_open[t]
        if quantity == 0.0 and signal[t] >= entry:
            quantity = spread_quantity(cash if compounding else CAPITAL_USD, spot, perp)
            cash -= quantity * spot * (1.0 + HALF_SPREAD) * (1.0 + SPOT_FEE)
            cash += quantity * perp * (1.0 - HALF_SPREAD) * (1.0 - PERP_FEE)
            n_trades += 1
        elif quantity > 0.0 and signal[t] <= exit_:
            cash += quantity * spot * (1.0 - HALF_SPREAD) * (1.0 - SPOT_FEE)
            cash -= quantity * perp * (1.0 + HALF_SPREAD) * (1.0 + PERP_FEE)
            quantity = 0.0
        equity = cash + quantity * (spot_close[t] - perp_close[t])
        peak = max(peak, equity)
        deepest = max(deepest, 1.0 - equity / peak)
    return equity / CAPITAL_USD - 1.0, deepest, n_trades


@njit(error_model="numpy")  # as our own kernels
def floor_kernel(market, entry, exit_, total_return, max_drawdown):
    """The least one would write by hand for this task: position, cash, funding and drawdown, one pass a trial.

    The floor that engines are measured against. ``entry``, ``exit_``: one a trial; the last two arrays are filled.
    """
    buy_spot = (1.0 + HALF_SPREAD) * (1.0 + SPOT_FEE)
    sell_spot = (1.0 - HALF_SPREAD) * (1.0 - SPOT_FEE)
    buy_perp = (1.0 + HALF_SPREAD) * (1.0 + PERP_FEE)
    sell_perp = (1.0 - HALF_SPREAD) * (1.0 - PERP_FEE)
    for trial in range(len(entry)):
        cash = equity = peak = CAPITAL_USD
        quantity = deepest = 0.0
        for t in range(len(market.signal_apr)):
            if t % SETTLEMENT_BARS == 0:
                k = t // SETTLEMENT_BARS
                cash += quantity * market.mark_price[k] * market.funding_rate[k]
            if quantity == 0.0:
                if market.signal_apr[t] >= entry[trial]:
                    spot, perp = market.spot_open[t], market.perp_open[t]
                    quantity = ALLOCATION * cash / (spot + perp / LEVERAGE)
                    cash += quantity * (perp * sell_perp - spot * buy_spot)
            elif market.signal_apr[t] <= exit_[trial]:
                cash += quantity * (market.spot_open[t] * sell_spot - market.perp_open[t] * buy_perp)
                quantity = 0.0
            equity = cash + quantity * (market.spot_close[t] - market.perp_close[t])
            if equity > peak:
                peak = equity
            elif peak - equity > deepest * peak:
                deepest = (peak - equity) / peak
        total_return[trial] = equity / CAPITAL_USD - 1.0
        max_drawdown[trial] = deepest


def run(market: Market, pairs: Pairs, *, funding: bool = False) -> Answers:
    """The hand-written loop over all pairs; the first call of a process compiles."""
    entry, exit_ = (np.ascontiguousarray(side) for side in np.asarray(pairs, dtype=float).T)
    total_return, max_drawdown = np.empty(len(entry)), np.empty(len(entry))
    if not funding:
        market = market._replace(funding_rate=np.zeros_like(market.funding_rate))
    started = time.perf_counter()
    floor_kernel(market, entry, exit_, total_return, max_drawdown)
    seconds = time.perf_counter() - started
    note = "hand-written numba loop, one thread, " + ("with funding" if funding else "funding zero")
    return Answers(total_return, max_drawdown, seconds, note)


def worst_differences(
    answers: Answers, market: Market, pairs: Pairs, *, funding: bool = False, compounding: bool = True
) -> tuple[float, float]:
    """Largest difference from the reference: of end equity, relative to it, and of the drawdown, relative to it."""
    truth = np.array([reference(market, *pair, funding=funding, compounding=compounding)[:2] for pair in pairs])
    equity = np.abs((1.0 + answers.total_return) / (1.0 + truth[:, 0]) - 1.0)
    fall = np.abs(answers.max_drawdown - truth[:, 1]) / np.maximum(truth[:, 1], 1e-12)
    return float(equity.max()), float(fall.max())


def best_of(runner: Callable[[Market, Pairs], Answers], market: Market, pairs: Pairs, *, repeats: int) -> Answers:
    """The quickest of ``repeats`` runs, after one that is not counted if there is more than one."""
    runs = [runner(market, pairs) for _ in range(repeats + (repeats > 1))]
    return min(runs[1:] or runs, key=lambda answers: answers.seconds)


def command(
    name: str,
    runners: dict[str, Callable[[Market, Pairs], Answers]],
    *,
    version: str,
    n_trials: int,
    repeats: int,
    compounding: bool = True,
) -> None:
    """The command of a peer's module: runs the engine asked for or each it has, a block or JSON line each."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.{name}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, one line an engine")
    parser.add_argument("--engine", choices=list(runners), help="only this one")
    parser.add_argument("--bars", type=int, default=15_000)
    parser.add_argument("--trials", type=int, default=n_trials)
    parser.add_argument("--repeats", type=int, default=repeats, help="the best counts, after a warm-up if more than 1")
    given = parser.parse_args()
    market, pairs = make_market(given.bars), threshold_pairs(given.trials)
    for engine, runner in runners.items():
        if given.engine not in (None, engine):
            continue
        answers = best_of(runner, market, pairs, repeats=given.repeats)
        equity_error, drawdown_error = worst_differences(answers, market, pairs, compounding=compounding)
        row = {
            "peer": name,
            "engine": engine,
            "version": version,
            "python": platform.python_version(),
            "n_bars": given.bars,
            "n_trials": given.trials,
            "seconds": answers.seconds,
            "seconds_per_trial": answers.seconds / given.trials,
            "ns_per_bar": answers.seconds / given.trials / given.bars * 1e9,
            "compounding": compounding,
            "mean_total_return": float(answers.total_return.mean()),
            "mean_max_drawdown": float(answers.max_drawdown.mean()),
            "worst_equity_difference": equity_error,
            "worst_drawdown_difference": drawdown_error,
            "note": answers.note,
        }
        print(json.dumps(row) if given.json else "\n".join(f"{key:<26}{value}" for key, value in row.items()))


if __name__ == "__main__":
    import numba

    command("task", {"floor": run}, version=f"numba {numba.__version__}", n_trials=400, repeats=5)
