"""Which series a market folder holds, and what the stamps of one say: span, bar, settlements, holes, months."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, from_us
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours
from basis_bt.market.loading import UNIVERSE, collect, read_bytes, scan_bytes
from basis_bt.market.schemas import TS, SeriesKey, key_of_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One series, or one universe of them, with the files it lies in.

    ``source`` is ``file``, ``folder`` (a series in parts) or ``universe`` (funding of many instruments in one file);
    ``files`` are paths below the market folder with their Path, sorted. ``key.symbol`` is empty for a universe.
    """

    key: SeriesKey
    source: str
    files: tuple[tuple[str, Path], ...]

    @property
    def path(self) -> str:
        """Where it lies below the market folder: the file, or the folder of its parts."""
        return self.key.stem if self.source == "folder" else self.files[0][0]


def holdings(root: Path) -> tuple[list[Holding], list[str]]:
    """Every series below a market folder, sorted, and the parquet files that are none.

    Raises
    ------
    DataError
        If the folder is missing.
    """
    if not root.is_dir():
        raise DataError("the market folder does not exist", where={"root": root}, fix="give a folder with series")
    found: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    keys: dict[str, SeriesKey] = {}
    others = []
    for path in root.rglob("*.parquet"):
        name = path.relative_to(root).as_posix()
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if parts[0] == UNIVERSE and len(parts) == 2:
            key, source, stem = SeriesKey("funding", parts[1].removesuffix(".parquet"), ""), "universe", name
        else:
            known, source = key_of_path(name), "file"
            for depth in (3, 4):
                if known is None and len(parts) > depth:
                    known, source = key_of_path("/".join(parts[:depth])), "folder"
            if known is None:
                others.append(name)
                continue
            key, stem = known, known.stem
        keys[stem] = key
        found.setdefault((stem, source), []).append((name, path))
    rows = [
        Holding(key=keys[stem], source=source, files=tuple(sorted(files))) for (stem, source), files in found.items()
    ]
    return sorted(rows, key=lambda row: (row.source == "universe", row.path)), sorted(others)


def universe_symbol(instrument: str) -> str:
    """``BASE-QUOTE`` of a perp as its venue names it (``BTC-USDT-SWAP``)."""
    return instrument.removesuffix("-SWAP").removesuffix("-PERP")


def read_columns(path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> tuple[pl.DataFrame, str]:
    """Columns of one parquet file with ``ts`` in UTC microseconds, and the SHA-256 of its bytes.

    Raises
    ------
    DataError
        If the bytes are not those that were written, are no parquet, lack a column, or hold no usable stamps.
    """
    data = read_bytes(path)
    rows = scan_bytes(data, path=path)
    schema = collect(rows.head(0), path=path).schema
    missing = [name for name in columns if name not in schema]
    if missing:
        raise DataError(
            f"it has no column {' and no '.join(missing)}",
            where={"file": path, "found": ", ".join(schema)},
            fix="import it with a mapping of columns",
        )
    wanted = [*columns, *(name for name in optional if name in schema)]
    frame = collect(rows.select(wanted), path=path)
    if "instrument" in frame.columns and frame["instrument"].null_count():
        raise DataError(
            f"instrument must not be null ({frame['instrument'].null_count()} rows)",
            where={"file": path, "column": "instrument", "row": int(frame["instrument"].is_null().arg_max() or 0)},
            fix="drop the rows",
        )
    return frame.with_columns(_instants(frame["ts"], path=path)), hashlib.sha256(data).hexdigest()


def coverage(rows: pl.DataFrame, *, key: SeriesKey) -> dict[str, Any]:
    """What the stamps of one series say; the columns of ``catalogue`` from ``first`` to ``months``.

    Parameters
    ----------
    rows : the key columns of the series, ``ts`` in UTC microseconds, as stored; at least one row
    key : which series
    """
    stamps = rows["ts"].to_physical().to_numpy()
    n_unique = rows.select(key.spec.key).n_unique() if key.spec.key else len(rows)
    unsorted = bool((np.diff(stamps) < 0).any())
    ts_us = np.unique(stamps)
    facts: dict[str, Any] = {
        "first": from_us(int(ts_us[0])),
        "last": from_us(int(ts_us[-1])),
        "rows": len(rows),
        "bar_hours": None,
        "settlements": None,
        "intervals": None,
        "interval_changes": None,
        "holes": None,
        "missing": None,
        "duplicates": len(rows) - n_unique,
        "unsorted": unsorted,
    }
    if key.series == "funding":
        hours = settlement_intervals_hours(ts_us)
        gaps = missing_settlements(ts_us, hours)
        known = hours[hours > 0]
        seen = list(dict.fromkeys(known.tolist()))
        facts |= {
            "settlements": len(ts_us),
            "intervals": " ".join(f"{interval}h" for interval in seen) or None,
            "interval_changes": int((np.diff(known) != 0).sum()),
            "holes": int((gaps > 0).sum()),
            "missing": int(gaps.sum()),
        }
        return facts | {"months": months_covered(ts_us, hours=hours.astype(np.float64))}
    if key.spec.is_bars and len(ts_us) > 1:
        steps, counts = np.unique(np.diff(ts_us), return_counts=True)
        bar_us = int(steps[counts.argmax()])
        gaps = np.rint(np.diff(ts_us) / bar_us).astype(np.int64) - 1
        facts |= {
            "bar_hours": bar_us / US_PER_HOUR,
            "holes": int((gaps > 0).sum()),
            "missing": int(gaps[gaps > 0].sum()),
        }
        return facts | {"months": months_covered(ts_us, hours=np.full(len(ts_us), bar_us / US_PER_HOUR))}
    days_us = np.unique(ts_us // US_PER_DAY) * US_PER_DAY
    return facts | {"months": months_covered(days_us, hours=np.full(len(days_us), 24.0))}


def months_covered(ts_us: np.ndarray, *, hours: np.ndarray) -> list[float]:
    """Share of each calendar month that rows stand for, from the month of the first to that of the last.

    Parameters
    ----------
    ts_us : sorted instants, int64 epoch microseconds, shape (n,)
    hours : hours that each row stands for, float64 of shape (n,)
    """
    month = ts_us.astype("datetime64[us]").astype("datetime64[M]")
    edges = np.arange(month[0], month[-1] + 2)
    length = np.diff(edges.astype("datetime64[h]")).astype(np.float64)
    covered = np.bincount((month - month[0]).astype(np.int64), weights=hours, minlength=len(length))
    return [round(share, 4) for share in np.minimum(covered / length, 1.0).tolist()]


def first_month(first: datetime) -> int:
    """Months since year 0 of an instant: the place of the first entry of ``months`` on a calendar."""
    return first.year * 12 + first.month - 1


def _instants(ts: pl.Series, *, path: Path) -> pl.Series:
    where = {"file": path, "column": "ts"}
    if not isinstance(ts.dtype, pl.Datetime) or ts.dtype.time_zone is None:
        raise DataError(
            f"ts must be instants that name their zone, found {ts.dtype}", where=where, fix="import the file again"
        )
    if ts.null_count():
        raise DataError(
            f"ts must not be null ({ts.null_count()} rows)",
            where=where | {"row": ts.is_null().arg_max()},
            fix="drop the rows",
        )
    if ts.is_empty():
        raise DataError("the file has no rows", where=where, fix="fetch the series again")
    return ts.dt.convert_time_zone("UTC").cast(TS)
