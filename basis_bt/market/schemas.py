"""Columns of the series of a market folder, and the checks that every frame read has to pass."""

from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError

TS = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")
REQUIRED = {
    "spot": ("ts", *PRICES),
    "perp": ("ts", *PRICES),
    "mark": ("ts", "open", "close"),
    "funding": ("ts", "rate"),
}
OPTIONAL = {
    "spot": ("volume",),
    "perp": ("volume",),
    "mark": (),
    "funding": ("interval_hours", "mark_price", "known_at"),
}
# A settled rate of one half or more has never been paid; and a typical one above 0.3 % per 8 hours is a percent figure.
MAX_ABS_RATE = 0.5
MAX_MEDIAN_RATE_8H = 0.003


def check_schema(schema: pl.Schema, *, series: str, path: Path) -> None:
    """Refuse missing columns, naive or non-time stamps, and columns that are no numbers."""
    missing = [column for column in REQUIRED[series] if column not in schema]
    if missing:
        raise DataError(
            f"{series} files need the columns {', '.join(REQUIRED[series])}; missing: {', '.join(missing)}",
            where={"file": path, "found": ", ".join(schema.names())},
            fix="rename the columns before putting the file into the market folder",
        )
    for column in ("ts", "known_at"):
        kind = schema.get(column)
        if kind is None:
            continue
        if not isinstance(kind, pl.Datetime):
            raise DataError(
                f"{column} must be a Datetime with a time zone, found {kind}",
                where={"file": path, "column": column},
                fix="convert the epochs with their unit stated; a guessed unit gives 1970 or the year 55000",
            )
        if kind.time_zone is None:
            raise DataError(
                f"{column} is without a time zone",
                where={"file": path, "column": column, "row": 0},
                fix='say which zone it is: pl.col("ts").dt.replace_time_zone("UTC")',
            )
    for column in (*REQUIRED[series], *OPTIONAL[series]):
        if column in schema and column not in ("ts", "known_at") and not schema[column].is_numeric():
            raise DataError(
                f"{column} must be a number, found {schema[column]}",
                where={"file": path, "column": column, "row": 0},
                fix="convert it to Float64 and look at the cells that do not convert",
            )


def _refuse(frame: pl.DataFrame, bad: pl.Series, *, what: str, column: str, path: Path, fix: str) -> None:
    count = int(bad.sum() or 0)
    if not count:
        return
    row = int(bad.arg_max() or 0)
    value = frame[column][row]
    ts = frame["ts"][row]
    raise DataError(
        f"{column} {what}, found {value} ({count} row{'s' if count > 1 else ''})",
        where={"file": path, "column": column, "row": row, "ts": ts.isoformat() if ts is not None else None},
        fix=fix,
    )


def _all_good(column: pl.Series, *, zero: bool = False) -> bool:
    """Whether all values are finite and above 0 (or 0): a quick look that spares good columns the search for a row."""
    values = column.to_numpy()  # a null becomes NaN, which no comparison lets through
    return bool(((values >= 0 if zero else values > 0) & (values < np.inf)).all())


def check_frame(frame: pl.DataFrame, *, series: str, path: Path) -> None:
    """Refuse unsorted or duplicate stamps, missing or impossible prices, and rates that are in percent.

    Rows are counted from the first row read, which begins with the warm-up of the run.
    """
    ts = frame["ts"]
    if ts.null_count() or (np.diff(ts.to_physical().to_numpy()) <= 0).any():
        _refuse(frame, ts.is_null(), what="must not be null", column="ts", path=path, fix="drop the rows")
        step = ts.diff().dt.total_microseconds().fill_null(1)
        _refuse(frame, step == 0, what="must be unique: duplicate stamp", column="ts", path=path,
                fix="find out which of the rows is right and drop the others")  # fmt: skip
        _refuse(frame, step < 0, what="must increase", column="ts", path=path, fix="sort the file by ts")
    if series == "funding":
        _check_rates(frame, path=path)
        columns: tuple[str, ...] = tuple(column for column in ("mark_price",) if column in frame.columns)
    else:
        columns = tuple(column for column in PRICES if column in frame.columns)
    for column in columns:
        if _all_good(frame[column]):
            continue
        prices = frame[column].cast(pl.Float64)
        bad = prices.is_nan() | prices.is_infinite() | (prices <= 0)
        if column != "mark_price":
            bad = bad | prices.is_null()
        _refuse(frame, bad.fill_null(column != "mark_price"), what="must be a number above 0", column=column, path=path,
                fix="mask the gap before aligning, or drop the rows")  # fmt: skip
    if "volume" in frame.columns and not _all_good(frame["volume"], zero=True):
        volume = frame["volume"].cast(pl.Float64)
        _refuse(frame, (~volume.is_finite() | (volume < 0)).fill_null(True), what="must be 0 or more",
                column="volume", path=path, fix="set it to 0 where nothing was traded")  # fmt: skip


def _check_rates(frame: pl.DataFrame, *, path: Path) -> None:
    rate = frame["rate"].cast(pl.Float64)
    _refuse(frame, (rate.is_null() | ~rate.is_finite()).fill_null(True), what="must be a finite number", column="rate",
            path=path, fix="drop the settlement, or fetch it again")  # fmt: skip
    fix = "divide the rates by 100: they are fractions of notional per settlement (0.0001 = 1 bp)"
    _refuse(
        frame,
        rate.abs() >= MAX_ABS_RATE,
        what="is too large for a fraction (percent?)",
        column="rate",
        path=path,
        fix=fix,
    )
    hours = frame["interval_hours"].cast(pl.Float64) if "interval_hours" in frame.columns else pl.Series([8.0])
    median = (rate.abs() * 8.0 / hours).median()
    if isinstance(median, float) and median > MAX_MEDIAN_RATE_8H:
        raise DataError(
            f"rate looks like percent: its median is {median:.4g} per 8 hours ({len(rate)} rows)",
            where={"file": path, "column": "rate", "row": 0, "ts": frame["ts"][0].isoformat()},
            fix=fix,
        )
