"""Bars made of prices at instants: marks of a dated future, values of an oracle."""

import numpy as np
import polars as pl

from basis_bt.market.schemas import TS


def point_bars(ts_us: np.ndarray, price: np.ndarray, *, bar_us: int) -> pl.DataFrame:
    """Bars of prices that were seen at instants, nothing in between.

    The open is the price *at* the stamp (null without one: the bar cannot be traded), the close the last one after it
    up to the end of the bar, the instant of the end included (null without one: the open is no news of the end); high
    and low are the extremes of all these. A stretch without a price has no bar. Columns ``ts``, ``open`` to ``close``,
    ``volume`` (null).
    """
    stamps = np.unique(np.concatenate([ts_us // bar_us * bar_us, -(-ts_us // bar_us) * bar_us - bar_us]))
    begin = np.searchsorted(ts_us, stamps)
    after = np.searchsorted(ts_us, stamps, side="right")
    end = np.searchsorted(ts_us, stamps + bar_us, side="right")
    opens = np.where(after > begin, price[begin.clip(max=len(price) - 1)], np.nan)
    closes = np.where(end > after, price[end - 1], np.nan)
    high, low = _extremes(price, begin, end)
    return _frame(stamps, opens, high, low, closes)


def step_bars(ts_us: np.ndarray, value: np.ndarray, *, first_us: int, n_rows: int, bar_us: int) -> pl.DataFrame:
    """Bars of a value that holds until the next one: every bar has an open and a close once there is a value.

    High and low are the extremes of all values in force in the bar, that at the instant of its end included.
    """
    stamps = first_us + np.arange(n_rows, dtype=np.int64) * bar_us
    stamps = stamps[stamps >= ts_us[0]] if len(ts_us) else stamps[:0]
    begin = np.searchsorted(ts_us, stamps, side="right") - 1
    end = np.searchsorted(ts_us, stamps + bar_us, side="right")
    high, low = _extremes(value, begin, end)
    return _frame(stamps, value[begin], high, low, value[end - 1])


def _extremes(price: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and least of ``price[begin:end]`` for each bar, none of them empty."""
    edges, padded = np.column_stack([begin, end]).ravel(), np.append(price, price[-1:])
    if not len(edges):
        return np.empty(0), np.empty(0)
    return np.maximum.reduceat(padded, edges)[::2], np.minimum.reduceat(padded, edges)[::2]


def latest(ts_us: np.ndarray, value: np.ndarray, at_us: np.ndarray) -> np.ndarray:
    """The value in force at each instant, NaN before the first."""
    row = np.searchsorted(ts_us, at_us, side="right") - 1
    return np.where(row >= 0, value[np.maximum(row, 0)], np.nan)


def _frame(stamps: np.ndarray, *prices: np.ndarray) -> pl.DataFrame:
    names = ("open", "high", "low", "close")
    columns = [pl.Series(name, values, nan_to_null=True) for name, values in zip(names, prices, strict=True)]
    return pl.DataFrame([pl.Series("ts", stamps).cast(TS), *columns]).with_columns(volume=pl.lit(None, pl.Float64))
