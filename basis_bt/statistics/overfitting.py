"""Probability of backtest overfitting: how often the best trial of one half of the bars is a bad one in the other."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import ArrayLike

from basis_bt.core.errors import ConfigError
from basis_bt.statistics.sharpe import ROUNDING_FRAC, checked

MAX_BLOCKS = 20  # 184,756 combinations
BATCH_VALUES = 500_000  # combinations times trials at once: 4 MB an array
METRICS = ("sharpe", "mean")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overfitting:
    """What ``cscv`` finds; arrays have one entry a combination.

    ``pbo`` is the share of combinations in which the trial chosen in sample is in the worse half out of sample, one
    exactly in the middle counting half. ``logits`` are ``log(w / (1 - w))`` of its relative rank out of sample, above 0
    in the better half. ``slope`` is that of its performance out of sample on that in sample (None where the latter is
    always the same), ``loss_probability`` the share of combinations in which it loses out of sample.
    """

    pbo: float
    logits: np.ndarray
    slope: float | None
    loss_probability: float
    n_combinations: int
    chosen: np.ndarray
    performance_in: np.ndarray
    performance_out: np.ndarray


def cscv(returns: ArrayLike, *, n_blocks: int = 16, purge: int = 0, metric: str = "sharpe") -> Overfitting:
    """Combinatorially symmetric cross-validation of trials ``(n_bars, n_trials)``, returns per bar.

    The bars are cut into ``n_blocks`` blocks of equal length (the first ones a bar longer where it does not divide).
    Every half of the blocks is in sample once, the rest out of sample. The trial that is best in sample, the first of
    equals, is ranked out of sample from 1 (worst); equals share the middle of their ranks, and the relative rank is the
    rank over ``n_trials + 1``. A trial that does not move in a half has a Sharpe ratio of 0 there.

    Give it every trial that was looked at: left with the good ones alone, it measures something else.
    Source: Bailey, Borwein, López de Prado & Zhu (2017), Journal of Computational Finance 20(4).

    Parameters
    ----------
    n_blocks : even, from 2 to 20; 16 are 12,870 combinations
    purge : bars taken from an in-sample block at each border with an out-of-sample one; at least as many as a position
        is held and a signal looks back, which the caller knows
    metric : ``"sharpe"`` or ``"mean"``, per bar

    Raises
    ------
    ConfigError
        If there are fewer than two trials or two bars a block, the blocks are not even in number, the purge leaves
        nothing of a block between two out-of-sample ones, a value is not finite, or the metric is another.
    """
    values = checked(returns, n_dims=2, min_bars=2)
    if n_blocks % 2 or not 2 <= n_blocks <= MAX_BLOCKS:
        raise ConfigError(f"n_blocks must be even and from 2 to {MAX_BLOCKS}, found {n_blocks}")
    if metric not in METRICS:
        raise ConfigError(f"metric must be one of {', '.join(METRICS)}, found {metric!r}")
    n_bars, n_trials = values.shape
    if n_trials < 2:
        raise ConfigError("one trial cannot be overfitted by choosing: needs at least 2", fix="give all trials")
    shortest = n_bars // n_blocks
    if purge < 0 or shortest < max(2, 2 * purge + 1):
        raise ConfigError(
            f"a block of {shortest} bars must have at least 2 and keep 1 when {purge} are purged at both ends",
            where={"n_bars": n_bars, "n_blocks": n_blocks, "purge": purge},
            fix="take fewer blocks, a longer period, or a purge of 0 or more that is shorter",
        )
    lengths, sums, squares = _segments(values, n_blocks=n_blocks, purge=purge)
    found = []
    for inside in _halves(n_blocks, at_once=max(1, BATCH_VALUES // n_trials)):
        first = _performance(_kept(inside), lengths, sums, squares, metric=metric)
        second = _performance(np.tile(~inside, 3).astype(np.float64), lengths, sums, squares, metric=metric)
        rows = np.arange(len(inside))
        # equal trials may differ in the last digits of a product of matrices
        chosen = np.argmax(first >= _below(first.max(axis=1))[:, None], axis=1)
        out = second[rows, chosen]
        worse = (second < _below(out)[:, None]).sum(axis=1)
        equal = (second <= -_below(-out)[:, None]).sum(axis=1) - worse
        found.append((chosen, first[rows, chosen], out, worse + (equal + 1) / 2.0))
    chosen, performance_in, performance_out, rank = (np.concatenate(parts) for parts in zip(*found, strict=True))
    logits = np.log(rank / (n_trials + 1.0 - rank))
    return Overfitting(
        pbo=float((logits < 0.0).mean() + 0.5 * (logits == 0.0).mean()),
        logits=logits,
        slope=_slope(performance_in, performance_out),
        loss_probability=float((performance_out < 0.0).mean()),
        n_combinations=len(logits),
        chosen=chosen,
        performance_in=performance_in,
        performance_out=performance_out,
    )


def _segments(values: np.ndarray, *, n_blocks: int, purge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bars, sums and sums of squares of all heads, then all bodies, then all tails; by segment, the sums by trial."""
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(len(values)), n_blocks)])
    starts = np.concatenate([[0], ends[:-1]])
    edges = [(starts, starts + purge), (starts + purge, ends - purge), (ends - purge, ends)]
    first, last = (np.concatenate(sides) for sides in zip(*edges, strict=True))
    parts = [values[a:b] for a, b in zip(first, last, strict=True)]
    sums = np.array([part.sum(axis=0) for part in parts])
    squares = np.array([np.einsum("ij,ij->j", part, part) for part in parts])
    return (last - first).astype(np.float64), sums, squares


