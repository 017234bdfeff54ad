"""The bars of each leg: trades, points of a dated future or of an oracle, or those of the coin that is staked."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Combo, Instrument, Leg
from basis_bt.core.models import Data
from basis_bt.frames.align import resample
from basis_bt.frames.futures import Chain, chained, contract_keys, known_closes
from basis_bt.frames.points import step_bars
from basis_bt.market.files import Series, read_series
from basis_bt.market.remote import market_root
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.witness import without_spikes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads series of a run's market folder, under its checks and its scenarios."""

    data: Data
    change: Callable[[Series], Series] | None = None

    def read(self, key: SeriesKey, *, start_us: int | None = None, end_us: int | None = None) -> Series:
        """One series, as the scenarios of the run make it."""
        return self.changed(self.read_recorded(key, start_us=start_us, end_us=end_us))

    def read_recorded(self, key: SeriesKey, *, start_us: int | None = None, end_us: int | None = None) -> Series:
        """One series as its file has it."""
        root = market_root(self.data.root)
        return read_series(root, key, start_us=start_us, end_us=end_us, checks=self.data.checks)

    def changed(self, series: Series) -> Series:
        """What the scenarios of the run make of a series that has passed its checks."""
        return series if self.change is None else self.change(series)


def read_bars(
    reader: Reader, combo: Combo, *, start_us: int, end_us: int
) -> tuple[list[Series], dict[int, list[Series]]]:
    """The bars of every leg within a range, spikes taken out, and the contracts of each dated leg.

    A dated leg is represented by its first contract, with a span that does not end the run: it does so by its expiry.
    """
    bars: list[Series] = []
    dated: dict[int, list[Series]] = {}
    for index, leg in enumerate(combo.legs):
        if leg.parsed.kind == "future":
            root = market_root(reader.data.root)
            # a price at the very end of the run is the close of its last bar
            dated[index] = [reader.read(key, start_us=start_us, end_us=end_us + 1) for key in contract_keys(leg, root)]
            dated[index] = [one for one in dated[index] if not one.frame.is_empty()] or dated[index][:1]
            first = dated[index][0]
            bars.append(dataclasses.replace(first, last_us=max(end_us, first.last_us)))
        else:
            bars.append(_of_leg(reader, leg, start_us=start_us, end_us=end_us))
    traded = [index for index, leg in enumerate(combo.legs) if leg.parsed.kind in ("spot", "perp")]
    for index, series in zip(traded, without_spikes([bars[index] for index in traded]), strict=True):
        bars[index] = reader.changed(series)
    return bars, dated


def _of_leg(reader: Reader, leg: Leg, *, start_us: int, end_us: int) -> Series:
    instrument = leg.parsed
    if leg.price is not None:
        return reader.read(SeriesKey.of(Instrument.parse(leg.price), "spot"), start_us=start_us, end_us=end_us)
    if instrument.kind != "lending":
        key = SeriesKey.of(instrument, instrument.kind)
        return reader.read_recorded(key, start_us=start_us, end_us=end_us)  # changed after the legs are compared
    series, bar_us = reader.read(SeriesKey.of(instrument, "lending")), reader.data.bar_us
    first_us = start_us // bar_us * bar_us
    frame = oracle_bars(series, first_us=first_us, n_rows=-(-(end_us - first_us) // bar_us), bar_us=bar_us)
    if frame is None:
        raise DataError(
            f"{instrument} has no price: its file has no oracle_price_usd",
            where={"file": series.path},
            fix='name the spot instrument whose price it has: price = "spot:binance:ETH-USDT"',
        )
    return dataclasses.replace(series, frame=frame, step_us=bar_us)


def oracle_bars(series: Series, *, first_us: int, n_rows: int, bar_us: int) -> pl.DataFrame | None:
    """Bars of the prices of a protocol's oracle, by which its loans are judged; None where the file has none."""
    if "oracle_price_usd" not in series.frame.columns:
        return None
    points = series.frame.drop_nulls("oracle_price_usd")
    ts_us, price = points["ts"].to_physical().to_numpy(), points["oracle_price_usd"].to_numpy()
    return step_bars(ts_us, price, first_us=first_us, n_rows=n_rows, bar_us=bar_us) if len(points) else None


def bars_on_grid(
    combo: Combo,
    bars: list[Series],
    dated: dict[int, list[Series]],
    *,
    first_us: int,
    n_rows: int,
    n_warmup: int,
    bar_us: int,
) -> tuple[list[pl.DataFrame], dict[int, Chain]]:
    """The bars of every leg at the step of the run, and the dated legs on its rows."""
    frames = {leg: resample(series, bar_us=bar_us) for leg, series in enumerate(bars) if leg not in dated}
    reference = np.full(n_rows, np.nan)
    grid = {"first_us": first_us, "n_rows": n_rows, "bar_us": bar_us}
    if combo.reference in frames:
        reference = known_closes(frames[combo.reference], **grid)
    chains = {}
    for leg in sorted(dated, key=lambda leg: leg != combo.reference):  # the others may roll by its closes
        contracts = dated[leg]
        coin = None if leg == combo.reference else reference
        chains[leg] = chained(combo.legs[leg], contracts, coin, n_warmup=n_warmup, **grid)
        frames[leg] = chains[leg].frame
        if leg == combo.reference:
            reference = known_closes(chains[leg].frame, **grid)
    return [frames[leg] for leg in range(len(bars))], chains
