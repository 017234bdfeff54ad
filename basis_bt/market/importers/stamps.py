"""Time columns as people write them: instants with a zone, wall times without one, epochs of any size."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.importers.base import Options, Source, instants, unit_of_epochs
from basis_bt.market.schemas import TS

_ZONED = r"(?i)(z|utc|[+-]\d{2}:?\d{2})$"


def stamps(values: pl.Series, *, source: Source, options: Options) -> pl.Series:
    """A time column as UTC instants.

    Numbers are epochs whose unit is told from their size, text is ISO 8601; wall times need ``options.time_zone``.

    Raises
    ------
    DataError
        If a cell is empty or no time, a zone is missing, or two units stand in one file.
    """
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("us"))
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is None:
            return _in_zone(values.cast(pl.Datetime("us")), source=source, options=options)
        return values.cast(TS)
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        if not text.str.contains(r"^-?\d+(\.\d+)?$").all():
            return _read_text(text, source=source, options=options)
        values = text.cast(pl.Float64) if text.str.contains(".", literal=True).any() else text.cast(pl.Int64)
    unit = options.time_unit or unit_of_epochs(values, source=source)
    return values.to_frame().select(instants(pl.col(values.name), unit=unit)).to_series()


def asof_instant(options: Options) -> datetime | None:
    """The instant of snapshots that the user gave, in UTC.

    Raises
    ------
    ConfigError
        If it is no ISO 8601 instant with a zone.
    """
    if options.asof is None:
        return None
    try:
        instant = datetime.fromisoformat(options.asof)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ConfigError(
            f"asof must be an instant with a zone, found {options.asof!r}", fix="write e.g. 2026-07-04T15:56:46Z"
        )
    return instant.astimezone(UTC)


def _read_text(text: pl.Series, *, source: Source, options: Options) -> pl.Series:
    zoned = text.str.contains(_ZONED).fill_null(False)
    if zoned.any() and not zoned.all():
        raise DataError(
            f"some stamps have a zone and some have none, the first is {text.filter(~zoned)[0]!r}",
            where={"file": source.name, "column": text.name, "row": int((~zoned).arg_max() or 0)},
            fix="write all of them with a zone",
        )
    plain = text.str.replace(r"(?i)( ?utc|z)$", "+00:00").str.replace(" ", "T", literal=True)
    if zoned.any():
        plain = plain.str.replace(r"([+-]\d{2})(\d{2})$", "${1}:${2}")
    zone, suffix = ("UTC", "%:z") if zoned.any() else (None, "")
    parsed = plain.to_frame("text").select(
        pl.coalesce(
            pl.col("text").str.to_datetime(form + suffix, time_unit="us", time_zone=zone, strict=False)
            for form in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", *(("%Y-%m-%d",) if zone is None else ()))
        )
    )
    instants_or_walls = _refuse_unread(parsed.to_series(), text, source=source)
    return instants_or_walls if zone else _in_zone(instants_or_walls, source=source, options=options)


def _refuse_unread(parsed: pl.Series, text: pl.Series, *, source: Source) -> pl.Series:
    bad = parsed.is_null()
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise DataError(
            f"{text.name} must be a time, found {text[row]!r} ({int(bad.sum())} rows)",
            where={"file": source.name, "column": text.name, "row": row},
            fix="write epochs or ISO 8601, one kind in all rows; or name another column (--map ts=COLUMN)",
        )
    return parsed.alias(text.name)


def _in_zone(values: pl.Series, *, source: Source, options: Options) -> pl.Series:
    if options.time_zone is None:
        raise DataError(
            f"stamps have no time zone, the first is {values[0] if len(values) else None}",
            where={"file": source.name, "column": values.name},
            fix="say which zone they are in: --time-zone UTC (or e.g. Europe/London)",
        )
    try:
        ZoneInfo(options.time_zone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f"no time zone is called {options.time_zone!r}", fix="write e.g. UTC or Asia/Hong_Kong"
        ) from None
    local = values.dt.replace_time_zone(options.time_zone, ambiguous="null", non_existent="null")
    lost = local.is_null() & values.is_not_null()
    if lost.any():
        row = int(lost.arg_max() or 0)
        raise DataError(
            f"{values[row]} is not one instant in {options.time_zone}: clocks change there ({int(lost.sum())} rows)",
            where={"file": source.name, "column": values.name, "row": row},
            fix="fetch the data with UTC stamps",
        )
    return local.cast(TS)
