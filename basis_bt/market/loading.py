"""From the files of a series to its stamps and rows in order.

A file is read in one go and everything else works on those bytes: a file that is replaced meanwhile is seen as it was
or as it is, never half and half, and the hash in a manifest is of the very bytes that were used.
"""

import difflib
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.checks import Finding, check_labels, check_schema
from basis_bt.market.schemas import TS, SeriesKey
from basis_bt.market.write import own_hash_is_right

LABELS = ("venue", "exchange", "symbol")
UNIVERSE = "funding_universe"


class Loaded(NamedTuple):
    """The stamps of a whole series (int64 epoch microseconds, sorted), and a way to its rows ``[low, high)``."""

    path: Path
    sha256: str
    ts_us: np.ndarray
    rows: Callable[[int, int], pl.DataFrame]
    findings: list[Finding]


def load(root: Path, key: SeriesKey) -> Loaded:
    """A series in order, each row once, with the findings about that.

    Raises
    ------
    DataError
        If a file is missing, unreadable or damaged, or has the wrong columns or null stamps.
    """
    path, lazy, digest = _scan_series(root, key)
    ts = collect(lazy.select("ts"), path=path)["ts"]
    if ts.null_count():
        raise DataError(
            f"ts must not be null ({ts.null_count()} rows)",
            where={"file": path, "column": "ts", "row": int(ts.is_null().arg_max() or 0), "ts": None},
            fix="drop the rows",
        )
    ts_us = ts.to_physical().to_numpy()
    distance = np.diff(ts_us)
    if (distance < 0).any() or (key.spec.key and (distance == 0).any()):
        frame, findings = _in_order(collect(_typed(lazy, key), path=path), key=key)
        return Loaded(path, digest, frame["ts"].to_physical().to_numpy(), lambda a, b: frame[a:b], findings)

    def rows(low: int, high: int) -> pl.DataFrame:
        return collect(_typed(lazy.slice(low, high - low), key), path=path)

    return Loaded(path, digest, ts_us, rows, [])


def series_files(root: Path, key: SeriesKey) -> list[Path]:
    """The file of a series, or its parts, or the long file of many instruments that has it; empty if there is none."""
    path = root / key.path
    if path.exists() or path.is_symlink():
        return [path]
    parts = root / key.stem
    if parts.is_dir():
        return sorted(part for part in parts.rglob("*.parquet") if not part.name.startswith("."))
    universe = root / UNIVERSE / f"{key.venue}.parquet"
    if key.series != "funding" or not universe.is_file():
        return []
    lazy = scan_bytes(read_bytes(universe), path=universe).filter(_of_universe(key)).select("instrument").head(1)
    return [universe] if len(collect(lazy, path=universe)) else []


def read_bytes(path: Path) -> bytes:
    """All bytes of a file; if it carries a hash of itself, they are those that were written.

    Raises
    ------
    DataError
        If it cannot be read, is empty, or is damaged.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise OSError("the link leads nowhere, or back to itself")
        if not path.is_file():
            raise OSError("it is no file")
        data = path.read_bytes()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"the file cannot be read: {reason}", where={"file": path}, fix="look at its permissions and links"
        ) from None
    if not data:
        raise DataError("the file is empty (0 bytes)", where={"file": path}, fix="fetch or write the file again")
    if own_hash_is_right(data) is False:
        raise DataError(
            "the file is damaged: its bytes are not those that were written",
            where={"file": path, "bytes": len(data)},
            fix="fetch or import the series again, or restore the file from a copy",
        )
    return data


def scan_bytes(data: bytes, *, path: Path) -> pl.LazyFrame:
    """The rows of a parquet file, not yet read."""
    try:
        return pl.scan_parquet(io.BytesIO(data))
    except BaseException as error:
        raise _unreadable(error, path=path) from None


def collect(lazy: pl.LazyFrame, *, path: Path) -> pl.DataFrame:
    """The rows of a file. Raises DataError where it cannot be read as parquet."""
    try:
        return lazy.collect()
    except BaseException as error:  # a polars panic is no Exception
        raise _unreadable(error, path=path) from None


def _unreadable(error: BaseException, *, path: Path) -> BaseException:
    """What to raise for an error of the parquet reader; errors of any other kind stay what they are."""
    known = isinstance(error, pl.exceptions.PolarsError | OSError | ValueError)
    if not known and type(error).__name__ != "PanicException":
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(
        f"the file cannot be read as parquet: {text}", where={"file": path}, fix="fetch or write the file again"
    )


def _scan_series(root: Path, key: SeriesKey) -> tuple[Path, pl.LazyFrame, str]:
    """Path, rows not yet read, and the hash of the bytes (of the hashes, where the series is in parts)."""
    files = series_files(root, key)
    if not files:
        raise _no_series(root, key)
    tables, digests = [], []
    for path in files:
        data = read_bytes(path)
        digests.append(hashlib.sha256(data).hexdigest())
        tables.append(_checked_columns(scan_bytes(data, path=path), key=key, path=path))
    if len(files) == 1:
        return files[0], tables[0], digests[0]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return root / key.stem, pl.concat(tables, how="diagonal"), digest


def _checked_columns(lazy: pl.LazyFrame, *, key: SeriesKey, path: Path) -> pl.LazyFrame:
    """The columns of the series, its stamps in UTC, after the checks of the schema and of the labels."""
    try:
        schema = lazy.collect_schema()
        check_schema(lazy, key=key, path=path)
    except BaseException as error:
        raise _unreadable(error, path=path) from None
    if path.parent.name == UNIVERSE:
        lazy = lazy.filter(_of_universe(key))
    labels = [column for column in LABELS if column in schema]
    if labels:
        check_labels(collect(lazy.select(labels), path=path), key=key, path=path)
    instants = [name for name, dtype in key.spec.columns.items() if isinstance(dtype, pl.Datetime) and name in schema]
    return lazy.select(name for name in key.spec.columns if name in schema).with_columns(
        pl.col(name).dt.convert_time_zone("UTC").cast(TS) for name in instants
    )


def _of_universe(key: SeriesKey) -> pl.Expr:
    """The rows of one perp in a long file: by its symbol, with the venue's suffix for perps or without."""
    return pl.col("instrument").is_in((key.symbol, f"{key.symbol}-SWAP"))


