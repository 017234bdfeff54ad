"""Confidence intervals of what is estimated on a few dozen orders: means, shares and percentiles."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from basis_bt.statistics.bootstrap import index_chunks


class Estimate(NamedTuple):
    """A value with the interval that holds the truth in the share ``confidence`` of samples; None: not bounded."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


def mean_interval(values: np.ndarray, *, confidence: float, n_resamples: int) -> Estimate:
    """A mean over orders, by the stationary bootstrap: runs of ``n ** (1/3)`` orders stay together, as spreads do."""
    n, together = len(values), len(values) ** (1.0 / 3.0)
    chunks = index_chunks(n, n_resamples=n_resamples, block_length=together)
    drawn = np.concatenate([values[index].mean(axis=1) for index in chunks])
    return widened(float(values.mean()), drawn, n=n, together=together, confidence=confidence, method="block bootstrap")


def widened(
    value: float, drawn: np.ndarray, *, n: int, confidence: float, method: str, together: float = 1.0
) -> Estimate:
    """The percentile interval of resamples in blocks of ``together``, widened about the value for a small sample.

    The variance of resampled means is too small by ``1 - (2 together - 1) / n`` (the correlations of a sample about its
    own mean are ``-1 / n``, and a block adds up those within it), and Student's t is wider than the normal; its degrees
    of freedom are those of a variance that adds up correlations which are weighted by ``r ** lag``, ``r`` the
    probability that a block goes on.
    """
    goes_on = (1.0 - 1.0 / together) ** 2
    freedom = max(n * (1.0 - goes_on) / (1.0 + goes_on) - 1.0, 2.0)
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    wider = math.sqrt(n / (n - 2.0 * together + 1.0)) * student_over_normal(freedom, confidence=confidence)
    return Estimate(value, value - wider * (value - float(low)), value + wider * (float(high) - value), n, method)


def student_over_normal(freedom: float, *, confidence: float) -> float:
    """How much wider Student's t is than the normal, by the Cornish-Fisher expansion (within 1 % from 3 on).

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z, v = NormalDist().inv_cdf((1.0 + confidence) / 2.0), freedom
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
    )
    return (z + sum(term / v**power for power, term in enumerate(terms, start=1))) / z


def share_interval(n_hits: int, n: int, *, confidence: float) -> Estimate:
    """A share, with Wilson's interval.

    Source: Wilson (1927), Journal of the American Statistical Association 22(158).
    """
    z, share = NormalDist().inv_cdf((1.0 + confidence) / 2.0), n_hits / n
    middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / (1.0 + z * z / n)
    return Estimate(share, max(middle - half, 0.0), min(middle + half, 1.0), n, "Wilson")


def percentile_interval(values: np.ndarray, percent: float, *, confidence: float) -> Estimate:
    """A percentile, between the two order statistics that hold it in at least ``confidence`` of samples.

    Exact for continuous values whatever their distribution (binomial), and so rather wide; an end is None where the
    sample has no value that far out.
    """
    ordered, n, share = np.sort(values), len(values), percent / 100.0
    tail = (1.0 - confidence) / 2.0
    below = _binomial_below(n, share)
    ranks = np.arange(n + 1)
    low_ranks = ranks[below <= tail]  # value number k (from 1) is above the percentile with probability below[k]
    high_ranks = ranks[1.0 - below <= tail]
    low = float(ordered[low_ranks[-1] - 1]) if len(low_ranks) and low_ranks[-1] >= 1 else None
    high = float(ordered[high_ranks[0] - 1]) if len(high_ranks) and high_ranks[0] >= 1 else None
    return Estimate(float(np.quantile(values, share)), low, high, n, "order statistics")


def _binomial_below(n: int, share: float) -> np.ndarray:
    """``P(X < k)`` of a binomial for k from 0 to n."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(n)
    ]  # fmt: skip
    return np.concatenate([[0.0], np.cumsum(np.exp(logs))])
