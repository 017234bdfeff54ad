"""Durations as callers give them."""

from basis_bt.core.errors import ConfigError
from basis_bt.core.units import parse_hours


def duration_hours(value: float | str, *, name: str) -> float:
    """Hours of a duration: a number of hours, also as text, or text such as ``"30d"``.

    Raises
    ------
    ConfigError
        If it is none, with the name it was given under.
    """
    try:
        if isinstance(value, bool):
            raise ValueError(f"must be a number of hours or a duration, found {value}")
        return parse_hours(value)
    except (TypeError, ValueError) as error:
        is_number = isinstance(value, str) and value.strip().replace(".", "", 1).isdigit()
        if is_number:
            return float(value)
        raise ConfigError(f"{name}: {error}", fix="write e.g. 720h or 30d") from None
