"""Sharpe ratio and t statistic of returns that depend on those before them.

Funding income does: rates move slowly, and an hourly bar only sees some of them. The root-of-time rule then overstates
an annual Sharpe ratio, and the plain t statistic is too large.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from basis_bt.core.errors import ConfigError
from basis_bt.statistics.sharpe import checked, moments


@dataclass(frozen=True, slots=True, kw_only=True)
class LoSharpe:
    """``sharpe`` over the long period, ``factor`` by which the one per bar was multiplied for it.

    ``autocorrelations`` are of lags 1, 2, ... ``factor`` is the root of the periods if they are 0, and None where they
    leave no variance; ``sharpe`` is then None too, as it is where nothing moves.
    """

    sharpe: float | None
    factor: float | None
    autocorrelations: tuple[float, ...]


def autocorrelations(returns: ArrayLike, *, lags: int) -> np.ndarray:
    """Autocorrelations of lags 1 to ``lags`` of returns ``(n_bars,)``; zeros where nothing moves.

    Sums of products over the sum of squares, the shorter sums not scaled up.

    Raises
    ------
    ConfigError
        If ``lags`` is negative, or not below the number of bars.
    """
    values = checked(returns, n_dims=1, min_bars=2)
    _check_lags(lags, n_bars=len(values))
    if moments(values).skewness is None:
        return np.zeros(lags)
    around = values - values.mean()
    return np.array([around[lag:] @ around[:-lag] for lag in range(1, lags + 1)]) / (around @ around)


def annual_factor(correlations: ArrayLike, *, periods: float) -> float | None:
    """Lo's eta(q): what a Sharpe ratio per bar is multiplied by to be one per ``periods`` bars.

    ``q / sqrt(q + 2 sum((q - k) rho_k))``; ``correlations`` are rho_1, rho_2, ..., those not given count as 0. None
    where the sum under the root is not above 0, which estimated correlations can give.
    Source: Lo (2002), "The statistics of Sharpe ratios", Financial Analysts Journal 58(4).

    Raises
    ------
    ConfigError
        If ``periods`` is under 1, or there are as many lags as periods.
    """
    rho = np.asarray(correlations, dtype=np.float64)
    if not (math.isfinite(periods) and periods >= 1.0):
        raise ConfigError(f"periods must be at least 1, found {periods}", fix="8760 for hours, 365 for days")
    if len(rho) >= periods and len(rho):
        raise ConfigError(f"lags must be below periods={periods}, found {len(rho)}", fix="take fewer lags")
    variance = periods + 2.0 * float((periods - np.arange(1, len(rho) + 1)) @ rho)
    return periods / math.sqrt(variance) if variance > 0.0 else None


def lo_sharpe(returns: ArrayLike, *, periods: float, lags: int) -> LoSharpe:
    """Sharpe ratio over ``periods`` bars (8,760 hours for a year), corrected for autocorrelation.

    ``lags`` is how many autocorrelations are believed: enough to reach what drives them (24 hours see three
    settlements of 8 hours), few beside the number of bars, since each is an estimate with an error of about
    ``1 / sqrt(n_bars)``. With 0 it is the root-of-time rule. Positive correlation lowers the ratio, negative raises it.

    Raises
    ------
    ConfigError
        As ``autocorrelations`` and ``annual_factor``.
    """
    rho = autocorrelations(returns, lags=lags)
    factor = annual_factor(rho, periods=periods)
    mean, std, skewness, _ = moments(returns)
    return LoSharpe(
        sharpe=None if skewness is None or factor is None else mean / std * factor,
        factor=factor,
        autocorrelations=tuple(float(value) for value in rho),
    )


def newey_west_t(returns: ArrayLike, *, lags: int | None = None) -> float | None:
    """t statistic of the mean of returns ``(n_bars,)``, its standard error robust to autocorrelation.

    Bartlett weights ``1 - k / (lags + 1)``, no correction for small samples: as ``OLS(returns, 1)`` of statsmodels with
    ``cov_type="HAC"``, ``use_correction=False``. Without ``lags`` they are ``floor(4 (n / 100)^(2/9))``, the rule of
    thumb of Newey & West (1994): 10 for a year of hours, too few where dependence reaches further than that.
    None where nothing moves.
    Source: Newey & West (1987), Econometrica 55(3).

    Raises
    ------
    ConfigError
        If ``lags`` is negative, or not below the number of bars.
    """
    values = checked(returns, n_dims=1, min_bars=2)
    n = len(values)
    lags = min(n - 1, math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0))) if lags is None else lags
    _check_lags(lags, n_bars=n)
    mean, _, skewness, _ = moments(values)
    if skewness is None:
        return None
    around = values - mean
    total = float(around @ around)
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float(around[lag:] @ around[:-lag])
    return mean * n / math.sqrt(total) if total > 0.0 else None


def _check_lags(lags: int, *, n_bars: int) -> None:
    if not 0 <= lags < n_bars:
        raise ConfigError(f"lags must be 0 or more and below the {n_bars} bars, found {lags}", fix="take fewer lags")
