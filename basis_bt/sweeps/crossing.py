"""Where a curve given at points crosses zero."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Crossing(NamedTuple):
    """A place where a curve reaches zero, from below (``is_up``) or from above."""

    at: float
    is_up: bool


def crossings(x: Iterable[float], y: Iterable[float | None], *, is_log: bool = False) -> list[Crossing]:
    """Where ``y`` reaches zero, in the order of ``x``, which increases.

    Between points the curve is a straight line over ``x``, or over its logarithm. Points without a value (null) are
    passed over. A curve that begins at zero does not reach it.
    """
    known = [(at, value) for at, value in zip(x, y, strict=True) if value is not None]
    found = []
    for (low, before), (high, after) in zip(known, known[1:], strict=False):
        if before < 0.0 <= after or before > 0.0 >= after:
            share = before / (before - after)
            if share == 1.0:
                at = high
            elif is_log:
                at = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
            else:
                at = low + share * (high - low)
            found.append(Crossing(at, before < 0.0))
    return found
