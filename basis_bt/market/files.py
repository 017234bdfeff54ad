"""Reading series from a market folder: lazily, only the columns and the time range asked for."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.core.units import from_us, to_us
from basis_bt.market.schemas import OPTIONAL, REQUIRED, TS, check_frame, check_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series read: its rows within the range asked for, and the span of its whole file (epoch microseconds)."""

    instrument: Instrument
    series: str
    path: Path
    frame: pl.DataFrame
    first_us: int
    last_us: int

    def manifest_row(self) -> dict[str, Any]:
        """Where the series came from, for manifests: path, hash of the bytes, rows used and their span."""
        ts = self.frame["ts"]
        return {
            "instrument": str(self.instrument),
            "series": self.series,
            "path": str(self.path),
            "sha256": file_hash(self.path),
            "rows": self.frame.height,
            "first": ts[0].isoformat() if len(ts) else None,
            "last": ts[-1].isoformat() if len(ts) else None,
        }


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def series_path(root: Path, instrument: Instrument, series: str) -> Path:
    """The file of a series; a DataError names the nearest existing ones where there is none."""
    path = root / instrument.path(series)
    if path.is_file():
        return path
    if not root.is_dir():
        raise DataError(
            "the market folder does not exist", where={"root": root}, fix="set data.root to a market folder"
        )
    existing = [str(file.relative_to(root)) for file in sorted(root.glob(f"{series}/*/*.parquet"))]
    near = difflib.get_close_matches(instrument.path(series), existing, n=3, cutoff=0.4) or existing[:3]
    raise DataError(
        f"no {series} file for {instrument}",
        where={"file": path},
        fix=f"existing {series} files near it: {', '.join(near)}" if near else f"the folder has no {series} files",
    )


def read_series(
    root: Path, instrument: Instrument, series: str, *, start_us: int | None = None, end_us: int | None = None
) -> Series:
    """The rows of a series with ``start <= ts < end``, checked, sorted by ``ts`` (microseconds, UTC).

    Rows before ``start`` are not read, but for the last bar before it where there is none at ``start``: its price is
    the one known then.

    Raises
    ------
    DataError
        If the file is missing or unreadable, or fails a check of ``market/schemas.py``.
    """
    path = series_path(root, instrument, series)
    try:
        scan = pl.scan_parquet(path)
        schema = scan.collect_schema()
        check_schema(schema, series=series, path=path)
        columns = [column for column in (*REQUIRED[series], *OPTIONAL[series]) if column in schema]
        ts = pl.col("ts").dt.convert_time_zone("UTC").cast(TS)
        first_us, last_us = _span_us(path, scan)
        rows = scan.select(columns)
        unit = schema["ts"]
        bounds = []
        if start_us is not None:
            bounds.append(pl.col("ts") >= _literal(start_us, unit))
        if end_us is not None:
            bounds.append(pl.col("ts") < _literal(end_us, unit))
        frame = (rows.filter(*bounds) if bounds else rows).collect()
        if start_us is not None and series != "funding" and _begins_late(frame, start_us, first_us):
            earlier = rows.filter(pl.col("ts") < _literal(start_us, unit)).tail(1).collect()
            frame = pl.concat([earlier, frame])
        frame = frame.with_columns(ts)
    except DataError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:  # arrow's errors are ValueErrors
        raise _unreadable(path, error) from None
    except BaseException as error:  # polars panics are no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(path, error) from None
    if "known_at" in frame.columns:
        frame = frame.with_columns(pl.col("known_at").dt.convert_time_zone("UTC").cast(TS))
    frame = frame.with_columns(
        pl.col(column).cast(pl.Float64) for column in columns if column not in ("ts", "known_at")
    )
    check_frame(frame, series=series, path=path)
    return Series(instrument=instrument, series=series, path=path, frame=frame, first_us=first_us, last_us=last_us)


def _span_us(path: Path, scan: pl.LazyFrame) -> tuple[int, int]:
    """First and last stamp of a file in epoch microseconds, from its statistics, or from the column without them.

    Raises
    ------
    DataError
        If there are no rows, or stamps are null: a filter on the span would drop those without a word.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    column = metadata.schema.names.index("ts")
    groups = [metadata.row_group(k).column(column).statistics for k in range(metadata.num_row_groups)]
    n_null, first, last = 0, None, None
    if groups and all(stats is not None and stats.has_min_max and stats.has_null_count for stats in groups):
        per_us = {"ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}[scan.collect_schema()["ts"].time_unit]  # type: ignore[attr-defined]
        n_null = sum(stats.null_count for stats in groups)
        first = min(stats.min_raw for stats in groups) * per_us[0] // per_us[1]
        last = max(stats.max_raw for stats in groups) * per_us[0] // per_us[1]
    elif metadata.num_rows:
        ts = pl.col("ts").dt.cast_time_unit("us").to_physical()
        n_null, first, last = (
            scan.select(ts.null_count().alias("null"), ts.min(), ts.max().alias("max")).collect().row(0)
        )
    if n_null:
        row = int(scan.select("ts").collect()["ts"].is_null().arg_max() or 0)
        raise DataError(
            f"ts must not be null ({n_null} rows)",
            where={"file": path, "column": "ts", "row": row, "ts": None},
            fix="drop the rows",
        )
    if first is None or last is None:
        raise DataError("the file has no rows", where={"file": path}, fix="fetch the series again")
    return first, last


def _begins_late(frame: pl.DataFrame, start_us: int, first_us: int) -> bool:
    """Whether the rows read begin after ``start`` though the file has earlier ones."""
    return first_us < start_us and (frame.is_empty() or to_us(frame["ts"][0]) > start_us)


def _literal(us: int, dtype: Any) -> pl.Expr:
    """An instant in the unit and zone of a column, so that the filter reaches the file's statistics."""
    return pl.lit(from_us(us)).dt.convert_time_zone(dtype.time_zone).dt.cast_time_unit(dtype.time_unit)


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"the file cannot be read as parquet: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        where={"file": path},
        fix="fetch or write the file again",
    )
