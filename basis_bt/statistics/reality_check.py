"""Is the best of many trials better than a benchmark, or the luckiest? White's reality check and Hansen's test.

Both resample all trials at the same bars, so that trials alike count as one, and ask how often the best of trials that
are worth nothing looks as good as the best seen.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from basis_bt.statistics.bootstrap import index_chunks, optimal_block_length
from basis_bt.statistics.sharpe import ROUNDING_FRAC, checked

COLUMNS_AT_ONCE = 256
ROW_VALUES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RealityCheck:
    """``statistic`` is ``sqrt(n_bars)`` times the mean of trial ``best`` (a column).

    ``p_value`` is the share of resamples in which the best of worthless trials does as well.
    """

    statistic: float
    p_value: float
    best: int
    block_length: float
    n_resamples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperiorAbility:
    """``statistic`` is the largest t value, or 0 where no trial beats the benchmark; ``best`` is the column.

    ``p_consistent`` is the one to report, between ``p_lower`` (trials under the benchmark are as bad as they look) and
    ``p_upper`` (each is as good as the benchmark). ``n_flat`` trials never differ from the benchmark and are left out.
    """

    statistic: float
    p_lower: float
    p_consistent: float
    p_upper: float
    best: int
    n_flat: int
    block_length: float
    n_resamples: int


def reality_check(
    excess: ArrayLike, *, n_resamples: int = 1000, block_length: float | None = None, seed: int = 0
) -> RealityCheck:
    """White's reality check: p value of the hypothesis that no trial has a mean above 0.

    Not studentised: a trial with a large deviation drowns the others, and bad trials cost power. Parameters and errors
    as ``superior_ability``.
    Source: White (2000), "A reality check for data snooping", Econometrica 68(5).
    """
    values, mean, length = _prepared(excess, block_length)
    scale = np.full(len(mean), math.sqrt(len(values)))
    chunks = index_chunks(len(values), n_resamples=n_resamples, block_length=length, seed=seed)
    maxima = resampled_maxima(values, chunks, scale=scale, shifts=np.zeros((1, len(mean))))
    best = int(np.argmax(mean))
    statistic = float(mean[best] * scale[best])
    return RealityCheck(
        statistic=statistic,
        p_value=float((maxima[:, 0] >= statistic).mean()),
        best=best,
        block_length=length,
        n_resamples=n_resamples,
    )


def superior_ability(
    excess: ArrayLike,
    *,
    n_resamples: int = 1000,
    block_length: float | None = None,
    studentise: bool = True,
    seed: int = 0,
) -> SuperiorAbility:
    """Hansen's test of superior predictive ability: p values of the hypothesis that no trial has a mean above 0.

    A trial's mean is divided by its standard error, in the data and in every resample, the error being that of the
    data (``long_run_variance``). The consistent p value drops trials more than ``sqrt(2 log log n)`` standard errors
    under the benchmark. p values count resamples at or above the statistic, so no trial above the benchmark gives 1.
    Source: Hansen (2005), Journal of Business & Economic Statistics 23(4).

    Parameters
    ----------
    excess : ``(n_bars, n_trials)``, returns per bar less those of the benchmark; all trials looked at, not the best
    block_length : mean block in bars; None for the ``optimal_block_length`` of the trial with the highest mean
    studentise : False leaves out the division, for comparison with other programs

    Raises
    ------
    ConfigError
        If the matrix has fewer than 16 bars, no trial, or a value that is not finite, or as ``index_chunks``.
    """
    values, mean, length = _prepared(excess, block_length)
    n_bars = len(values)
    chunks = index_chunks(n_bars, n_resamples=n_resamples, block_length=length, seed=seed)
    error = np.sqrt(long_run_variance(values, block_length=length) / n_bars)
    is_flat = error <= ROUNDING_FRAC * np.maximum(1.0, np.abs(mean)) / math.sqrt(n_bars)
    if studentise:
        scale = np.where(is_flat, 0.0, 1.0 / np.where(is_flat, 1.0, error))
    else:
        scale = np.where(is_flat, 0.0, math.sqrt(n_bars))
    is_hopeless = mean < -error * math.sqrt(2.0 * math.log(math.log(n_bars)))
    shifts = np.stack([np.minimum(mean, 0.0), np.where(is_hopeless, mean, 0.0), np.zeros(len(mean))])
    maxima = np.maximum(resampled_maxima(values, chunks, scale=scale, shifts=shifts), 0.0)
    best = int(np.argmax(np.where(is_flat, -np.inf, mean * scale)))
    statistic = max(0.0, float(mean[best] * scale[best]))
    p_lower, p_consistent, p_upper = (maxima >= statistic).mean(axis=0).tolist()
    return SuperiorAbility(
        statistic=statistic,
        p_lower=p_lower,
        p_consistent=p_consistent,
        p_upper=p_upper,
        best=best,
        n_flat=int(is_flat.sum()),
        block_length=length,
        n_resamples=n_resamples,
    )


def long_run_variance(returns: ArrayLike, *, block_length: float) -> np.ndarray:
    """Variance of ``sqrt(n_bars)`` times the mean of each column ``(n_bars, n_trials)``, under the bootstrap itself.

    ``gamma_0 + 2 sum(kappa_i gamma_i)``, ``kappa_i = (1 - i/n) q^i + (i/n) q^(n - i)``, ``q = 1 - 1 / block_length``:
    what infinitely many stationary resamples would show. The weights and the series both close into a circle, so the
    sum over all lags is one over frequencies.
    Source: Hansen (2005), after Politis & Romano (1994).
    """
    values = np.asarray(returns, dtype=np.float64)
    n_bars, n_trials = values.shape
    lags = np.arange(n_bars)
    keep = (1.0 - lags / n_bars) * (1.0 - 1.0 / block_length) ** lags
    weights = keep.copy()
    weights[1:] += keep[:0:-1]
    by_frequency = np.fft.rfft(weights).real / n_bars**2
    by_frequency[1 : (n_bars + 1) // 2] *= 2.0  # those between the ends stand for two frequencies
    variance = np.empty(n_trials)
    for first in range(0, n_trials, COLUMNS_AT_ONCE):
        columns = slice(first, first + COLUMNS_AT_ONCE)
        around = values[:, columns] - values[:, columns].mean(axis=0)
        variance[columns] = by_frequency @ np.abs(np.fft.rfft(around, axis=0)) ** 2
    return np.maximum(variance, 0.0)


def resampled_maxima(
    excess: np.ndarray, chunks: Iterable[np.ndarray], *, scale: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """Over the trials, the largest ``scale * (resampled mean - mean + shift)``; ``(n_resamples, n_shifts)``.

    A resample is how often it has each bar, so the means of all trials are one product of matrices.

    Parameters
    ----------
    excess : ``(n_bars, n_trials)``
    chunks : bars of the resamples, as ``index_chunks`` gives them, any number of rows at a time
    scale : by trial
    shifts : ``(n_shifts, n_trials)``, what is added to each trial's centred mean
    """
    n_bars, n_trials = excess.shape
    mean = excess.mean(axis=0)
    rows_at_once = max(1, ROW_VALUES // max(n_bars, n_trials))
    maxima = []
    for chunk in chunks:
        for first in range(0, len(chunk), rows_at_once):
            index = chunk[first : first + rows_at_once]
            places = index + n_bars * np.arange(len(index))[:, None]
            counts = np.bincount(places.ravel(), minlength=index.size).reshape(index.shape)
            centred = (counts / n_bars) @ excess - mean
            maxima.append(np.stack([(scale * (centred + shift)).max(axis=1) for shift in shifts], axis=1))
    return np.concatenate(maxima)


def _prepared(excess: ArrayLike, block_length: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """The matrix, checked, the mean of each column, and the block length."""
    values = checked(excess, n_dims=2, min_bars=16)
    mean = values.mean(axis=0)
    length = optimal_block_length(values[:, int(np.argmax(mean))]) if block_length is None else float(block_length)
    return values, mean, length
