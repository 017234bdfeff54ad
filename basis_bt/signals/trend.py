"""A gate by trend and funding, on daily closes of days that are over."""

import math

import numpy as np
import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.core.units import US_PER_DAY
from basis_bt.frames.funding_columns import settled_column
from basis_bt.signals.funding import perp_legs


def trend_gate(combo: Combo, *, n: int, days: int, bar_us: int) -> pl.Expr:
    """+1 where ``n`` closes in a row are above the trend and the last funding paid the combo; -1 for the mirror.

    Each close of the reference leg is compared with the mean of the closes of the last ``days`` UTC days that were over
    when its bar ended: the close of a day counts once the day is over, never before. Rows without a close are left out
    of the row of ``n``. Else 0; null where the row has no close, or there are not yet ``days`` days, ``n`` such closes
    or a settled rate.
    """
    (perp,) = perp_legs(combo)
    sign = 1.0 if combo.legs[perp].ratio < 0 else -1.0
    columns = pl.struct(
        pl.col("ts").to_physical().alias("ts"),
        pl.col(f"close_{combo.reference}").alias("close"),
        (sign * pl.col(settled_column(perp, "mean", 1))).alias("funding"),
    )

    def gate(rows: pl.Series) -> pl.Series:
        close, funding = (rows.struct.field(name).fill_null(math.nan).to_numpy() for name in ("close", "funding"))
        row_end_us = rows.struct.field("ts").to_numpy() + bar_us
        trend = daily_means(row_end_us, close, days=days)
        return pl.Series(_gate(close, trend, funding, n=n), nan_to_null=True)

    return columns.map_batches(gate, return_dtype=pl.Float64)


def daily_means(row_end_us: np.ndarray, close: np.ndarray, *, days: int) -> np.ndarray:
    """Mean of the daily closes of the last ``days`` UTC days over by the end of each row; NaN until there are so many.

    A day without any bar is left out of the mean. The count begins with the first day that has one.
    """
    has_close = ~np.isnan(close)
    out = np.full(len(close), np.nan)
    if not has_close.any():
        return out
    day = (row_end_us - 1) // US_PER_DAY
    first = int(day[has_close][0])
    closes: dict[int, float] = dict(zip(day[has_close].tolist(), close[has_close].tolist(), strict=True))
    means: dict[int, float] = {}
    for row, over in enumerate((row_end_us // US_PER_DAY).tolist()):
        if over - days < first:
            continue
        if over not in means:
            window = [closes[one] for one in range(over - days, over) if one in closes]
            means[over] = math.fsum(window) / len(window) if window else math.nan
        out[row] = means[over]
    return out


def _gate(close: np.ndarray, trend: np.ndarray, funding: np.ndarray, *, n: int) -> np.ndarray:
    """The gate by row, from closes, means and what funding last paid, NaN where not known."""
    out = np.full(len(close), np.nan)
    above = below = compared = 0
    for row, (price, mean, paid) in enumerate(zip(close.tolist(), trend.tolist(), funding.tolist(), strict=True)):
        if math.isnan(price) or math.isnan(mean):
            continue
        compared += 1
        above = above + 1 if price > mean else 0
        below = below + 1 if price < mean else 0
        if compared >= n and not math.isnan(paid):
            out[row] = 1.0 if above >= n and paid > 0 else -1.0 if below >= n and paid < 0 else 0.0
    return out
