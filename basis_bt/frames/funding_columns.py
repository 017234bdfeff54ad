"""What the last settlements of a perp paid, per 8 hours, as columns of the aligned frame."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_HOUR
from basis_bt.frames.settlements import Settlements

STANDARD_HOURS = 8.0  # the length every rate is scaled to, and the longest interval of any venue
SUMMARIES = ("min", "mean", "max")


def settled_column(leg: int, summary: str, count: int) -> str:
    """Name of the column with the least, mean or largest 8 h rate of the last ``count`` settlements of a leg."""
    return f"settled_8h_{summary}_{count}_{leg}"


def history_hours(counts: Sequence[int]) -> float:
    """How long before the first row settlements must be read: the one before the first counted gives its interval."""
    return (max(counts) + 1) * STANDARD_HOURS if counts else 0.0


def rates_8h(series: Settlements) -> np.ndarray:
    """Each rate scaled to 8 h by its own interval, NaN for the first, whose interval is not known.

    The interval is the distance to the settlement before: that is known when the rate is, while telling a hole from a
    change of interval takes the settlement after it. A distance of more than 8 h is a hole and counts as 8 h.
    """
    out = np.full(len(series.paid_us), np.nan)
    hours = np.minimum(np.diff(series.paid_us) / US_PER_HOUR, STANDARD_HOURS)
    np.divide(series.funding_rate[1:] * STANDARD_HOURS, hours, out=out[1:], where=hours > 0)
    return out


def settled_columns(series: Settlements, *, leg: int, row_end_us: np.ndarray, counts: Sequence[int]) -> list[pl.Series]:
    """Least, mean and largest 8 h rate of the last ``count`` settlements known when each row ended.

    A settlement counts from the first row that ends at or after it is both paid and known; "last" is by the time of
    payment. Null until ``count`` rates are known.

    Parameters
    ----------
    series : the settlements of the perp, from ``history_hours(counts)`` before the first row on
    leg : place of the perp in the combo
    row_end_us : end of each row of the frame, int64 epoch microseconds
    counts : how many settlements each set of columns looks back

    Returns
    -------
    Columns ``settled_8h_{min,mean,max}_{count}_{leg}``, fractions of the notional per 8 h
    """
    rates = rates_8h(series)
    last = _last_settlements(series, row_end_us=row_end_us, longest=max(counts, default=0))
    columns = []
    for count in dict.fromkeys(counts):
        values = np.full((len(SUMMARIES), len(row_end_us)), np.nan)
        summed: dict[tuple[int, ...], tuple[float, ...]] = {}
        for row, known in enumerate(last):
            chosen = tuple(known[-count:])
            if len(chosen) < count:
                continue
            if chosen not in summed:
                window = rates[list(chosen)].tolist()
                summed[chosen] = (min(window), math.fsum(window) / count, max(window))
            if not math.isnan(summed[chosen][1]):
                values[:, row] = summed[chosen]
        columns += [
            pl.Series(settled_column(leg, summary, count), values[place], nan_to_null=True)
            for place, summary in enumerate(SUMMARIES)
        ]
    return columns


def _last_settlements(series: Settlements, *, row_end_us: np.ndarray, longest: int) -> list[list[int]]:
    """For each row, the indices of the last ``longest`` settlements paid and known by its end, in order of payment."""
    counted_us = np.maximum(series.paid_us, series.known_us)
    arrivals = np.argsort(counted_us, kind="stable")
    n_known = np.searchsorted(counted_us[arrivals], row_end_us, side="right").tolist()
    out: list[list[int]] = []
    known: list[int] = []
    done = 0
    for n in n_known:
        if n > done:
            known = sorted([*known, *arrivals[done:n].tolist()])[-longest:]
            done = n
        out.append(known)
    return out
