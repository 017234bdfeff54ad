"""Bars of any file step on one grid: resampled when coarser, refused when finer, never filled."""

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.units import US_PER_HOUR, from_us
from basis_bt.market.files import Series
from basis_bt.market.schemas import TS

FIELDS = ("open", "high", "low", "close", "volume")


def resample(series: Series, *, bar_us: int) -> pl.DataFrame:
    """Bars of the step ``bar_us``.

    Columns ``ts``, ``open`` (null if the first small bar is missing), ``high``, ``low``, ``close``, ``volume`` (null
    where the file has none).

    Raises
    ------
    DataError
        If the step asked for is finer than the file's, or no multiple of it.
    """
    step, frame = series.step_us, series.frame
    if "volume" not in frame.columns:
        frame = frame.with_columns(volume=pl.lit(None, dtype=pl.Float64))
    if step is None or step == bar_us or frame.is_empty():
        return frame.select("ts", *FIELDS)
    if bar_us % step:
        finer = bar_us < step
        raise DataError(
            f"bars of {bar_us / US_PER_HOUR:g} h cannot be made of a file with bars of {step / US_PER_HOUR:g} h",
            where={"file": series.path},
            fix=f"ask for {step / US_PER_HOUR:g} h or more" if finer else "ask for a multiple of the file's step",
        )
    ts_us = frame["ts"].to_physical().to_numpy()
    stamp = ts_us // bar_us * bar_us
    first = np.flatnonzero(np.diff(stamp, prepend=stamp[:1] - 1))
    last = np.append(first[1:], len(stamp)) - 1
    column = {name: frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in FIELDS}
    has_open = ts_us[first] == stamp[first]
    # by numpy, whose sum over a bar depends on the rows of that bar alone, to the last bit
    bars = {
        "open": np.where(has_open, column["open"][first], np.nan),
        "high": np.maximum.reduceat(column["high"], first),
        "low": np.minimum.reduceat(column["low"], first),
        "close": column["close"][last],
        "volume": np.add.reduceat(column["volume"], first),
    }
    return pl.DataFrame(
        [pl.Series("ts", stamp[first]).cast(TS), *(pl.Series(k, v, nan_to_null=True) for k, v in bars.items())]
    )


def grid_span(bars: list[Series], *, start_us: int, end_us: int, bar_us: int) -> tuple[int, int]:
    """First stamp and number of stamps of a run: in ``[start, end)``, every leg begun and none ended.

    Raises
    ------
    DataError
        If no stamp is left, showing the span asked for and the span of each leg.
    """
    first = max(start_us, *(series.first_us for series in bars))
    first = -(-first // bar_us) * bar_us
    last = min(end_us - 1, *(series.last_us for series in bars)) // bar_us * bar_us
    n_bars = (last - first) // bar_us + 1
    if n_bars < 1:
        spans = "; ".join(f"{s.key.instrument} {_day(s.first_us)} to {_day(s.last_us)}" for s in bars)
        raise DataError(
            f"no bar is common to all legs between {_day(start_us)} and {_day(end_us)}",
            where={"legs": spans},
            fix="choose start and end inside the spans of all legs",
        )
    return first, n_bars


def align(bars: list[pl.DataFrame], *, first_us: int, n_rows: int, bar_us: int) -> pl.DataFrame:
    """All legs on the stamps ``first + k * bar``: ``ts`` and ``open_i`` to ``volume_i``, null where there is no bar."""
    columns = [pl.Series("ts", np.arange(n_rows, dtype=np.int64) * bar_us + first_us).cast(TS)]
    for leg, leg_bars in enumerate(bars):
        row, beside = np.divmod(leg_bars["ts"].to_physical().to_numpy() - first_us, bar_us)
        on_grid = (beside == 0) & (row >= 0) & (row < n_rows)
        for field in FIELDS:
            placed = np.full(n_rows, np.nan)  # no value of a checked file is NaN, so that NaN is a null here
            placed[row[on_grid]] = leg_bars[field].to_numpy()[on_grid]
            columns.append(pl.Series(f"{field}_{leg}", placed, nan_to_null=True))
    return pl.DataFrame(columns)


def _day(us: int) -> str:
    return from_us(us).strftime("%Y-%m-%dT%H:%MZ")
