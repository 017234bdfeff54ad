"""What size costs: ``impact_bps = coef_bps * size ** exponent`` fitted to single orders, robustly.

A configuration has one exponent for all legs, so it is fitted to all instruments at once, and a coefficient to each.
Least squares with Huber's weights (outliers count less), which the fit itself settles; the intervals come from
resampling the orders of each instrument with these weights.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from basis_bt.live.intervals import Estimate, widened
from basis_bt.statistics.bootstrap import index_chunks

SQUARE_ROOT = 0.5
EXPONENTS = np.arange(0.1, 1.5005, 0.01)
#: an interval of the exponent that is wider says nothing, and the square-root law is taken
WIDEST_EXPONENT = 0.5
HUBER = 1.345  # 95 % efficient where errors are normal
ROUNDS = 10
METHOD = "Huber regression, orders resampled"


class Impact(NamedTuple):
    """The exponent for all (None: it was not asked for), whether it was taken, and the coefficients at what was."""

    exponent: Estimate
    is_exponent_taken: bool
    coef_bps: dict[str, Estimate]

    @property
    def taken(self) -> float:
        """The exponent that the coefficients go with."""
        return self.exponent.value if self.is_exponent_taken else SQUARE_ROOT


class _Leg(NamedTuple):
    """Powers of the sizes ``(n, n_exponents)``, what the orders paid, their weights, and the scale of the errors."""

    powers: np.ndarray
    paid_bps: np.ndarray
    weights: np.ndarray
    scale_bps: float


def fit_impact(
    sizes: Mapping[str, np.ndarray], paid_bps: Mapping[str, np.ndarray], *, confidence: float, n_resamples: int
) -> Impact:
    """Exponent and coefficients with their intervals.

    Parameters
    ----------
    sizes : by instrument, quantity over volume (or another measure of size), above 0
    paid_bps : by instrument, what each order paid beyond half the spread
    """
    legs = {one: _leg(sizes[one], paid_bps[one]) for one in sizes}
    place = int(np.argmin(sum(_loss(leg, leg.weights[None, :])[0] for leg in legs.values())))
    counts = {one: _counts(len(leg.paid_bps), n_resamples) * leg.weights for one, leg in legs.items()}
    losses = sum(_loss(leg, counts[one]) for one, leg in legs.items())
    drawn_places = np.argmin(losses, axis=1)
    n = sum(len(leg.paid_bps) for leg in legs.values())
    exponent = widened(float(EXPONENTS[place]), EXPONENTS[drawn_places], n=n, confidence=confidence, method=METHOD)
    is_taken = exponent.low is not None and exponent.high is not None and (
        exponent.high - exponent.low <= WIDEST_EXPONENT
    )  # fmt: skip
    if not is_taken:
        place = int(np.argmin(np.abs(EXPONENTS - SQUARE_ROOT)))
        drawn_places = np.full(n_resamples, place)
    coefs = {}
    for one, leg in legs.items():
        value = float(_coefs(leg, leg.weights[None, :])[0, place])
        drawn = _coefs(leg, counts[one])[np.arange(n_resamples), drawn_places]
        found = widened(value, drawn, n=len(leg.paid_bps), confidence=confidence, method=METHOD)
        coefs[one] = found._replace(low=max(found.low or 0.0, 0.0))
    return Impact(exponent, is_taken, coefs)


def _leg(sizes: np.ndarray, paid_bps: np.ndarray) -> _Leg:
    """Settle weights and scale: at each round those of the residuals of the round before."""
    powers = sizes[:, None] ** EXPONENTS[None, :]
    leg = _Leg(powers, paid_bps, np.ones(len(paid_bps)), 1.0)
    for _ in range(ROUNDS):
        weights = leg.weights[None, :]
        place = int(np.argmin(_loss(leg, weights)[0]))
        errors = np.abs(paid_bps - _coefs(leg, weights)[0, place] * powers[:, place])
        scale = 1.4826 * float(np.median(errors))
        if not scale > 0.0:  # most orders lie on one curve
            return leg._replace(weights=(errors <= 1e-9 * np.abs(paid_bps).max()).astype(np.float64), scale_bps=1.0)
        leg = leg._replace(
            weights=np.minimum(1.0, HUBER * scale / np.maximum(errors, 1e-300)), scale_bps=scale
        )  # fmt: skip
    return leg


def _counts(n: int, n_resamples: int) -> np.ndarray:
    """How often each order stands in each resample, ``(n_resamples, n)``."""
    index = np.concatenate(list(index_chunks(n, n_resamples=n_resamples, block_length=1.0)))
    rows = np.arange(n_resamples)[:, None] * n
    return np.bincount((index + rows).ravel(), minlength=n_resamples * n).reshape(n_resamples, n)


def _coefs(leg: _Leg, weights: np.ndarray) -> np.ndarray:
    """Coefficients ``(n_rows, n_exponents)`` of rows of weights; a negative one is none."""
    along = (weights * leg.paid_bps) @ leg.powers
    return np.maximum(along, 0.0) / (weights @ leg.powers**2)


def _loss(leg: _Leg, weights: np.ndarray) -> np.ndarray:
    """Weighted squares that are left, in units of the errors, ``(n_rows, n_exponents)``."""
    along = np.maximum((weights * leg.paid_bps) @ leg.powers, 0.0)
    whole = (weights @ leg.paid_bps**2)[:, None]
    return (whole - along**2 / (weights @ leg.powers**2)) / leg.scale_bps**2
