"""Columns and labels of a file: what makes it the series its path says it is."""

from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.checks.finding import count_of
from basis_bt.market.schemas import SeriesKey


def check_schema(lazy: pl.LazyFrame, *, key: SeriesKey, path: Any) -> None:
    """Refuse missing columns, naive or non-time stamps, and columns of another type than their schema's.

    Raises
    ------
    DataError
        Naming the column, what was found, in which rows, and what to do.
    """
    schema, required = lazy.collect_schema(), key.spec.required
    missing = [column for column in required if column not in schema]
    if missing:
        raise DataError(
            f"{key.series} files need the columns {', '.join(required)}; missing: {', '.join(missing)}",
            where={"file": path, "found": _short(schema.names())},
            fix="rename the columns, or let basis-bt data import --map do it",
        )
    for column, dtype in key.spec.columns.items():
        found = schema.get(column)
        if found is None:
            continue
        if isinstance(dtype, pl.Datetime):
            if not isinstance(found, pl.Datetime):
                raise _no_instants(lazy.select(column).collect()[column], path=path)
            if found.time_zone is None:
                raise DataError(
                    f"{column} is without a time zone",
                    where={"file": path, "column": column, "row": 0},
                    fix='say which zone it is: pl.col("ts").dt.replace_time_zone("UTC")',
                )
    texts = [name for name, dtype in key.spec.columns.items()
             if dtype.is_numeric() and name in schema and not schema[name].is_numeric()]  # fmt: skip
    if texts:
        raise _no_numbers(lazy.select(texts).collect(), path=path)


def _no_instants(column: pl.Series, *, path: Any) -> DataError:
    """What is wrong with stamps that are no Datetime: their type, and epochs of another size than the first one's."""
    what = f"{column.name} must be a Datetime with a time zone, found {column.dtype}"
    odd = pl.Series([], dtype=pl.Boolean)
    if column.dtype.is_integer():
        unit = np.searchsorted([1e8, 1e11, 1e14, 1e17, 9.3e18], column.cast(pl.Float64).fill_null(0.0).to_numpy())
        odd = pl.Series(unit != unit[:1])
    if odd.any():
        row = int(odd.arg_max() or 0)
        what += f", in more than one unit: {column[0]} in row 0, {column[row]} in row {row}"
    rows, row = (int(odd.sum()), int(odd.arg_max() or 0)) if odd.any() else (len(column), 0)
    return DataError(
        f"{what} ({count_of(rows, 'row')})",
        where={"file": path, "column": column.name, "row": row},
        fix="convert the epochs with their unit stated (basis-bt data import does); "
        "a guessed unit gives 1970 or the year 55000",
    )


def _no_numbers(columns: pl.DataFrame, *, path: Any) -> DataError:
    """What is wrong with numbers that are no numbers: their type, and the first text that is not even one."""
    name, rows, row, cell = columns.columns[0], len(columns), 0, ""
    for column in columns:
        if column.dtype == pl.String:
            odd = column.is_not_null() & column.cast(pl.Float64, strict=False).is_null()
            if odd.any():
                name, rows, row = column.name, int(odd.sum()), int(odd.arg_max() or 0)
                cell = f" with cells that are no numbers: {column[row]!r}"
                break
    return DataError(
        f"{name} must be a number, found {columns.schema[name]}{cell} ({count_of(rows, 'row')})",
        where={"file": path, "column": name, "row": row},
        fix="convert it to Float64 and look at the cells that do not convert",
    )


def _short(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def check_labels(frame: pl.DataFrame, *, key: SeriesKey, path: Any) -> None:
    """Refuse a file whose own ``venue``, ``exchange`` or ``symbol`` column names another series than its path.

    Raises
    ------
    DataError
        With the name found and the one the path gives.
    """
    for column in frame.columns:
        due = key.symbol if column == "symbol" else key.venue
        for value in frame[column].cast(pl.String).unique().drop_nulls().sort():
            if not _plain(value).startswith(_plain(due).removesuffix("cm")):
                raise DataError(
                    f"{column} says {value!r} in the file of {due!r}",
                    where={"file": path, "column": column, "row": int((frame[column] == value).arg_max() or 0)},
                    fix="the rows are of another series: move the file, or import it again",
                )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
