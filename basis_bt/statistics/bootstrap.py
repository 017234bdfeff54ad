"""The stationary bootstrap: resamples made of blocks of random length, which keep the dependence within a block."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from basis_bt.core.errors import ConfigError
from basis_bt.statistics.sharpe import checked, moments

CHUNK_VALUES = 1_000_000  # of a resample at once: about 60 MB while it is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """``point`` is the statistic of the data; of the resamples a share ``confidence`` is in ``[low, high]``."""

    point: float
    low: float
    high: float
    confidence: float
    block_length: float
    n_resamples: int


def index_chunks(n_bars: int, *, n_resamples: int, block_length: float, seed: int = 0) -> Iterator[np.ndarray]:
    """Bars of the resamples, a chunk at a time; each array ``(n_rows, n_bars)`` int64, ``n_resamples`` rows in all.

    A resample starts at a random bar and goes on bar by bar, from the last to the first; before each bar it jumps to
    another random one with probability ``1 / block_length``, so blocks are ``block_length`` bars long on average, and
    1 is the plain bootstrap. The seed fixes the rows (PCG64), not how they are cut into chunks.
    Source: Politis & Romano (1994), Journal of the American Statistical Association 89(428).

    Raises
    ------
    ConfigError
        If there is no bar or resample, the block length is under 1 or not finite, or the seed negative.
    """
    if n_bars < 1 or n_resamples < 1:
        raise ConfigError(f"needs a bar and a resample, found n_bars={n_bars}, n_resamples={n_resamples}")
    if not (math.isfinite(block_length) and block_length >= 1.0):
        raise ConfigError(f"block_length must be at least 1 bar, found {block_length}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, found {seed}")
    return _drawn(n_bars, n_resamples=n_resamples, block_length=block_length, seed=seed)


def _drawn(n_bars: int, *, n_resamples: int, block_length: float, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    bars = np.arange(n_bars)
    rows = max(1, CHUNK_VALUES // n_bars)
    for first in range(0, n_resamples, rows):
        draws = generator.random((min(rows, n_resamples - first), 2, n_bars))
        is_jump = draws[:, 0] < 1.0 / block_length
        jumped_at = np.maximum.accumulate(np.where(is_jump, bars, 0), axis=1)
        jumped_to = (draws[:, 1] * n_bars).astype(np.int64)
        index = np.take_along_axis(jumped_to, jumped_at, axis=1) + (bars - jumped_at)
        index[index >= n_bars] -= n_bars
        yield index


def resample_indices(n_bars: int, *, n_resamples: int, block_length: float, seed: int = 0) -> np.ndarray:
    """All rows of ``index_chunks`` in one array ``(n_resamples, n_bars)``."""
    return np.concatenate(list(index_chunks(n_bars, n_resamples=n_resamples, block_length=block_length, seed=seed)))


def optimal_block_length(returns: ArrayLike) -> float:
    """Mean block length, in bars, that estimates the variance of a mean best; from 1 to ``min(3 sqrt(n), n / 3)``.

    ``(2 g^2 n / d)^(1/3)`` with ``s = sum of h(k/m) gamma_k``, ``g = sum of h(k/m) |k| gamma_k``, ``d = 2 s^2`` over
    lags from -m to m, ``h`` flat up to a half and falling to 0 at 1. ``m`` is twice the first lag from which five
    correlations in a row are small; as ``arch`` has it, where the paper counts from the lag before. A result under 1
    is given as 1. It is an estimate, and a rough one for a few hundred bars. 1 where nothing moves.
    Source: Politis & White (2004), Econometric Reviews 23(1); corrected by Patton, Politis & White (2009), 28(4).

    Raises
    ------
    ConfigError
        If there are fewer than 16 bars, or one is not finite.
    """
    values = checked(returns, n_dims=1, min_bars=16)
    n = len(values)
    if moments(values).skewness is None:
        return 1.0
    around = values - values.mean()
    in_a_row = max(5, int(math.log10(n)))
    max_lag = math.ceil(math.sqrt(n)) + in_a_row
    sums = np.array([around[lag:] @ around[: n - lag] for lag in range(max_lag + 1)])
    squares = np.concatenate([[0.0], np.cumsum(around**2)])
    lags = np.arange(max_lag + 1)
    scale = np.sqrt((squares[n] - squares[lags]) * squares[n - lags])
    is_small = np.abs(sums) < 2.0 * math.sqrt(math.log10(n) / n) * scale
    runs = [lag for lag in range(1, max_lag - in_a_row + 1) if is_small[lag : lag + in_a_row].all()]
    m = min(2 * runs[0], max_lag) if runs else max_lag

    k = np.arange(1, m + 1)
    weighted = np.minimum(1.0, 2.0 * (1.0 - k / m)) * sums[1 : m + 1] / n
    spread, slope = sums[0] / n + 2.0 * weighted.sum(), 2.0 * (k @ weighted)
    longest = float(math.ceil(min(3.0 * math.sqrt(n), n / 3.0)))
    if spread == 0.0:
        return longest
    return min(longest, max(1.0, float((slope / spread) ** 2 * n) ** (1.0 / 3.0)))


def bootstrap_interval(
    returns: ArrayLike,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    block_length: float | None = None,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of returns ``(n_bars,)`` by the stationary bootstrap.

    Parameters
    ----------
    returns : per bar
    statistic : takes resamples ``(n_rows, n_bars)`` and gives their values ``(n_rows,)``, in any unit
    block_length : mean block in bars; None for ``optimal_block_length``

    Raises
    ------
    ConfigError
        If the statistic gives another shape, or a value that is not finite; if the confidence is not between 0 and 1;
        or as ``index_chunks`` and ``optimal_block_length``.
    """
    values = checked(returns, n_dims=1, min_bars=2)
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence must be between 0 and 1, found {confidence}")
    length = optimal_block_length(values) if block_length is None else float(block_length)
    chunks = index_chunks(len(values), n_resamples=n_resamples, block_length=length, seed=seed)
    point = float(_values(statistic, values[None, :])[0])
    drawn = np.concatenate([_values(statistic, values[index]) for index in chunks])
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(
        point=point,
        low=float(low),
        high=float(high),
        confidence=confidence,
        block_length=length,
        n_resamples=n_resamples,
    )


def _values(statistic: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What the statistic says of each row, checked."""
    values = np.asarray(statistic(rows), dtype=np.float64)
    if values.shape != (len(rows),):
        raise ConfigError(
            f"the statistic must give one value a row, shape ({len(rows)},), found {values.shape}",
            fix="reduce over axis=1",
        )
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ConfigError(
            f"the statistic must be finite, found {bad} of {len(values)} values that are not",
            fix="take one that is defined where a resample does not move, or longer blocks",
        )
    return values
