"""A plateau or a peak: how the trials next to a good one did.

Two designs are told apart. In a grid the neighbours of a trial lie within ``steps`` positions of it along every numeric
axis, positions being those among the axis's distinct values, failed trials' included. In a random design, where two
numeric axes or more vary and on one of them no two trials of the same text values share a value, no such grid exists:
the neighbours are then the ``N_NEAREST`` trials with the smallest distance, which is the largest difference over the
numeric axes between ranks scaled to 0 ... 1; the lower trial number wins a tie. Either way a neighbour is equal on
every axis that is not numeric, and a missing value of a numeric axis is near to nothing but another missing one.

A trial is not its own neighbour, and one without a value of the metric is nobody's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError

N_NEAREST = 20
BOXES = (1 / 64, 1 / 16, 1 / 4, 1.0)  # half widths tried around a trial of a random design; the last holds all
LOWER_IS_BETTER = frozenset(
    {
        "ann_vol", "max_drawdown", "max_drawdown_hours", "n_refused", "n_rollbacks", "n_unfilled", "n_liquidations",
        "naked_hours", "fees_usd", "slippage_usd", "rollback_usd", "transfer_usd", "liquidation_usd", "borrow_usd",
        "delivery_fee_usd", "costs_usd",
    }
)  # fmt: skip


def robustness(
    trials: pl.DataFrame, *, axes: Sequence[str], metric: str, trial: int | None = None, steps: int = 1
) -> pl.DataFrame:
    """The neighbourhood of one trial, by default the best.

    Parameters
    ----------
    trials : one row a trial: ``trial``, the axes, the metric and ``status``
    axes : the parameter columns that vary
    metric : the column judged; lower counts as better for those of ``LOWER_IS_BETTER``
    trial : the trial at the centre; the best one if not given, the lowest number among equals
    steps : how far the neighbourhood of a grid reaches; a random design takes the nearest trials whatever it is

    Returns
    -------
    DataFrame of one row: ``trial``, ``value``, ``n_neighbours``, ``neighbourhood_mean``, ``neighbourhood_worst``,
    ``neighbourhood_best`` (null without neighbours) and ``share_of_best``, the mean over the value (null unless the
    value is above 0). In a full grid of two axes a trial off the edge has 8 neighbours at one step; fewer means an
    edge, or cells without a value.

    Raises
    ------
    ConfigError
        If no trial has a value of the metric, the one asked for has none, or a column is missing.
    """
    known = with_value(trials, metric=metric)
    if trial is None:
        trial = int(best_first(known, metric=metric)["trial"][0])
    elif trial not in known["trial"]:
        raise ConfigError(
            f"trial {trial} has no {metric}",
            where={"trial": trial, "metric": metric},
            fix="name a trial with status ok and a value, or leave it out for the best",
        )
    return _scores(trials, known, axes=axes, metric=metric, centres=[trial], steps=steps)


def robust_scores(
    trials: pl.DataFrame, *, axes: Sequence[str], metric: str, steps: int = 1, top: int = 100
) -> pl.DataFrame:
    """The best ``top`` trials, those with the best neighbourhoods first, so that a plateau can be chosen.

    Returns
    -------
    DataFrame with the axes and the columns of `robustness`, by ``neighbourhood_mean``; trials without neighbours last

    Raises
    ------
    ConfigError
        As `robustness` does.
    """
    known = with_value(trials, metric=metric)
    centres = best_first(known, metric=metric)["trial"].head(top).to_list()
    scores = _scores(trials, known, axes=axes, metric=metric, centres=centres, steps=steps)
    higher = metric not in LOWER_IS_BETTER
    return (
        known.select("trial", *axes)
        .join(scores, on="trial")
        .sort("neighbourhood_mean", "value", "trial", descending=[higher, higher, False], nulls_last=True)
    )


def with_value(trials: pl.DataFrame, *, metric: str) -> pl.DataFrame:
    """The trials of status ok with a finite value of the metric.

    Raises
    ------
    ConfigError
        If there is none, or a column is missing.
    """
    need_columns(trials, ["trial", "status", metric])
    known = trials.filter(pl.col("status") == "ok", pl.col(metric).cast(pl.Float64).is_finite())
    if known.is_empty():
        counts = trials["status"].value_counts(sort=True).rows()
        raise ConfigError(
            f"no trial has a value of {metric}",
            where={"trials": len(trials), **{f"status {status}": n for status, n in counts}},
            fix="choose another metric, or look into the status of the trials",
        )
    return known


def best_first(known: pl.DataFrame, *, metric: str) -> pl.DataFrame:
    """Trials sorted by the metric, the best first, the lower number first among equals."""
    return known.sort(metric, "trial", descending=[metric not in LOWER_IS_BETTER, False])


def is_random(trials: pl.DataFrame, *, axes: Sequence[str]) -> bool:
    """Whether the trials are a random design rather than a grid, in the sense of this file."""
    varying = [axis for axis in axes if trials[axis].dtype.is_numeric() and trials[axis].n_unique() > 1]
    others = [axis for axis in axes if not trials[axis].dtype.is_numeric()]
    return len(varying) > 1 and any(trials.n_unique([*others, axis]) == len(trials) for axis in varying)


def need_columns(trials: pl.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    ConfigError
        With the names that are missing.
    """
    missing = [name for name in names if name not in trials.columns]
    if missing:
        raise ConfigError(
            f"the trials have no column {', '.join(missing)}",
            where={"columns": ", ".join(trials.columns)},
            fix="name a parameter that varies (param_...) or a metric of the trials",
        )


