"""Durations, instants and the year: the conversions every other folder uses."""

import math
import re
from datetime import UTC, datetime

HOURS_PER_YEAR = 8760.0
US_PER_MINUTE = 60_000_000
US_PER_HOUR = 60 * US_PER_MINUTE
US_PER_DAY = 24 * US_PER_HOUR

_DURATION = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(m|min|h|d)\s*$")
_HOURS_PER_UNIT = {"m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0}


def parse_hours(value: float | str) -> float:
    """Hours of a duration given as a number of hours or as text such as ``"30m"``, ``"8h"``, ``"1d"``.

    Raises
    ------
    ValueError
        If the text is no duration, or the number is negative or not finite.
    """
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(f"{value!r} is no duration; write hours as a number, or '30m', '8h', '1d'")
        return float(match[1]) * _HOURS_PER_UNIT[match[2]]
    hours = float(value)
    if not math.isfinite(hours) or hours < 0:
        raise ValueError(f"a duration is a finite number of hours >= 0, found {value!r}")
    return hours


def hours_to_us(hours: float) -> int:
    """Microseconds of a number of hours, to the nearest one."""
    return round(hours * US_PER_HOUR)


def bars_up(hours: float, *, bar_us: int) -> int:
    """Bars that cover a duration, rounded up; a quotient within 1e-9 of a whole number is that number."""
    quotient = hours * US_PER_HOUR / bar_us
    nearest = round(quotient)
    return nearest if abs(quotient - nearest) < 1e-9 else math.ceil(quotient)


def parse_instant(value: str | datetime) -> datetime:
    """A UTC instant from an ISO-8601 text or a datetime that names its zone.

    Raises
    ------
    ValueError
        If it cannot be read, or names no zone: a local time is never guessed to be UTC.
    """
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError(f"{value!s} names no time zone; write {instant.isoformat()}Z for UTC")
    return instant.astimezone(UTC)


def to_us(instant: datetime) -> int:
    """Microseconds since the epoch of an instant that names its zone, exactly."""
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_us(us: int) -> datetime:
    """The UTC instant of microseconds since the epoch."""
    return datetime.fromtimestamp(us // 1_000_000, tz=UTC).replace(microsecond=us % 1_000_000)
