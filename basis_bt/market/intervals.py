"""How long each funding interval was, told from the stamps of the settlements; and which settlements are missing."""

import numpy as np

from basis_bt.core.units import US_PER_HOUR

USUAL_HOURS = (1, 2, 4, 8)


def settlement_intervals_hours(ts_us: np.ndarray) -> np.ndarray:
    """The interval that each settlement closes, in whole hours; 0 where the stamps do not tell.

    A distance of 1, 2, 4 or 8 hours counts as an interval when a neighbouring distance agrees; a settlement after a
    lone hole, or the first one, takes the interval of the nearest neighbour that has one, an earlier one first.

    Parameters
    ----------
    ts_us : sorted instants, int64 epoch microseconds, shape (n,); jitter of minutes is rounded off

    Returns
    -------
    int32 array of shape (n,)
    """
    if len(ts_us) < 2:
        return np.zeros(len(ts_us), dtype=np.int32)
    distance = np.rint(np.diff(ts_us) / US_PER_HOUR).astype(np.int64)
    agrees = np.zeros(len(distance), dtype=bool)
    agrees[1:] |= distance[1:] == distance[:-1]
    agrees[:-1] |= distance[:-1] == distance[1:]
    known = np.where(agrees & np.isin(distance, USUAL_HOURS), distance, 0)
    hours = np.concatenate([known[:1], known])
    row = np.arange(len(hours))
    before = np.maximum.accumulate(np.where(hours > 0, row, -1))
    after = len(hours) - 1 - np.maximum.accumulate(np.where(hours[::-1] > 0, row, -1))[::-1]
    nearest = np.where(before >= 0, before, np.where(after < len(hours), after, 0))
    return hours[nearest].astype(np.int32)


def missing_settlements(ts_us: np.ndarray, interval_hours: np.ndarray) -> np.ndarray:
    """How many settlements are missing before each one, int64 of shape (n,).

    A distance above one and a half intervals is a hole. Where the interval changes, the longer of the old and the new
    one counts, so that a change is no hole; an interval of 0 is unknown and misses nothing.
    """
    if len(ts_us) < 2:
        return np.zeros(len(ts_us), dtype=np.int64)
    hours = np.asarray(interval_hours, dtype=np.float64)
    expected = np.concatenate([[0.0], np.maximum(hours[1:], hours[:-1])]) * US_PER_HOUR
    distance = np.concatenate([[0.0], np.diff(ts_us).astype(np.float64)])
    known = expected > 0
    times = np.divide(distance, expected, out=np.zeros_like(distance), where=known)
    return np.where(times > 1.5, np.rint(times) - 1, 0).astype(np.int64)
