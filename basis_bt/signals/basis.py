"""Signals made of the distance between the short and the long leg."""

import polars as pl

from basis_bt.core.instruments import Combo

MIN_DEVIATION_BPS = 1e-9


def basis_bps(combo: Combo) -> pl.Expr:
    """Close of the first short leg over that of the first long leg, minus one, in bps; null where either has no bar."""
    ratios = [leg.ratio for leg in combo.legs]
    short = next(index for index, ratio in enumerate(ratios) if ratio < 0)
    long = next(index for index, ratio in enumerate(ratios) if ratio > 0)
    return (pl.col(f"close_{short}") / pl.col(f"close_{long}") - 1.0) * 1e4


def basis_zscore(combo: Combo, *, hours: float, n_bars: int) -> pl.Expr:
    """The latest basis against mean and deviation (ddof 1) of the last ``n_bars`` rows, missing ones left out.

    Null until ``hours`` of rows exist, and where the deviation is under 1e-9 bps: there is nothing to measure in.
    """
    basis = basis_bps(combo)
    mean = basis.rolling_mean(n_bars, min_samples=2)
    deviation = basis.rolling_std(n_bars, min_samples=2, ddof=1)
    usable = (deviation > MIN_DEVIATION_BPS) & (pl.col("history_hours") >= hours - 1e-9)
    return pl.when(usable).then((basis - mean) / deviation)
