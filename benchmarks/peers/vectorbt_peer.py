"""vectorbt on the common task: ``Portfolio.from_signals``, two columns a trial that share their cash, many at once.

    python -m benchmarks.peers.vectorbt_peer --json [--engine numba|rust]

Compounds: a leg's size is a percentage of free cash, and while flat cash is equity, so that one array of percentages
per leg, made of opening prices alone, sizes every trial. vectorbt itself walks the thresholds: an entry while held and
an exit while flat do nothing. The spot leg is called first, so the percentage of the perp leg is of what is left. It
books no funding, and a short sale pays its proceeds into the cash (``lock_cash`` off).
"""

import gc
import time

import numpy as np
import vectorbt as vbt
from vectorbt.portfolio.enums import Direction

from benchmarks.peers.task import (
    CAPITAL_USD,
    HALF_SPREAD,
    PERP_FEE,
    SPOT_FEE,
    Answers,
    Market,
    Pairs,
    command,
    spread_quantity,
)

ENGINES = ("numba", "rust")
# memory order of the inputs and trials a batch that were quickest for each engine, of C and F, 1 to 100
LAYOUT = {"numba": ("F", 40), "rust": ("C", 20)}


def percentages(market: Market) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of free cash that each leg takes with its costs, per bar; the perp's is of what the spot leg left."""
    quantity = spread_quantity(1.0, market.spot_open, market.perp_open)
    spot = quantity * market.spot_open * (1.0 + HALF_SPREAD) * (1.0 + SPOT_FEE)
    return spot, quantity * market.perp_open * (1.0 - HALF_SPREAD) * (1.0 + PERP_FEE) / (1.0 - spot)


def run(market: Market, pairs: Pairs, *, engine: str = "numba") -> Answers:
    """All pairs by one engine, in batches; the first call of a process compiles."""
    before = vbt.settings["engine"]
    vbt.settings["engine"] = engine
    try:
        gc.collect()  # portfolios of an earlier run hold each other
        started = time.perf_counter()
        total_return, max_drawdown = sweep(market, pairs, engine=engine)
        seconds = time.perf_counter() - started
    finally:
        vbt.settings["engine"] = before
    return Answers(total_return, max_drawdown, seconds, f"from_signals, {engine} engine, no funding")


def sweep(market: Market, pairs: Pairs, *, engine: str) -> tuple[np.ndarray, np.ndarray]:
    """Total return and largest drawdown of each pair."""
    order, batch = LAYOUT[engine]
    batch = min(batch, len(pairs))

    def both(spot: np.ndarray, perp: np.ndarray) -> np.ndarray:
        return np.asarray(np.tile(np.column_stack((spot, perp)), (1, batch)), order=order)

    open_price = both(market.spot_open, market.perp_open)
    close_price = both(market.spot_close, market.perp_close)
    percent = both(*percentages(market))
    signal = market.signal_apr[:, None]
    total_return, max_drawdown = np.empty(len(pairs)), np.empty(len(pairs))
    for first in range(0, len(pairs), batch):
        taken = slice(first, first + batch)
        entry, exit_ = np.repeat(np.asarray(pairs[taken], dtype=float), 2, axis=0).T
        n_columns = len(entry)
        entries, exits = (np.asarray(mask, order=order) for mask in (signal >= entry, signal <= exit_))
        n_entries = 1 + np.count_nonzero(entries[1:] & ~entries[:-1], axis=0)  # at most: a trade is two orders a column
        portfolio = vbt.Portfolio.from_signals(
            np.asarray(close_price[:, :n_columns], order=order),
            entries,
            exits,
            price=np.asarray(open_price[:, :n_columns], order=order),
            size=np.asarray(percent[:, :n_columns], order=order),
            size_type="percent",
            direction=np.tile((Direction.LongOnly, Direction.ShortOnly), n_columns // 2)[None, :],
            fees=np.tile((SPOT_FEE, PERP_FEE), n_columns // 2)[None, :],
            slippage=HALF_SPREAD,
            init_cash=CAPITAL_USD,
            cash_sharing=True,
            group_by=np.repeat(np.arange(n_columns // 2), 2),
            max_orders=int(2 * n_entries.sum()),
            freq="1h",
            engine=engine,
        )
        total_return[taken] = portfolio.total_return()
        max_drawdown[taken] = -portfolio.value().vbt.drawdown().min()
    return total_return, max_drawdown


def runners() -> dict:
    """One runner an engine."""
    return {e: lambda market, pairs, engine=e: run(market, pairs, engine=engine) for e in ENGINES}


if __name__ == "__main__":
    command("vectorbt_peer", runners(), version=f"vectorbt {vbt.__version__}", n_trials=400, repeats=3)
