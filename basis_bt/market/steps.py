"""How long a bar is: from the stamps, and for a lone bar from the name of its file."""

import re

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.units import US_PER_HOUR

_UNIT_US = {"s": 1_000_000, "m": 60_000_000, "h": US_PER_HOUR, "d": 24 * US_PER_HOUR, "w": 168 * US_PER_HOUR}
_TOKEN = re.compile(r"(?:^|[-_./])(\d+)([smhdw])(?=[-_./]|$)")


def bar_step_us(ts: pl.Series, *, name: str) -> int | None:
    """The step of bars in microseconds: the distance most stamps have; None where one bar and its name do not tell.

    Raises
    ------
    DataError
        If some distances are shorter: the file holds bars of two steps.
    """
    distance = np.diff(ts.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy())
    if (distance <= 0).any():
        distance = np.diff(np.unique(ts.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy()))
    if not len(distance):
        found = _TOKEN.findall(name.rsplit("/", 1)[-1])
        return int(found[-1][0]) * _UNIT_US[found[-1][1]] if found else None
    if (distance == distance[0]).all():
        return int(distance[0])
    sizes, counts = np.unique(distance, return_counts=True)
    step = int(sizes[np.argmax(counts)])
    if sizes[0] < step:
        raise DataError(
            f"bars of two steps in one file: {hours_text(step)} and {hours_text(int(sizes[0]))}",
            where={"file": name, "rows": int(counts[0])},
            fix="split the file where the step changes",
        )
    return step


def hours_text(step_us: int | None) -> str:
    """A step as people write it: ``1m``, ``8h``, ``1d``."""
    if step_us is None:
        return "an unknown step"
    for unit in ("d", "h", "m", "s"):
        if step_us % _UNIT_US[unit] == 0:
            return f"{step_us // _UNIT_US[unit]}{unit}"
    return f"{step_us}us"
