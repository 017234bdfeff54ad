"""Signals made of the distance between the short and the long leg."""

import numpy as np
import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.core.units import HOURS_PER_YEAR

MIN_DEVIATION_BPS = 1e-9
WINDOW_VALUES = 1 << 20


def basis_bps(combo: Combo) -> pl.Expr:
    """Close of the first short leg over that of the first long leg, minus one, in bps; null where either has no bar."""
    ratios = [leg.ratio for leg in combo.legs]
    short = next(index for index, ratio in enumerate(ratios) if ratio < 0)
    long = next(index for index, ratio in enumerate(ratios) if ratio > 0)
    return (pl.col(f"close_{short}") / pl.col(f"close_{long}") - 1.0) * 1e4


def dated_leg(combo: Combo) -> int | None:
    """Place of the first dated future of a combo."""
    return next((index for index, leg in enumerate(combo.legs) if leg.parsed.kind == "future"), None)


def undated_leg(combo: Combo) -> int | None:
    """Place of the leg a future is compared with: the first spot leg, else the first leg that is no future."""
    kinds = [leg.parsed.kind for leg in combo.legs]
    if "spot" in kinds:
        return kinds.index("spot")
    return next((index for index, kind in enumerate(kinds) if kind != "future"), None)


def basis_apr(combo: Combo) -> pl.Expr:
    """What the first dated future is above (short) or below (long) the spot, as a simple annual rate to its expiry.

    ``-sgn(ρ) (F / S - 1) 8760 / hours to expiry`` on closes, the hours counted from the end of the row; null where
    either has no bar, or the contract is over. +spot −future gives the plain basis.
    """
    future, spot = dated_leg(combo), undated_leg(combo)
    assert future is not None
    hours = pl.col(f"hours_to_expiry_{future}")
    basis = pl.col(f"close_{future}") / pl.col(f"close_{spot}") - 1.0
    sign = 1.0 if combo.legs[future].ratio < 0 else -1.0
    return pl.when(hours > 0).then(sign * basis * HOURS_PER_YEAR / hours)


def basis_zscore(combo: Combo, *, hours: float, n_bars: int) -> pl.Expr:
    """The latest basis against mean and deviation (ddof 1) of the last ``n_bars`` rows, missing ones left out.

    Null until ``hours`` of rows exist, and where the deviation is under 1e-9 bps: there is nothing to measure in.
    """
    score = basis_bps(combo).map_batches(
        lambda basis: pl.Series(_zscores(basis.fill_null(float("nan")).to_numpy(), n_bars=n_bars), nan_to_null=True),
        return_dtype=pl.Float64,
    )
    return pl.when(pl.col("history_hours") >= hours - 1e-9).then(score)


def _zscores(basis_bps: np.ndarray, *, n_bars: int) -> np.ndarray:
    """Z-score of each value in the window that ends with it, NaN left out, in two passes over each window.

    Polars' rolling functions update running sums, by another path where there are nulls: their last bits depend on rows
    outside the window, later ones among them. Here a value depends on its window alone.
    """
    out = np.full(len(basis_bps), np.nan)
    padded = np.concatenate([np.full(n_bars - 1, np.nan), basis_bps])
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_bars)
    rows = max(WINDOW_VALUES // n_bars, 1)
    for start in range(0, len(out), rows):
        window = windows[start : start + rows].copy()
        seen = ~np.isnan(window)
        count = seen.sum(axis=1)
        window[~seen] = 0.0
        mean = window.sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(seen, window - mean[:, None], 0.0) ** 2).sum(axis=1)
        deviation = np.sqrt(squares / np.maximum(count - 1, 1))
        usable = seen[:, -1] & (count >= 2) & (deviation > MIN_DEVIATION_BPS)
        out[start : start + rows][usable] = ((window[:, -1] - mean)[usable]) / deviation[usable]
    return out
