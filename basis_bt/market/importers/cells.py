"""Cells of a CSV as numbers: fast when all is well, and exact about the column, the row and the count when not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.importers.base import Source

_BOM = b"\xef\xbb\xbf"


def check_lines(source: Source, *, n_cells: int) -> None:
    """Every line has ``n_cells`` cells, and the last one ends.

    Raises
    ------
    DataError
        With the first line that has another number of cells, or if the file stops in the middle of a line. Lines of a
        zip member are proved whole by its checksum, so its last one may lack the line end.
    """
    data = source.data
    whole = data.endswith(b"\n") or ".zip/" in source.name
    if not whole:
        raise DataError(
            "the last line does not end: the file was cut while it was written or copied",
            where={"file": source.name, "line": data.count(b"\n") + 1},
            fix="fetch it again; or, if that line is right, add a line end",
        )
    cells = np.frombuffer(data, dtype=np.uint8)
    lines = np.count_nonzero(cells == ord("\n")) + (not data.endswith(b"\n"))
    if b'"' not in data and np.count_nonzero(cells == ord(",")) == (n_cells - 1) * lines:
        return
    for number, line in enumerate(data.splitlines(), start=1):
        found = _cells(line)
        if found != n_cells:
            raise DataError(
                f"a line must have {n_cells} cells, found {found}",
                where={"file": source.name, "line": number},
                fix="fetch the file again if the line was cut; take thousands separators out of its numbers",
            )


def read_columns(source: Source, columns: Mapping[str, tuple[int, Any]], *, n_cells: int, header: bool) -> pl.DataFrame:
    """Some columns of a CSV by their position, as numbers.

    Decimal text becomes the nearest float64, as Python's ``float`` does it.

    Parameters
    ----------
    columns : name -> (position from 0, type)
    n_cells : cells of every line
    header : whether the first line is one

    Raises
    ------
    DataError
        If a line has another number of cells, or a cell is empty or no number.
    """
    check_lines(source, n_cells=n_cells)
    wanted = {position: (name, dtype) for name, (position, dtype) in columns.items()}
    schema = {
        wanted[i][0] if i in wanted else f"_{i}": wanted[i][1] if i in wanted else pl.String() for i in range(n_cells)
    }
    plain = source.data.removeprefix(_BOM)
    options: dict[str, Any] = {"has_header": False, "skip_rows": int(header), "columns": sorted(wanted)}
    try:
        frame = pl.read_csv(plain, schema=schema, **options)
    except pl.exceptions.PolarsError:
        text = _read_text(plain, schema=dict.fromkeys(schema, pl.String()), source=source, **options)
        frame = text.select(numbers(text[name], dtype, source=source) for name, dtype in wanted.values())
    for name in frame.columns:
        refuse_nulls(frame[name], source=source)
    return frame.select(list(columns))


def numbers(text: pl.Series, dtype: Any, *, source: Source, column: str = "") -> pl.Series:
    """A text column as numbers; empty cells become null.

    Raises
    ------
    DataError
        If a cell is no number (``n/a``, ``41,995.30``): the first one with its row, and how many there are.
    """
    if text.dtype != pl.String:
        return text.cast(dtype)
    trimmed = text.str.strip_chars().replace("", None)
    parsed = trimmed.cast(dtype, strict=False)
    bad = parsed.is_null() & trimmed.is_not_null()
    if bad.any():
        row = int(bad.arg_max() or 0)
        comma = "," in str(text[row])
        raise DataError(
            f"{column or text.name} must be a number, found {text[row]!r} ({_rows(int(bad.sum()))})",
            where={"file": source.name, "column": column or text.name, "row": row},
            fix="write decimals with a point and without separators"
            if comma
            else "drop these rows or leave the cell empty",
        )
    return parsed


def refuse_nulls(values: pl.Series, *, source: Source) -> None:
    """Refuse a column with empty cells.

    Raises
    ------
    DataError
        With the first row that is empty, and how many there are.
    """
    if values.null_count():
        row = int(values.is_null().arg_max() or 0)
        raise DataError(
            f"{values.name} must not be empty ({_rows(values.null_count())})",
            where={"file": source.name, "column": values.name, "row": row},
            fix="fetch the file again, or drop these rows",
        )


def refuse_many(labels: pl.Series, given: str, *, source: Source) -> None:
    """Refuse an option that would make one instrument of several.

    Raises
    ------
    DataError
        If the column holds more than one value.
    """
    found = labels.unique(maintain_order=True)
    if len(found) > 1:
        raise DataError(
            f"{given} was given for a file of {len(found)}: {', '.join(map(str, found[:5].to_list()))}",
            where={"file": source.name, "column": labels.name},
            fix="leave the option out, or split the file",
        )


def read_text(source: Source) -> pl.DataFrame:
    """A CSV with a header, every cell as it is written.

    Raises
    ------
    DataError
        If a line has another number of cells than the header, or the bytes are no CSV.
    """
    check_lines(source, n_cells=len(source.header))
    return _read_text(source.data, infer_schema=False, source=source)


def _read_text(data: bytes, *, source: Source, **options: Any) -> pl.DataFrame:
    try:
        return pl.read_csv(data, **options)
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0][:100]
        raise DataError(f"the CSV is damaged: {reason}", where={"file": source.name}, fix="fetch it again") from error


def _cells(line: bytes) -> int:
    quoted, cells = False, 1
    for byte in line:
        quoted ^= byte == 0x22
        cells += byte == 0x2C and not quoted
    return cells


def _rows(count: int) -> str:
    return f"{count} row{'s' if count != 1 else ''}"
