"""Sharpe ratios per bar, and how likely one is to be more than luck and selection.

Everything here is per bar. An annual Sharpe ratio is divided by the root of the bars of a year (8,760 for hours)
first, and a variance of annual ones by the bars of a year.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from basis_bt.core.errors import ConfigError

EULER_GAMMA = 0.5772156649015329
ROUNDING_FRAC = 1e-12  # a smaller deviation is what rounding makes of an equity that stands still
_NORMAL = NormalDist()


class Moments(NamedTuple):
    """``std`` divides by n - 1; ``skewness`` and ``kurtosis`` (3 for a normal) are None where nothing moves."""

    mean: float
    std: float
    skewness: float | None
    kurtosis: float | None


def checked(returns: ArrayLike, *, n_dims: int, min_bars: int) -> np.ndarray:
    """The returns as float64, of ``n_dims`` dimensions, bars first, all finite.

    Raises
    ------
    ConfigError
        If the shape is another, a value is missing or infinite, or there are fewer than ``min_bars`` bars.
    """
    values = np.asarray(returns, dtype=np.float64)
    shape = "(n_bars,)" if n_dims == 1 else "(n_bars, n_trials)"
    if values.ndim != n_dims or values.shape[-1] == 0:
        raise ConfigError(f"returns must have shape {shape}, found {values.shape}", fix="put bars in rows")
    if len(values) < min_bars:
        raise ConfigError(f"needs at least {min_bars} bars, found {len(values)}", fix="take a longer period")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ConfigError(
            f"returns must be finite, found {values[tuple(bad[0])]} ({len(bad)} values)",
            where={"bar": int(bad[0][0])} | ({"trial": int(bad[0][1])} if n_dims == 2 else {}),
            fix="leave out stale bars before taking returns",
        )
    return values


def is_flat(*, mean: float, std: float) -> bool:
    """Whether a deviation is no more than rounding: then there is no Sharpe ratio."""
    return std <= ROUNDING_FRAC * max(1.0, abs(mean))


def moments(returns: ArrayLike) -> Moments:
    """Mean, deviation, skewness and kurtosis of returns ``(n_bars,)``.

    The deviation is that of a sample (n - 1). Skewness and kurtosis are ratios of plain averages (n), and kurtosis is
    not in excess of 3: the convention of Bailey & López de Prado (2012), and what ``probabilistic_sharpe`` expects.

    Raises
    ------
    ConfigError
        If there are fewer than two bars, or one is not finite.
    """
    values = checked(returns, n_dims=1, min_bars=2)
    mean, std = float(values.mean()), float(values.std(ddof=1))
    if is_flat(mean=mean, std=std):
        return Moments(mean, std, None, None)
    standard = (values - mean) / values.std()
    return Moments(mean, std, float((standard**3).mean()), float((standard**4).mean()))


def sharpe(returns: ArrayLike) -> float | None:
    """Mean over deviation (n - 1) of returns ``(n_bars,)``, per bar; None where nothing moves.

    Raises
    ------
    ConfigError
        If there are fewer than two bars, or one is not finite.
    """
    values = moments(returns)
    return None if values.skewness is None else values.mean / values.std


def probabilistic_sharpe(sharpe: float, *, n: int, skewness: float, kurtosis: float, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above ``benchmark``, given the one seen over ``n`` bars.

    ``Phi((SR - benchmark) sqrt(n - 1) / sqrt(1 - skewness SR + (kurtosis - 1) / 4 SR^2))``, all ratios per bar. It
    takes bars as independent of each other: autocorrelated income makes it too sure.
    Source: Bailey & López de Prado (2012), "The Sharpe ratio efficient frontier", Journal of Risk 15(2).

    Returns
    -------
    Between 0 and 1; where the estimate has no error (two values only, at one Sharpe ratio) 0, 0.5 or 1.

    Raises
    ------
    ConfigError
        If ``n`` is under 2, an input is not finite, or no distribution has that skewness and kurtosis.
    """
    if n < 2:
        raise ConfigError(f"n must be at least 2 bars, found {n}")
    error = math.sqrt(_variance_factor(sharpe, skewness=skewness, kurtosis=kurtosis) / (n - 1))
    gap = sharpe - _finite(benchmark, "benchmark")
    if error == 0.0:
        return 0.5 + 0.5 * ((gap > 0.0) - (gap < 0.0))
    return _NORMAL.cdf(gap / error)


