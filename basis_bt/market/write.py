"""Writing series: sorted, zstd, page checksums, a hash of the whole file inside the file, replaced in one step.

The hash stands in the parquet metadata as ``basis_bt.sha256``. It is taken over all bytes of the file with sixty-four
zeros in its own place, so that one file proves itself: no second file can be lost, or be older than the first.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.schemas import SeriesKey

HASH_KEY = b"basis_bt.sha256"
COVERED_KEY = b"basis_bt.covered"
_ZEROS = b"0" * 64
_STAMP = re.compile(re.escape(HASH_KEY) + rb"[^0-9a-f]{1,4}([0-9a-f]{64})")


def own_hash_is_right(data: bytes) -> bool | None:
    """Whether the bytes of a file are those that were written; None for a file that carries no hash of ours."""
    stamps = list(_STAMP.finditer(data))
    if not stamps:
        return None
    at = stamps[-1].start(1)
    digest = hashlib.sha256(data[:at])
    digest.update(_ZEROS)
    digest.update(memoryview(data)[at + 64 :])
    return digest.hexdigest().encode() == data[at : at + 64]


def parquet_bytes(
    frame: pl.DataFrame, *, metadata: Mapping[bytes, bytes] | None = None, **options: Any
) -> bytes:
    """A parquet file with page checksums that carries the hash of itself; equal frames give equal bytes.

    ``options`` go to pyarrow's writer, e.g. a compression level.
    """
    import pyarrow.parquet as pq

    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    table = table.replace_schema_metadata({**(metadata or {}), HASH_KEY: _ZEROS})
    buffer = io.BytesIO()
    chosen: dict[str, Any] = {"compression": "zstd", **options}
    pq.write_table(table, buffer, write_page_checksum=True, **chosen)
    data = buffer.getbuffer()
    at = [match.start(1) for match in _STAMP.finditer(data)][-1]
    data[at : at + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def replace_bytes(path: Path, data: bytes) -> None:
    """Put a file in place in one step: a reader, and a kill at any moment, finds the old bytes or the new ones.

    Raises
    ------
    DataError
        If it cannot be written; what was there is unchanged then.
    """
    local = type(path).__module__.startswith("pathlib")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not local:  # an object store shows an object when all of it is there
            path.write_bytes(data)
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
    except OSError as error:
        raise DataError(
            f"the file cannot be written: {error.strerror or error}",
            where={"file": path, "bytes": len(data)},
            fix="make room or give another folder; what was there before is unchanged",
        ) from error


def write_series(
    root: Path, key: SeriesKey, frame: pl.DataFrame, *, covered_us: list[tuple[int, int]] | None = None
) -> Path:
    """Write one series, sorted, with its columns in the order of the schema, and return its path.

    Stamps are kept in milliseconds where that loses nothing, in microseconds otherwise.

    Parameters
    ----------
    root : the market folder; made if it is missing
    key : which series
    frame : its columns by the names of ``schemas.SERIES``; others are left out
    covered_us : spans ``[from, to)`` in epoch microseconds that were asked of the venue, kept in the file's metadata

    Raises
    ------
    DataError
        If a required column is missing or holds nulls, or the file cannot be written.
    """
    path = root / key.path
    rows = frame.select(pl.col(name).cast(dtype) for name, dtype in key.spec.columns.items() if name in frame.columns)
    for name in key.spec.required:
        if name not in rows.columns or rows[name].null_count():
            raise DataError(
                f"{key.series} needs the column {name} without nulls",
                where={"series": key, "found": ", ".join(frame.columns)},
                fix="drop the rows that lack it",
            )
    rows = rows.sort("ts", maintain_order=True) if key.spec.key in (("ts",), ()) else rows.sort(key.spec.key)
    instants = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Datetime)]
    if all((rows[name].drop_nulls().to_physical() % 1000 == 0).all() for name in instants):
        rows = rows.with_columns(pl.col(instants).dt.cast_time_unit("ms"))
    metadata = {} if covered_us is None else {COVERED_KEY: json.dumps(covered_us).encode()}
    replace_bytes(path, parquet_bytes(rows, metadata=metadata))
    return path


def covered_spans_us(path: Path) -> list[tuple[int, int]]:
    """The spans that ``write_series`` was told were asked of the venue; none for a missing or foreign file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return []
    data = path.read_bytes()
    if not own_hash_is_right(data):
        return []
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return [(first, last) for first, last in json.loads(metadata.get(COVERED_KEY, b"[]"))]
