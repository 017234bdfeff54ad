"""Dated futures: when they expire, and the chain of contracts that a leg rolls through."""

import dataclasses
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument, Leg
from basis_bt.core.rulebook import delivery_rule
from basis_bt.core.units import HOURS_PER_YEAR, US_PER_DAY, US_PER_HOUR, from_us, to_us
from basis_bt.frames.align import FIELDS, align, resample
from basis_bt.frames.points import latest, point_bars
from basis_bt.market.files import Series
from basis_bt.market.schemas import SeriesKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A leg of dated futures on the rows of a run.

    ``frame`` has the bars of the contract held in each row; ``expiry_us`` the expiry of that contract ``(n_rows,)``;
    ``old_open`` the old contract's open where it is left for the next one, NaN elsewhere ``(n_rows,)``; ``last_close``
    the last known close of the contract of the row; ``contracts`` the contract of each row, an index into the series
    given.
    """

    frame: pl.DataFrame
    expiry_us: np.ndarray
    old_open: np.ndarray
    last_close: np.ndarray
    contracts: np.ndarray


def expiry_us_of(instrument: Instrument) -> int:
    """When a dated future is delivered, in epoch microseconds: its day at the venue's hour."""
    day = datetime.strptime(instrument.symbol.rsplit("-", 1)[1], "%Y%m%d").replace(tzinfo=UTC)
    return to_us(day) + delivery_rule(instrument, on=day.date()).expiry_hour * US_PER_HOUR


def contracts_of(root: Path, chain: Instrument) -> list[Instrument]:
    """The dated futures of a pair that the market folder has, by expiry.

    Raises
    ------
    DataError
        If there is none.
    """
    folder = root / "future" / chain.venue
    names = {path.name.removesuffix(".parquet") for path in folder.iterdir()} if folder.is_dir() else set()
    found = sorted(name for name in names if re.fullmatch(rf"{re.escape(chain.symbol)}-20[0-9]{{6}}", name))
    if not found:
        raise DataError(
            f"the market folder has no dated future of {chain}",
            where={"folder": folder},
            fix=f"fetch its contracts as {chain.symbol}-YYYYMMDD.parquet",
        )
    try:
        return [Instrument.parse(f"future:{chain.venue}:{name}") for name in found]
    except ValueError as error:
        raise DataError(str(error), where={"folder": folder}, fix="give the file the day it expires on") from None


def dated_bars(contracts: list[Series], *, bar_us: int) -> list[pl.DataFrame]:
    """Bars of the contracts' files, of one step; prices alone become bars of what was seen at instants."""
    stamps = [series.frame["ts"].to_physical().to_numpy() for series in contracts]
    has_bars = [{"open", "high", "low"} <= set(series.frame.columns) for series in contracts]
    steps = [
        np.diff(ts_us).min() for ts_us, is_bars in zip(stamps, has_bars, strict=True) if is_bars and len(ts_us) > 1
    ]
    step_us = int(min(steps)) if steps else None
    return [
        resample(dataclasses.replace(series, step_us=step_us), bar_us=bar_us)
        if is_bars
        else point_bars(ts_us, series.frame["close"].to_numpy(), bar_us=bar_us)
        for series, ts_us, is_bars in zip(contracts, stamps, has_bars, strict=True)
    ]


def chained(
    leg: Leg,
    series: list[Series],
    reference_close: np.ndarray | None,
    *,
    first_us: int,
    n_rows: int,
    n_warmup: int,
    bar_us: int,
) -> Chain:
    """The bars of a leg that rolls, row by row in the contract it holds.

    The leg begins in the first contract that has not expired. It rolls at the first row of the run at or after
    ``roll_days`` before the expiry, or with the annualised basis of the last closes at or under ``roll_basis_apr``, in
    which both contracts have an open; rows before the run are those of the first contract.

    Parameters
    ----------
    series : the contracts by expiry; one alone never rolls
    reference_close : closes of the reference leg on the rows, carried, NaN where none is known; None: this leg is it
    first_us, n_rows, n_warmup, bar_us : the rows, of which the run begins after ``n_warmup``

    Raises
    ------
    DataError
        If every contract has expired before the run.
    """
    rows_us = first_us + np.arange(n_rows, dtype=np.int64) * bar_us
    of_contracts = dated_bars(series, bar_us=bar_us)
    grids = [align([bars], first_us=first_us, n_rows=n_rows, bar_us=bar_us) for bars in of_contracts]
    expiry_us = [expiry_us_of(Instrument.parse(str(one.key.instrument))) for one in series]
    opens = [_column(grid, "open") for grid in grids]
    closes = [known_closes(bars, first_us=first_us, n_rows=n_rows, bar_us=bar_us) for bars in of_contracts]
    now = next((k for k, us in enumerate(expiry_us) if us > rows_us[n_warmup]), None)
    if now is None:
        raise DataError(
            f"{leg.instrument} has no contract that expires after the run begins",
            where={"file": series[-1].path, "first bar": from_us(int(rows_us[n_warmup])).isoformat()},
            fix="fetch the contracts that traded then, or begin the run earlier",
        )
    held, old_open = np.full(n_rows, now), np.full(n_rows, np.nan)
    for row in range(n_warmup, n_rows):
        left_us = expiry_us[now] - rows_us[row]
        if now + 1 < len(series) and left_us > 0:
            is_due = left_us <= leg.roll_days * US_PER_DAY
            if not is_due and leg.roll_basis_apr is not None and row > 0:
                coin = closes[now] if reference_close is None else reference_close
                basis = closes[now][row - 1] / coin[row - 1] - 1.0
                is_due = basis * HOURS_PER_YEAR * US_PER_HOUR / left_us <= leg.roll_basis_apr
            if is_due and not np.isnan(opens[now][row]) and not np.isnan(opens[now + 1][row]):
                old_open[row] = opens[now][row]
                now += 1
        held[row] = now
    rows = np.arange(n_rows)
    columns = {field: np.stack([_column(grid, field) for grid in grids])[held, rows] for field in FIELDS}
    expiries = np.array(expiry_us, dtype=np.int64)[held]
    columns["open"] = np.where(rows_us < expiries, columns["open"], np.nan)
    data = [pl.Series(name, values, nan_to_null=True) for name, values in columns.items()]
    return Chain(
        frame=pl.DataFrame([grids[0]["ts"], *data]),
        expiry_us=expiries,
        old_open=old_open,
        last_close=np.stack(closes)[held, rows],
        contracts=held,
    )


def known_closes(bars: pl.DataFrame, *, first_us: int, n_rows: int, bar_us: int) -> np.ndarray:
    """The last close known at the end of each row, NaN before the first one."""
    known = bars.drop_nulls("close")
    ends_us = known["ts"].to_physical().to_numpy() + bar_us
    at_us = first_us + np.arange(1, n_rows + 1, dtype=np.int64) * bar_us
    return latest(ends_us, known["close"].to_numpy(), at_us) if len(known) else np.full(n_rows, np.nan)


def _column(grid: pl.DataFrame, field: str) -> np.ndarray:
    return grid[f"{field}_0"].fill_null(float("nan")).to_numpy()


def contract_keys(leg: Leg, root: Path) -> list[SeriesKey]:
    """The series of a dated leg: its own, or those of all contracts of its chain."""
    instrument = leg.parsed
    found = contracts_of(root, instrument) if instrument.is_chain else [instrument]
    return [SeriesKey.of(one, "future") for one in found]