def expected_max_sharpe(variance: float, *, n_trials: float) -> float:
    """SR0: the best Sharpe ratio to expect of ``n_trials`` independent trials that are all worth nothing.

    ``sqrt(variance) ((1 - g) PhiInv(1 - 1/N) + g PhiInv(1 - 1/(N e)))`` with ``g`` Euler's constant: the mean of the
    largest of N normal draws around 0, to first order. ``variance`` is that of the trials' Sharpe ratios per bar.
    Neighbouring parameters give trials that are not independent: ``n_trials`` may be an effective number, and the
    plain count errs on the safe side. One trial, or no variance, gives 0: nothing was selected.
    Source: Bailey & López de Prado (2014), doi 10.3905/jpm.2014.40.5.094.

    Raises
    ------
    ConfigError
        If the variance is negative or not finite, or ``n_trials`` under 1.
    """
    if not (math.isfinite(variance) and variance >= 0.0):
        raise ConfigError(f"variance must be a finite number >= 0, found {variance}")
    if not (math.isfinite(n_trials) and n_trials >= 1):
        raise ConfigError(f"n_trials must be at least 1, found {n_trials}", fix="count every trial that was looked at")
    if n_trials == 1 or variance == 0.0:
        return 0.0
    # the lower tail, mirrored: 1 - 1/N itself would lose the digits of a large N
    high, higher = -_NORMAL.inv_cdf(1.0 / n_trials), -_NORMAL.inv_cdf(1.0 / (n_trials * math.e))
    return math.sqrt(variance) * max(0.0, (1.0 - EULER_GAMMA) * high + EULER_GAMMA * higher)


def deflated_sharpe(
    sharpe: float, *, n: int, skewness: float, kurtosis: float, variance: float, n_trials: float
) -> float:
    """Probability that the best of ``n_trials`` trials has a true Sharpe ratio above what luck gives the best.

    ``probabilistic_sharpe`` against ``expected_max_sharpe``; with one trial, against 0. ``sharpe``, ``skewness`` and
    ``kurtosis`` are those of the trial selected, over ``n`` bars; ``variance`` is across all trials.
    Source: Bailey & López de Prado (2014), doi 10.3905/jpm.2014.40.5.094.

    Raises
    ------
    ConfigError
        As ``probabilistic_sharpe`` and ``expected_max_sharpe``.
    """
    benchmark = expected_max_sharpe(variance, n_trials=n_trials)
    return probabilistic_sharpe(sharpe, n=n, skewness=skewness, kurtosis=kurtosis, benchmark=benchmark)


def min_track_record_length(
    sharpe: float, *, skewness: float, kurtosis: float, benchmark: float = 0.0, confidence: float = 0.95
) -> float:
    """Bars needed before ``probabilistic_sharpe`` reaches ``confidence``; a fraction, to be rounded up.

    ``1 + (1 - skewness SR + (kurtosis - 1) / 4 SR^2) (PhiInv(confidence) / (SR - benchmark))^2``.
    Source: Bailey & López de Prado (2012), as above.

    Returns
    -------
    Infinite where the Sharpe ratio is not above the benchmark: no record is long enough.

    Raises
    ------
    ConfigError
        If the confidence is under 0.5 or not below 1, or as ``probabilistic_sharpe``.
    """
    if not 0.5 <= confidence < 1.0:
        raise ConfigError(f"confidence must be in [0.5, 1), found {confidence}")
    factor = _variance_factor(sharpe, skewness=skewness, kurtosis=kurtosis)
    gap = sharpe - _finite(benchmark, "benchmark")
    if gap <= 0.0:
        return math.inf
    quantile = _NORMAL.inv_cdf(confidence)
    try:
        return 1.0 + factor * (quantile / gap) ** 2
    except OverflowError:
        return math.inf


def _variance_factor(sharpe: float, *, skewness: float, kurtosis: float) -> float:
    """Variance of an estimated Sharpe ratio, times n - 1; never negative for moments that a sample can have."""
    for value, name in ((sharpe, "sharpe"), (skewness, "skewness"), (kurtosis, "kurtosis")):
        _finite(value, name)
    least = 1.0 + skewness**2
    if kurtosis < least * (1.0 - 1e-9):
        raise ConfigError(
            f"kurtosis must be at least 1 + skewness^2 = {least:.6g}, found {kurtosis}",
            fix="give kurtosis as it is, 3 for a normal distribution, not in excess of 3",
        )
    return max(0.0, 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, found {value}", fix="a trial that never moved has no Sharpe ratio")
    return value