class _Places(NamedTuple):
    """Where each trial with a value lies: places along numeric axes, codes that must be equal."""

    numeric: list[np.ndarray]
    equal: list[np.ndarray]


def _scores(
    trials: pl.DataFrame, known: pl.DataFrame, *, axes: Sequence[str], metric: str, centres: list[int], steps: int
) -> pl.DataFrame:
    if not axes:
        raise ConfigError("a neighbourhood needs an axis", fix="name the parameters that vary")
    if steps < 1:
        raise ConfigError(f"steps must be 1 or more, found {steps}", fix="leave it out for the cells next to a trial")
    need_columns(trials, axes)
    random = is_random(trials, axes=axes)
    known = known.sort("trial")
    places = _places(trials, known, axes=axes, scaled=random)
    numbers, values = known["trial"].to_numpy(), known[metric].cast(pl.Float64).to_numpy()
    best, worst = (np.min, np.max) if metric in LOWER_IS_BETTER else (np.max, np.min)
    rows = []
    for trial in centres:
        centre = int(np.searchsorted(numbers, trial))
        near = values[_nearest(places, centre) if random else _within(places, centre, reach=steps)]
        value, any_near = float(values[centre]), len(near) > 0
        mean = float(near.mean()) if any_near else None
        rows.append(
            {
                "trial": trial,
                "value": value,
                "n_neighbours": len(near),
                "neighbourhood_mean": mean,
                "neighbourhood_worst": float(worst(near)) if any_near else None,
                "neighbourhood_best": float(best(near)) if any_near else None,
                "share_of_best": mean / value if mean is not None and value > 0 else None,
            }
        )
    floats = ("neighbourhood_mean", "neighbourhood_worst", "neighbourhood_best", "share_of_best")
    return pl.DataFrame(rows, schema_overrides={"trial": known["trial"].dtype} | dict.fromkeys(floats, pl.Float64))


def _places(trials: pl.DataFrame, known: pl.DataFrame, *, axes: Sequence[str], scaled: bool) -> _Places:
    numeric, equal = [], []
    for axis in axes:
        distinct = trials[axis].unique().drop_nulls().sort()
        if not trials[axis].dtype.is_numeric():
            equal.append(known[axis].rank("dense").cast(pl.Int64).fill_null(0).to_numpy())
            continue
        place = np.searchsorted(distinct.to_numpy(), known[axis].fill_null(0).to_numpy()).astype(np.float64)
        numeric.append(place / max(len(distinct) - 1, 1) if scaled else place)
        if known[axis].null_count():
            equal.append(known[axis].is_null().cast(pl.Int64).to_numpy())
            numeric[-1][equal[-1] == 1] = 0.0
    return _Places(numeric, equal)


def _within(places: _Places, centre: int, *, reach: float) -> np.ndarray:
    """Rows of the other trials in the box around one; each axis looks only at what the ones before left."""
    rows: Any = slice(None)
    for place, far in (*((place, reach) for place in places.numeric), *((code, 0) for code in places.equal)):
        found = np.flatnonzero(np.abs(place[rows] - place[centre]) <= far)
        rows = found if isinstance(rows, slice) else rows[found]
    return rows[rows != centre]


def _nearest(places: _Places, centre: int) -> np.ndarray:
    """Rows of the nearest other trials, from the smallest box that holds enough: all outside of it are farther.

    Rows are in the order of trial numbers, which settles ties.
    """
    for reach in BOXES:
        rows = _within(places, centre, reach=reach)
        if len(rows) >= N_NEAREST:
            break
    away = np.max([np.abs(place[rows] - place[centre]) for place in places.numeric], axis=0)
    return rows[np.argsort(away, kind="stable")][:N_NEAREST]
