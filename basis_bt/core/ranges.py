"""Checks of numbers in models of the configuration."""

import math


def check_range(name: str, value: float | None, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Refuse a number that is not finite or not within ``[low, high]``; with ``above`` the low end is out too.

    Raises
    ------
    ValueError
        Naming it, its bounds and what was found. None is no value, and passes.
    """
    if value is None:
        return
    if not math.isfinite(value) or value < low or value > high or (above and value == low):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be {bound}{upper}, found {value!r}")
