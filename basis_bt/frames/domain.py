"""Other series a run names (premium, index, borrow rates, lending indices, ...) as columns of the aligned frame."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.instruments import ON_CHAIN, Instrument
from basis_bt.core.models import Data
from basis_bt.market.files import Series, read_series
from basis_bt.market.remote import market_root
from basis_bt.market.schemas import SERIES, SeriesKey, key_of_path

OF_LEGS = ("mark", "index", "premium", "predicted", "borrow", "quote_usd")


class Named(NamedTuple):
    """A series of the market folder and the end of the names of its columns: the leg it belongs to, or nothing."""

    key: SeriesKey
    prefix: str
    suffix: str


def named_series(names: Sequence[str], instruments: Sequence[Instrument]) -> Iterator[Named]:
    """The series behind the names of ``data.series``.

    ``mark``, ``index``, ``premium`` and ``predicted`` are read for every perp of the combo, ``borrow`` for the coin of
    every spot leg, ``quote_usd`` for the quote currency of every leg but dollars; a path such as
    ``onchain/aave_v3_ethereum/WETH`` or ``lst/ethereum/wstETH-ETH`` names one series.

    Raises
    ------
    ConfigError
        If a name is neither.
    """
    for name in names:
        if name in OF_LEGS:
            for leg, instrument in enumerate(instruments):
                key = _of_leg(name, instrument)
                if key is not None:
                    yield Named(key, name, f"_{leg}")
            continue
        key = key_of_path(name)
        if key is None or key.spec.by_kind or key.spec.is_bars:
            raise ConfigError(
                f"data.series: {name!r} is no series a run can name",
                fix=f"use {', '.join(OF_LEGS)}, or a path such as onchain/aave_v3_ethereum/WETH or lst/ethereum/X-ETH",
            )
        yield Named(key, "".join(letter if letter.isalnum() else "_" for letter in key.symbol).lower(), "")


def _of_leg(name: str, instrument: Instrument) -> SeriesKey | None:
    if name == "borrow":
        return SeriesKey(name, instrument.venue, instrument.base) if instrument.kind == "spot" else None
    if name == "quote_usd":
        is_dollar = instrument.quote == "USD" or instrument.kind in ON_CHAIN
        return None if is_dollar else SeriesKey(name, instrument.venue, instrument.quote)
    return SeriesKey(name, instrument.venue, instrument.symbol) if instrument.is_perp else None


def domain_columns(
    data: Data, instruments: Sequence[Instrument], *, row_end_us: np.ndarray, read_from_us: int
) -> tuple[list[pl.Series], list[Series]]:
    """The columns of all series a run names, one value a row: what was known when the row ended.

    A column is called ``{series}_{column}_{leg}`` (``premium_close_1``, ``predicted_rate_1``, ``borrow_rate_apr_0``) or
    ``{symbol}_{column}`` (``weth_liquidity_index``). A close is known when its bar ends, and a bar older than one step
    is no value; rates and indices hold from their stamp until the next; a prediction until its settlement.

    Parameters
    ----------
    row_end_us : end of each row of the frame, int64 epoch microseconds
    read_from_us : where the frame begins

    Raises
    ------
    ConfigError, DataError
        If a name means nothing, or a file is missing or refused by the checks.
    """
    columns, series = [], []
    end_us = int(row_end_us[-1]) + 1
    for named in named_series(data.series, instruments):
        start_us = read_from_us - 2 * data.bar_us
        read = read_series(market_root(data.root), named.key, start_us=start_us, end_us=end_us, checks=data.checks)
        series.append(read)
        if read.frame.is_empty():
            raise DataError(
                f"{named.key} has no row within the run and begins after it",
                where={"file": read.path, "start": data.start, "end": data.end},
                fix="fetch it from before the run on",
            )
        columns += _columns(read, named, row_end_us=row_end_us, bar_us=data.bar_us)
    return columns, series


def _columns(read: Series, named: Named, *, row_end_us: np.ndarray, bar_us: int) -> list[pl.Series]:
    spec = SERIES[read.key.series]
    known_us = read.frame["ts"].to_physical().to_numpy() + (read.step_us or 0)
    row = np.searchsorted(known_us, row_end_us, side="right") - 1
    here = row >= 0
    if spec.is_bars:
        here &= row_end_us - known_us[np.maximum(row, 0)] < max(read.step_us or 0, bar_us)
    if read.key.series == "predicted" and "settlement_ts" in read.frame.columns:
        due = read.frame["settlement_ts"].to_physical().to_numpy()
        here &= due[np.maximum(row, 0)] > row_end_us
    if spec.is_bars or read.key.series == "quote_usd":
        names = ["close"]
    else:
        names = [name for name, dtype in spec.columns.items() if dtype.is_float() and name in read.frame.columns]
    return [
        pl.Series(
            f"{named.prefix}_{name}{named.suffix}",
            np.where(here, read.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()[row], np.nan),
            nan_to_null=True,
        )
        for name in names
    ]
