"""backtesting.py on the common task: it trades one instrument, so a trial is two runs whose equities are added.

    python -m benchmarks.peers.backtesting_peer --json

Each leg is a backtest of its own over the same thresholds, with the equity curve and statistics that every run of
backtesting.py makes. Neither leg knows the other's equity, so the size is of the starting capital and does not
compound. Each leg has more cash than the trial, as one that loses while the other gains must not run out of it; the sum
of the two curves less that cash is the trial's. The half spread is charged as part of the commission: its option
``spread`` applies to entries only. No funding. An order decided in a bar fills at the next bar's open, hence the
shifted arrays.
"""

import time
import warnings

import backtesting
import numpy as np
import pandas as pd
from backtesting import Strategy
from backtesting.lib import FractionalBacktest

from benchmarks.peers.task import (
    CAPITAL_USD,
    HALF_SPREAD,
    PERP_FEE,
    SPOT_FEE,
    START,
    Answers,
    Market,
    Pairs,
    command,
    spread_quantity,
)

UNIT = 1e-8  # of the base currency: sizes are whole numbers of it
LEG_CASH_USD = 20.0 * CAPITAL_USD


class Leg(Strategy):
    """One leg; the arrays and thresholds are set by ``run``."""

    signal: list[float] = []  # of the bar after
    units: list[int] = []  # of the bar after, signed
    entry = exit_ = 0.0

    def init(self):
        """Nothing to prepare: no indicators."""
        self.held = False

    def next(self):
        """Decide on what is known at the next open, where the order fills."""
        bar = len(self.data) - 1
        signal = self.signal[bar]
        if not self.held and signal >= self.entry:
            units = self.units[bar]
            _ = self.buy(size=units) if units > 0 else self.sell(size=-units)
            self.held = True
        elif self.held and signal <= self.exit_:
            self.position.close()
            self.held = False


def leg_test(market: Market, *, is_spot: bool) -> FractionalBacktest:
    """The backtest of one leg: prices and commission."""
    open_price = market.spot_open if is_spot else market.perp_open
    close_price = market.spot_close if is_spot else market.perp_close
    bars = pd.DataFrame(
        {
            "Open": open_price,
            "High": np.maximum(open_price, close_price),
            "Low": np.minimum(open_price, close_price),
            "Close": close_price,
            "Volume": 1.0,
        },
        index=pd.date_range(START, periods=len(open_price), freq="h"),
    )
    rate = HALF_SPREAD + (SPOT_FEE if is_spot else PERP_FEE)
    return FractionalBacktest(bars, Leg, cash=LEG_CASH_USD, commission=rate, fractional_unit=UNIT)


def run(market: Market, pairs: Pairs) -> Answers:
    """All pairs, one after the other; the timing includes the statistics of both legs."""
    total_return, max_drawdown = np.empty(len(pairs)), np.empty(len(pairs))
    started = time.perf_counter()
    units = np.round(spread_quantity(CAPITAL_USD, market.spot_open, market.perp_open) / UNIT)
    signal_after = [*market.signal_apr[1:].tolist(), np.nan]  # the last bar's order would fill after the end
    tests = [(leg_test(market, is_spot=True), 1.0), (leg_test(market, is_spot=False), -1.0)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*remain open at the end.*")
        for k, (entry, exit_) in enumerate(pairs):
            equity = np.full(len(units), CAPITAL_USD)
            for test, side in tests:
                units_after = [*(int(u) for u in side * units[1:]), 0]
                stats = test.run(signal=signal_after, units=units_after, entry=entry, exit_=exit_)
                equity += stats["_equity_curve"]["Equity"].to_numpy() - LEG_CASH_USD
            peak = np.maximum(np.maximum.accumulate(equity), CAPITAL_USD)
            total_return[k] = equity[-1] / CAPITAL_USD - 1.0
            max_drawdown[k] = np.max(1.0 - equity / peak)
    seconds = time.perf_counter() - started
    note = "two runs a trial, one a leg, sized on the starting capital, half spread within the commission, no funding"
    return Answers(total_return, max_drawdown, seconds, note)


if __name__ == "__main__":
    version = f"backtesting {backtesting.__version__}"
    command("backtesting_peer", {"python": run}, version=version, n_trials=4, repeats=2, compounding=False)
