"""Execution-cost tables: all-in cost in bps by day, pair and size."""

from pathlib import Path

import polars as pl

from basis_bt.core.errors import DataError

COLUMNS = ("day", "pair", "size_usd", "cost_bps")


def read_cost_table(path: Path) -> pl.DataFrame:
    """The rows of a cost table: ``day`` Date, ``pair`` String, ``size_usd`` and ``cost_bps`` Float64.

    Raises
    ------
    DataError
        If it cannot be read, or holds sizes that are not above 0 or costs that are not 0 or more.
    """
    try:
        rows = pl.read_parquet(path).select(COLUMNS)
        rows = rows.with_columns(pl.col("day").cast(pl.Date), pl.col("size_usd", "cost_bps").cast(pl.Float64))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the cost table cannot be read: {str(error).splitlines()[0]}",
            where={"file": path},
            fix=f"it needs the columns {', '.join(COLUMNS)}",
        ) from None
    sound = (pl.col("size_usd") > 0) & pl.col("cost_bps").is_finite() & (pl.col("cost_bps") >= 0)
    bad = rows.filter(~sound.fill_null(False))
    if bad.height:
        raise DataError(
            f"impossible sizes or costs ({bad.height} rows)", where={"file": path}, fix=f"first: {bad.row(0)}"
        )
    return rows
