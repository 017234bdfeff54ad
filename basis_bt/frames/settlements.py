"""Funding settlements: snapped to the grid, priced by their mark, summed over windows of hours."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.market.files import Series

MAX_JITTER_US = 60_000_000
MARK_SOURCES = ("own", "mark", "trade")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlements:
    """Settlements of one perp, by time. Instants are int64 epoch microseconds; ``mark_source`` indexes MARK_SOURCES."""

    raw_us: np.ndarray
    paid_us: np.ndarray
    known_us: np.ndarray
    funding_rate: np.ndarray
    interval_hours: np.ndarray
    mark_price: np.ndarray
    mark_source: np.ndarray
    first_us: int


def snap(us: np.ndarray, *, bar_us: int) -> np.ndarray:
    """Instants up to 60 s, and never over half a bar, after a bar stamp, moved back to it; others as they are."""
    late = us % bar_us
    return np.where(late <= min(MAX_JITTER_US, bar_us // 2), us - late, us)


def settlements(funding: Series, trades: Series, marks: Series | None, *, bar_us: int) -> Settlements:
    """The settlements of a perp with their marks.

    A settlement without a mark of its own takes the latest price at or before it among the mark bars and the perp's
    trade bars, at the files' own step, so that funding does not depend on the bar of the run.
    A settlement before the first price has a NaN mark; no position can exist there.
    """
    frame = funding.frame
    raw_us = frame["ts"].to_physical().to_numpy()
    known = frame["known_at"].fill_null(frame["ts"]).to_physical().to_numpy() if "known_at" in frame.columns else raw_us
    mark_us, mark_price = _latest_price(marks, raw_us)
    trade_us, trade_price = _latest_price(trades, raw_us)
    use_mark = mark_us >= trade_us
    price = np.where(use_mark, mark_price, trade_price)
    source = np.where(use_mark, 1, 2).astype(np.int8)
    if "mark_price" in frame.columns:
        own = frame["mark_price"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        has_own = ~np.isnan(own)
        price, source = np.where(has_own, own, price), np.where(has_own, 0, source).astype(np.int8)
    if "interval_hours" in frame.columns:
        hours = frame["interval_hours"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    else:
        hours = np.full(len(raw_us), np.nan)
    return Settlements(
        raw_us=raw_us,
        paid_us=snap(raw_us, bar_us=bar_us),
        known_us=snap(known, bar_us=bar_us),
        funding_rate=frame["rate"].to_numpy(),
        interval_hours=hours,
        mark_price=price,
        mark_source=source,
        first_us=int(snap(np.array([funding.first_us]), bar_us=bar_us)[0]),
    )


def _latest_price(bars: Series | None, at_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time and value of the last price known at each instant: an open at its stamp, a close when its bar ends."""
    never = np.full(len(at_us), np.iinfo(np.int64).min)
    if bars is None or bars.frame.is_empty():
        return never, np.full(len(at_us), np.nan)
    ts = bars.frame["ts"].to_physical().to_numpy()
    opens, closes = bars.frame["open"].to_numpy(), bars.frame["close"].to_numpy()
    step = bars.step_us or 0
    at_open = np.searchsorted(ts, at_us, side="right") - 1
    at_close = np.searchsorted(ts + step, at_us, side="right") - 1
    open_us = np.where(at_open >= 0, ts[at_open], never)
    close_us = np.where(at_close >= 0, ts[at_close] + step, never)
    price = np.where(open_us >= close_us, opens[at_open], closes[at_close])
    latest = np.maximum(open_us, close_us)
    return latest, np.where(latest > never, price, np.nan)


def trailing_funding(series: Settlements, *, at_us: np.ndarray, window_us: int) -> np.ndarray:
    """Exactly rounded sum of the rates settled in ``(at - window, at]`` and known at ``at``, for each instant.

    NaN until the window lies within the history of the settlements is the caller's business.
    """
    low = np.searchsorted(series.paid_us, at_us - window_us, side="right")
    high = np.searchsorted(series.paid_us, at_us, side="right")
    rates = series.funding_rate.tolist()
    if (series.known_us > series.paid_us).any():
        known = series.known_us.tolist()
        return np.array([
            math.fsum(rates[k] for k in range(a, b) if known[k] <= at)
            for a, b, at in zip(low.tolist(), high.tolist(), at_us.tolist(), strict=True)
        ])  # fmt: skip
    new = np.ones(len(at_us), dtype=bool)
    new[1:] = (np.diff(low) != 0) | (np.diff(high) != 0)
    sums = [math.fsum(rates[a:b]) for a, b in zip(low[new].tolist(), high[new].tolist(), strict=True)]
    return np.array(sums, dtype=np.float64)[np.cumsum(new) - 1]


def funding_by_row(series: Settlements, *, row_end_us: np.ndarray) -> np.ndarray:
    """Sum of the rates that became known within each row of the frame; NaN where none did."""
    out = np.full(len(row_end_us), np.nan)
    at = np.searchsorted(row_end_us, np.maximum(series.paid_us, series.known_us), side="left")
    bar_us = row_end_us[1] - row_end_us[0] if len(row_end_us) > 1 else 0
    for row, us, rate in zip(at.tolist(), series.paid_us.tolist(), series.funding_rate.tolist(), strict=True):
        if row < len(out) and (row > 0 or us > row_end_us[0] - bar_us):
            out[row] = rate if math.isnan(out[row]) else out[row] + rate
    return out
