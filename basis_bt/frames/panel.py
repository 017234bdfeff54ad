"""The one door from frames to arrays: what a run knows of the market, read-only and C-contiguous."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.core.arrays import carried
from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Combo, Instrument
from basis_bt.core.models import Data
from basis_bt.core.units import HOURS_PER_YEAR, US_PER_HOUR, bars_up, hours_to_us, parse_instant, to_us
from basis_bt.frames.align import align, grid_span, resample
from basis_bt.frames.domain import domain_columns
from basis_bt.frames.funding_columns import history_hours, settled_columns
from basis_bt.frames.futures import Chain
from basis_bt.frames.legs import Reader, bars_on_grid, oracle_bars, read_bars
from basis_bt.frames.settlements import Settlements, funding_by_row, settlements, trailing_funding
from basis_bt.frames.terms import Terms, read_terms
from basis_bt.market.checks import refuse, uncovered_findings
from basis_bt.market.files import Series, has_series
from basis_bt.market.intervals import settlement_intervals_hours
from basis_bt.market.remote import market_root
from basis_bt.market.schemas import SeriesKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Bars of all legs on one grid, with the settlements of the perps.

    Arrays have one row a bar and one column a leg; all are float64 but the masks, read-only and C-contiguous.

    ``open_price`` is the last close where a leg cannot be traded (the price an order would be decided on), and
    ``close_price`` the last close where the bar is missing; ``tradable`` and ``missing`` say where.
    ``high_price`` and ``low_price`` are NaN and ``volume`` is 0 where there is none.
    ``margin_open``, ``margin_high`` and ``margin_low`` are what margin is tested on: the mark's bars of a perp where
    loaded with their extremes, else the trades' (``margin_source`` says which), the last close where there is no bar.
    ``volume_before`` is the volume of the last bar closed before the row that had any. ``frame`` is the aligned frame
    that signals see, nulls left as they are, beginning ``n_warmup`` rows before the first bar. Prices are the files'
    own until ``dollars.in_dollars`` has put them in dollars; those of ``frame`` stay so.
    """

    instruments: list[Instrument]
    bar_us: int
    ts_us: np.ndarray
    open_price: np.ndarray
    high_price: np.ndarray
    low_price: np.ndarray
    close_price: np.ndarray
    volume: np.ndarray
    volume_before: np.ndarray
    margin_open: np.ndarray
    margin_high: np.ndarray
    margin_low: np.ndarray
    margin_source: list[str]
    tradable: np.ndarray
    missing: np.ndarray
    settlements: dict[int, Settlements]
    terms: Terms
    frame: pl.DataFrame
    n_warmup: int
    series: list[Series]

    @property
    def n_bars(self) -> int:
        """Number of bars of the run."""
        return len(self.ts_us)

    @property
    def bar_hours(self) -> float:
        """Bar step in hours."""
        return self.bar_us / US_PER_HOUR


def funding_column(leg: int, hours: float) -> str:
    """Name of the column with the annual rate of a leg's funding over a trailing window, in the frame signals see."""
    return f"funding_apr_{hours:g}h_{leg}"