def _typed(lazy: pl.LazyFrame, key: SeriesKey) -> pl.LazyFrame:
    names = lazy.collect_schema().names()
    return lazy.select(pl.col(name).cast(dtype) for name, dtype in key.spec.columns.items() if name in names)


def _no_series(root: Path, key: SeriesKey) -> DataError:
    if not root.is_dir():
        return DataError(
            "the market folder does not exist", where={"root": root}, fix="set data.root to a market folder"
        )
    folder = key.path.split("/")[0]
    existing = sorted(path.relative_to(root).as_posix() for path in root.glob(f"{folder}/**/*.parquet"))
    near = difflib.get_close_matches(key.path, existing, n=3, cutoff=0.4) or existing[:3]
    return DataError(
        f"no {key.series} file for {key.instrument or key}",
        where={"file": root / key.path},
        fix=f"existing {key.series} files near it: {', '.join(near)}"
        if near
        else f"the folder has no {key.series} files",
    )


def _in_order(frame: pl.DataFrame, *, key: SeriesKey) -> tuple[pl.DataFrame, list[Finding]]:
    """Rows sorted by stamp; of rows with one key, those that agree in every column are one."""
    findings: list[Finding] = []
    ts_us = frame["ts"].to_physical().to_numpy()
    back = np.flatnonzero(np.diff(ts_us) < 0) + 1
    if len(back):
        findings.append(
            _finding(rule="order", repair="sort", rows=len(back), first_row=int(back[0]), first_us=ts_us[back[0]],
                     what="ts must increase", fix="sort the file by ts")
        )  # fmt: skip
    frame = frame.with_row_index("row").sort("ts", maintain_order=True)
    if not key.spec.key:
        return frame.drop("row"), findings
    repeat = ~frame.select(pl.struct(pl.exclude("row")).is_first_distinct()).to_series()
    if repeat.any():
        first = frame.filter(repeat)[0]
        findings.append(
            _finding(rule="repeated rows", repair="drop", rows=int(repeat.sum()), first_row=first["row"][0],
                     first_us=first["ts"].to_physical()[0], fix="drop the repeated rows",
                     what="ts must be unique: duplicate stamp, the rows repeat others in every column")
        )  # fmt: skip
    frame = frame.filter(~repeat)
    second = ~frame.select(pl.struct(key.spec.key).is_first_distinct()).to_series()
    if second.any():
        first = frame.filter(second)[0]
        findings.append(
            _finding(rule="conflicting rows", repair="none", rows=int(second.sum()), first_row=first["row"][0],
                     first_us=first["ts"].to_physical()[0], what="ts must be unique: duplicate stamp with other values",
                     fix="find out which of the rows is right and drop the others")
        )  # fmt: skip
    return frame.filter(~second).drop("row"), findings


def _finding(*, first_row: Any, first_us: Any, **facts: Any) -> Finding:
    return Finding(first_row=int(first_row), first_us=int(first_us), **facts)
