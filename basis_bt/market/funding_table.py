"""Every settlement of a market folder in one table, from series of their own and from long-format universes."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.coverage import Holding, read_columns, universe_symbol
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours
from basis_bt.market.schemas import TS

COLUMNS = {
    "venue": pl.String(), "symbol": pl.String(), "source": pl.String(), "ts": TS, "rate": pl.Float64(),
    "interval_hours": pl.Int32(),
}  # fmt: skip
_NAMES = ("venue", "symbol")


def funding_table(
    found: Sequence[Holding], *, quotes: Sequence[str] | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All settlements of the funding series among ``found``, and one row for each series that cannot be read.

    An instrument with a file of its own is not read from a universe. Of rows of one instant the first counts, and a
    rate that is no finite number does not.

    Parameters
    ----------
    found : the series of a folder, from ``coverage.holdings``
    quotes : keep instruments with one of these quote currencies

    Returns
    -------
    settlements : sorted by instrument and time, with ``group`` (a number per instrument), ``venue``, ``symbol``,
        ``source``, ``ts``, ``rate``, ``hours`` (what it was paid for; 0 if neither spacing nor file tell), ``missing``
        (settlements lacking before it), ``duplicates`` and ``not_finite`` (rows of the instrument left out)
    unreadable : ``venue``, ``symbol`` (``*`` for a universe), ``source``, ``flags``
    """
    frames, errors = [pl.DataFrame(schema=COLUMNS)], []
    for holding in found:
        if holding.key.series != "funding":
            continue
        try:
            frames.append(_read(holding))
        except (DataError, pl.exceptions.PolarsError) as error:
            sentence = error.what if isinstance(error, DataError) else str(error).splitlines()[0]
            named = {"venue": holding.key.venue, "symbol": holding.key.symbol or "*", "source": holding.source}
            errors.append(named | {"flags": f"unreadable: {sentence}"})
    rows = pl.concat(frames)
    if quotes is not None:
        wanted = [quote.upper() for quote in quotes]
        rows = rows.filter(pl.col("symbol").str.extract(r"-([^-]+)$").str.to_uppercase().is_in(wanted))
    in_universe = pl.col("source") == "universe"
    own = rows.filter(~in_universe)
    rest = rows.filter(in_universe).join(own.select(_NAMES).unique(), on=_NAMES, how="anti")
    rows = pl.concat([own, rest]).sort(*_NAMES, "ts", maintain_order=True)
    begins = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in _NAMES)
    rows = rows.with_columns(
        group=begins.cum_sum().cast(pl.Int64) - 1,
        duplicate=~begins & (pl.col("ts") == pl.col("ts").shift()).fill_null(False),
        bad=~pl.col("rate").is_finite().fill_null(False),
    ).with_columns(
        duplicates=pl.col("duplicate").sum().over("group").cast(pl.Int64),
        not_finite=pl.col("bad").sum().over("group").cast(pl.Int64),
    )
    kept = rows.filter(~pl.col("duplicate") & ~pl.col("bad")).drop("duplicate", "bad")
    return _with_intervals(kept), pl.DataFrame(errors, schema=dict.fromkeys((*_NAMES, "source", "flags"), pl.String))


def _read(holding: Holding) -> pl.DataFrame:
    if holding.source == "universe":
        frame, _ = read_columns(holding.files[0][1], ["ts", "rate", "instrument"])
        names = frame["instrument"].cast(pl.String)
        symbols = {name: universe_symbol(name) for name in names.unique()}
        frame = frame.with_columns(symbol=names.replace_strict(symbols, return_dtype=pl.String))
    else:
        parts = [read_columns(path, ["ts", "rate"], optional=["interval_hours"])[0] for _, path in holding.files]
        frame = pl.concat(parts, how="diagonal_relaxed").with_columns(symbol=pl.lit(holding.key.symbol))
    if "interval_hours" not in frame.columns:
        frame = frame.with_columns(interval_hours=None)
    frame = frame.with_columns(venue=pl.lit(holding.key.venue), source=pl.lit(holding.source))
    return frame.select(pl.col(name).cast(dtype) for name, dtype in COLUMNS.items())


def _with_intervals(rows: pl.DataFrame) -> pl.DataFrame:
    group, ts_us = rows["group"].to_numpy(), rows["ts"].to_physical().to_numpy()
    hours, missing = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(rows)]
    for begin, stop in zip(edges[:-1], edges[1:], strict=True):
        hours[begin:stop] = settlement_intervals_hours(ts_us[begin:stop])
        missing[begin:stop] = missing_settlements(ts_us[begin:stop], hours[begin:stop])
    told = rows["interval_hours"].cast(pl.Int64).fill_null(0).to_numpy()
    return rows.drop("interval_hours").with_columns(
        hours=pl.Series(np.where(hours > 0, hours, told)), missing=pl.Series(missing)
    )