def load_panel(
    data: Data,
    combo: Combo,
    *,
    warmup_hours: float = 0.0,
    funding_windows_hours: Sequence[float] = (),
    settled_counts: Sequence[int] = (),
    borrowed_legs: Sequence[int] = (),
    with_gas: bool = False,
    change: Callable[[Series], Series] | None = None,
) -> Panel:
    """Read, check and align what a run needs.

    Parameters
    ----------
    data, combo : the market folder, span and step; the legs
    warmup_hours : how far before ``start`` bars are read for the signal
    funding_windows_hours : trailing windows whose annual funding rates become columns ``funding_apr_{hours}h_{leg}``
    settled_counts : numbers of settlements whose 8 h rates are summed up in columns, see ``funding_columns.py``
    borrowed_legs, with_gas : legs that may be short on borrowed coins, and whether fills pay for gas: then the series
        of their rates are read where the folder has them
    change : what a scenario makes of each series read

    Raises
    ------
    DataError
        If a file is missing, unreadable or fails a check, or no bar is common to all legs.
    """
    bar_us = data.bar_us
    start_us, end_us = to_us(parse_instant(data.start)), to_us(parse_instant(data.end))
    n_warmup = bars_up(warmup_hours, bar_us=bar_us) + 1
    read_from = start_us // bar_us * bar_us - n_warmup * bar_us
    read_to = -(-end_us // bar_us) * bar_us
    reader = Reader(data=data, change=change)
    bars, dated = read_bars(reader, combo, start_us=read_from, end_us=read_to)
    for series in bars:
        refuse(series.findings, mode=data.checks, path=series.path)
        if series.frame.is_empty() and series.findings:
            raise DataError(
                "no usable row is left of the bars read",
                where={"file": series.path},
                fix="look at what was found: basis-bt data check",
            )
    first_us, n_bars = grid_span(bars, start_us=start_us, end_us=end_us, bar_us=bar_us)
    grid = {"first_us": first_us - n_warmup * bar_us, "n_rows": n_bars + n_warmup, "bar_us": bar_us}
    leg_bars, chains = bars_on_grid(combo, bars, dated, n_warmup=n_warmup, **grid)
    frame = align(leg_bars, **grid)
    row_end_us = frame["ts"].to_physical().to_numpy() + bar_us
    begun_us = -(-max(series.first_us for series in bars) // bar_us) * bar_us
    added = [pl.Series("history_hours", np.maximum(row_end_us - begun_us, 0) / US_PER_HOUR)]
    added += [
        pl.Series(f"hours_to_expiry_{leg}", (chain.expiry_us - row_end_us) / US_PER_HOUR)
        for leg, chain in chains.items()
    ]
    all_series = [one for leg, series in enumerate(bars) for one in dated.get(leg, [series])]
    paid: dict[int, Settlements] = {}
    mark_bars: dict[int, pl.DataFrame] = {}
    longest_us = hours_to_us(max(*funding_windows_hours, history_hours(settled_counts), 0.0))
    for leg, instrument in enumerate(combo.instruments):
        if instrument.kind == "lending" and combo.legs[leg].price is not None:
            oracle = oracle_bars(
                reader.read(SeriesKey.of(instrument, "lending")), first_us=first_us, n_rows=n_bars, bar_us=bar_us
            )
            if oracle is not None:
                mark_bars[leg] = align([oracle], first_us=first_us, n_rows=n_bars, bar_us=bar_us)
        if not instrument.is_perp:
            continue
        funding = reader.read(
            SeriesKey.of(instrument, "funding"),
            start_us=first_us - max(longest_us, bar_us) - bar_us,
            end_us=read_to,
        )
        if funding.frame.is_empty():
            raise DataError(
                f"no funding settlement of {instrument} within the run",
                where={"file": funding.path, "start": data.start, "end": data.end},
                fix="choose a span that the funding file covers",
            )
        funding = _with_ends(funding, first_us=first_us, last_us=first_us + (n_bars - 1) * bar_us)
        refuse(funding.findings, mode=data.checks, path=funding.path)
        marks = None
        if has_series(market_root(data.root), SeriesKey.of(instrument, "mark")):
            marks = reader.read(SeriesKey.of(instrument, "mark"), start_us=read_from, end_us=read_to)
            all_series.append(marks)
            if {"high", "low"} <= set(marks.frame.columns):
                mark_bars[leg] = align(
                    [resample(marks, bar_us=bar_us)], first_us=first_us, n_rows=n_bars, bar_us=bar_us
                )
        all_series.append(funding)
        paid[leg] = settlements(funding, bars[leg], marks, bar_us=bar_us)
        added.append(
            pl.Series(f"funding_rate_{leg}", funding_by_row(paid[leg], row_end_us=row_end_us), nan_to_null=True)
        )
        added += settled_columns(paid[leg], leg=leg, row_end_us=row_end_us, counts=settled_counts)
        begins = min(bars[leg].first_us, paid[leg].first_us)
        for hours in funding_windows_hours:
            window_us = hours_to_us(hours)
            apr = trailing_funding(paid[leg], at_us=row_end_us, window_us=window_us) * HOURS_PER_YEAR / hours
            apr[row_end_us - window_us < begins] = np.nan
            added.append(pl.Series(funding_column(leg, hours), apr, nan_to_null=True))
    columns, named = domain_columns(
        data, combo.instruments, row_end_us=row_end_us, read_from_us=first_us - n_warmup * bar_us
    )
    ts_us = frame["ts"].to_physical().to_numpy()[n_warmup:]
    terms, beside = read_terms(data, combo, ts_us=ts_us, chains=chains, n_warmup=n_warmup,
                               borrowed_legs=borrowed_legs, with_gas=with_gas, read=reader.read)  # fmt: skip
    known = {str(series.key) for series in named}
    added, all_series = added + columns, all_series + named + [one for one in beside if str(one.key) not in known]
    latest = [dated[leg][chain.contracts[n_warmup]] if (chain := chains.get(leg)) else series
              for leg, series in enumerate(bars)]  # fmt: skip
    return _panel(
        combo, latest, frame.with_columns(added), all_series, paid, terms, mark_bars, chains,
        n_warmup=n_warmup, bar_us=bar_us,
    )  # fmt: skip


def _with_ends(funding: Series, *, first_us: int, last_us: int) -> Series:
    """The settlements with a finding where they do not cover the run."""
    hours = settlement_intervals_hours(funding.frame["ts"].to_physical().to_numpy())
    span_us = (funding.first_us, funding.last_us)
    ends = uncovered_findings(span_us, hours=hours, first_us=first_us, last_us=last_us)
    return dataclasses.replace(funding, findings=[*funding.findings, *ends])


def _panel(
    combo: Combo,
    bars: list[Series],
    frame: pl.DataFrame,
    series: list[Series],
    paid: dict[int, Settlements],
    terms: Terms,
    mark_bars: dict[int, pl.DataFrame],
    chains: dict[int, Chain],
    *,
    n_warmup: int,
    bar_us: int,
) -> Panel:
    legs = range(len(bars))
    opens, closes = _stack(frame, "open", legs), _stack(frame, "close", legs)
    missing = np.isnan(closes[n_warmup:])
    first_us = int(frame["ts"].to_physical()[n_warmup])
    volume = _stack(frame, "volume", legs)
    for leg in legs:
        if np.isnan(closes[:n_warmup, leg]).all():
            before = bars[leg].frame.filter(pl.col("ts").to_physical() < first_us)
            if len(before):
                closes[0, leg] = before["close"][-1]
                volume[0, leg] = before["volume"][-1] if "volume" in before.columns else np.nan
    last_close = carried(closes)
    for leg, chain in chains.items():  # of the contract held, not of the one left
        last_close[:, leg] = chain.last_close
    for leg in np.flatnonzero(np.isnan(last_close[n_warmup])).tolist():
        raise DataError(
            f"{combo.instruments[leg]} has no price at or before the first bar of the run",
            where={"file": bars[leg].path, "first bar": str(frame["ts"][n_warmup])},
            fix="begin the run later, or fetch what traded then",
        )
    tradable = ~np.isnan(opens[n_warmup:])
    arrival = np.where(tradable, opens[n_warmup:], last_close[n_warmup - 1 : -1])
    volume_before = carried(np.where(volume > 0, volume, np.nan))[n_warmup - 1 : -1]
    ts_us = frame["ts"].to_physical().to_numpy()[n_warmup:]
    high, low = (_stack(frame, name, legs)[n_warmup:] for name in ("high", "low"))
    margin = _margin_prices(mark_bars, opens[n_warmup:], high, low, last_close[n_warmup:])
    return Panel(
        instruments=combo.instruments,
        bar_us=bar_us,
        ts_us=_read_only(ts_us),
        open_price=_read_only(arrival),
        high_price=_read_only(high),
        low_price=_read_only(low),
        close_price=_read_only(last_close[n_warmup:]),
        volume=_read_only(np.nan_to_num(volume[n_warmup:])),
        volume_before=_read_only(volume_before),
        margin_open=_read_only(margin[0]),
        margin_high=_read_only(margin[1]),
        margin_low=_read_only(margin[2]),
        margin_source=["mark" if leg in mark_bars else "trade" for leg in legs],
        tradable=_read_only(tradable),
        missing=_read_only(missing),
        settlements=paid,
        terms=terms,
        frame=frame,
        n_warmup=n_warmup,
        series=series,
    )


def _margin_prices(
    mark_bars: dict[int, pl.DataFrame], opens: np.ndarray, high: np.ndarray, low: np.ndarray, last_close: np.ndarray
) -> list[np.ndarray]:
    """Open, high and low that margin is tested on; the last close where a bar of theirs is not whole."""
    prices = [opens.copy(), high.copy(), low.copy()]
    for leg, marks in mark_bars.items():
        for price, name in zip(prices, ("open", "high", "low"), strict=True):
            price[:, leg] = marks[f"{name}_0"].fill_null(float("nan")).to_numpy()
    whole = ~np.isnan(prices[0] + prices[1] + prices[2])
    return [np.where(whole, price, last_close) for price in prices]


def _stack(frame: pl.DataFrame, field: str, legs: range) -> np.ndarray:
    """One field of all legs as an array of rows and legs, NaN where it is null."""
    columns = [frame[f"{field}_{leg}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for leg in legs]
    return np.ascontiguousarray(np.column_stack(columns))


def _read_only(array: np.ndarray) -> np.ndarray:
    out = np.array(array, order="C", copy=True)
    out.flags.writeable = False
    return out