def _halves(n_blocks: int, *, at_once: int) -> Iterator[np.ndarray]:
    """Every choice of half the blocks, as masks ``(n_rows, n_blocks)``, a batch at a time."""
    every = combinations(range(n_blocks), n_blocks // 2)
    while batch := list(islice(every, at_once)):
        inside = np.zeros((len(batch), n_blocks), dtype=bool)
        np.put_along_axis(inside, np.array(batch), True, axis=1)
        yield inside


def _kept(inside: np.ndarray) -> np.ndarray:
    """Which segments are in sample: bodies of inside blocks, heads and tails where the neighbour is inside too."""
    head, tail = inside.copy(), inside.copy()
    head[:, 1:] &= inside[:, :-1]
    tail[:, :-1] &= inside[:, 1:]
    return np.concatenate([head, inside, tail], axis=1).astype(np.float64)


def _performance(
    kept: np.ndarray, lengths: np.ndarray, sums: np.ndarray, squares: np.ndarray, *, metric: str
) -> np.ndarray:
    """Sharpe ratio or mean of every trial over the segments kept, ``(n_rows, n_trials)``."""
    n = (kept @ lengths)[:, None]
    mean = kept @ sums / n
    if metric == "mean":
        return mean
    mean_square = kept @ squares / n
    variance = (mean_square - mean**2) * (n / np.maximum(n - 1.0, 1.0))
    # the difference of two squares keeps the digits of a variance unless it is far below them
    moves = variance > np.maximum(ROUNDING_FRAC * mean_square, ROUNDING_FRAC**2)
    return np.divide(mean, np.sqrt(variance, where=moves, out=np.ones_like(mean)), where=moves, out=np.zeros_like(mean))


def _below(value: np.ndarray) -> np.ndarray:
    """A hair under the value: what is not below it counts as equal."""
    return value - (1e-9 * np.abs(value) + 1e-14)


def _slope(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """Slope of the least-squares line of ``outside`` on ``inside``."""
    around = inside - inside.mean()
    squares = float(around @ around)
    if math.sqrt(squares / len(inside)) <= ROUNDING_FRAC:
        return None
    return float(around @ outside) / squares
