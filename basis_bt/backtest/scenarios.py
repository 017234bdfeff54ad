"""Scenarios of a configuration, carried out on what a run reads and on the arrays made of it.

Where they enter, in the order of a run: prices and funding rates as the files are read (``series_change``), so that
bars, marks, settlements and what signals see all follow; what can be traded, on the panel (``with_scenarios``); the
rest as arrays by bar (``depeg_factors``, ``adl_shares``) and spans (``transfer_halts``) for the kernels. Nothing before
the start of a scenario changes by a bit.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import polars as pl

from basis_bt.backtest.scenario_checks import PRICED, bars_within, check_bars, check_scenarios
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.models import Config
from basis_bt.core.scenarios import Scenario
from basis_bt.core.units import from_us
from basis_bt.frames.panel import Panel
from basis_bt.market.files import Series
from basis_bt.market.schemas import PRICES, SeriesKey

# ------------------------------------------------------------------------------------------------- what files say


def series_change(config: Config) -> Callable[[Series], Series]:
    """The function that makes of a checked series what it would have said under the run's scenarios.

    Prices follow a ``price_path`` along the bar: the open by the path at its stamp, the close by the path at its end,
    high and low by the path's extremes in between, a settlement's own mark by the path at the settlement. Rates of the
    settlements in ``[start, end)`` follow a ``funding_spike``. Series that nothing happens to come back as they are.

    Raises
    ------
    ConfigError
        If a scenario cannot touch the run.
    """
    check_scenarios(config)

    def change(series: Series) -> Series:
        for scenario in config.scenarios:
            if scenario.kind == "price_path" and _is_priced_by(scenario, series.key):
                series = dataclasses.replace(series, frame=_on_path(series, scenario))
            elif scenario.kind == "funding_spike" and _is_funding_of(scenario, series.key):
                series = dataclasses.replace(series, frame=_with_spike(series.frame, scenario))
        return series

    return change


def _is_priced_by(scenario: Scenario, key: SeriesKey) -> bool:
    """Whether a series holds prices of a scenario's coin, or of its instrument or a contract of its chain."""
    if key.series not in (*PRICED, "mark", "index", "funding", "lending"):
        return False
    if scenario.coins:
        return key.symbol.partition("-")[0] in scenario.coins
    return any(key.instrument is not None and _is_of(key.instrument, name) for name in scenario.instruments)


def _is_of(instrument: str, name: str) -> bool:
    chain = Instrument.parse(name).is_chain
    return instrument == name or (chain and instrument.startswith(f"{name}-"))


def _is_funding_of(scenario: Scenario, key: SeriesKey) -> bool:
    return key.series == "funding" and (key.venue == scenario.venue or key.instrument in scenario.instruments)


def _on_path(series: Series, scenario: Scenario) -> pl.DataFrame:
    frame, step_us = series.frame, series.step_us or 0
    opens_us = frame["ts"].dt.cast_time_unit("us").to_physical().to_numpy()
    at_open, at_close = _price_path(scenario, opens_us), _price_path(scenario, opens_us + step_us)
    low, high = np.minimum(at_open, at_close), np.maximum(at_open, at_close)
    for knot_us, factor in zip(*_knots(scenario), strict=True):
        within = (opens_us < knot_us) & (knot_us < opens_us + step_us)
        low[within], high[within] = np.minimum(low[within], factor), np.maximum(high[within], factor)
    by_column = dict(zip(PRICES, (at_open, high, low, at_close), strict=True))
    by_column |= {"mark_price": at_open, "oracle_price_usd": at_open}
    return frame.with_columns(
        pl.col(name) * pl.Series(factors) for name, factors in by_column.items() if name in frame.columns
    )


def _knots(scenario: Scenario) -> tuple[list[int], list[float]]:
    """Where a price path bends, in epoch microseconds, and its value there; straight in between, level outside."""
    start_us, end_us, factor = scenario.start_us, scenario.end_us, scenario.factor
    assert end_us is not None and factor is not None
    if scenario.recover:
        return [start_us, (start_us + end_us) // 2, end_us], [1.0, factor, 1.0]
    return [start_us, end_us], [1.0, factor]


def _price_path(scenario: Scenario, at_us: np.ndarray) -> np.ndarray:
    knots_us, factors = _knots(scenario)
    return np.interp(at_us - knots_us[0], np.array(knots_us) - knots_us[0], factors)


def _with_spike(frame: pl.DataFrame, scenario: Scenario) -> pl.DataFrame:
    stamp = pl.col("ts").dt.epoch("us")
    rate = pl.col("rate")
    if scenario.rate is not None:
        spiked = pl.lit(scenario.rate)
    else:
        spiked = rate + scenario.add if scenario.add is not None else rate * scenario.factor
    inside = (stamp >= scenario.start_us) & (stamp < scenario.end_us)
    return frame.with_columns(rate=pl.when(inside).then(spiked).otherwise(rate))


# --------------------------------------------------------------------------------------------------- what bars allow


def with_scenarios(panel: Panel, config: Config) -> Panel:
    """The panel with the legs of a venue not tradable during its outage; prices, marks and funding go on.

    The open of such a bar is the last close, as in every bar that cannot be traded.

    Raises
    ------
    ConfigError
        If a scenario begins where the run has no bar, or a funding spike meets no settlement.
    """
    check_bars(panel, config)
    tradable, open_price = panel.tradable.copy(), panel.open_price.copy()
    for scenario in config.scenarios:
        if scenario.kind != "outage":
            continue
        legs = np.array([leg.venue == scenario.venue for leg in panel.instruments])
        tradable &= ~(bars_within(panel, scenario)[:, None] & legs)
    shut = panel.tradable & ~tradable
    old_open = panel.terms.old_open
    if old_open is not None and (bar := np.argmax((shut & ~np.isnan(old_open)).any(axis=1))) and shut[bar].any():
        raise ConfigError(
            f"an outage covers the roll at {from_us(int(panel.ts_us[bar])).isoformat()}",
            where={"key": "scenarios"},
            fix="move the outage, or change roll_days of the chain",
        )
    if not shut.any():
        return panel
    open_price[1:][shut[1:]] = panel.close_price[:-1][shut[1:]]
    for leg in np.flatnonzero(shut[0]):
        open_price[0, leg] *= _first_gap(panel, int(leg))
    for array in (tradable, open_price):
        array.flags.writeable = False
    return dataclasses.replace(panel, tradable=tradable, open_price=open_price)


def _first_gap(panel: Panel, leg: int) -> float:
    """Last close before the run over the open of its first bar, 1 where the frame has none before."""
    before = panel.frame[f"close_{leg}"][: panel.n_warmup].drop_nulls()
    return before[-1] / panel.frame[f"open_{leg}"][panel.n_warmup] if len(before) else 1.0


# --------------------------------------------------------------------------------------------------- for the kernels


def transfer_halts(config: Config) -> list[tuple[int, int]]:
    """Spans ``[from, to)`` in epoch microseconds in which scenarios let no transfer leave."""
    return [
        (scenario.start_us, scenario.end_us)
        for scenario in config.scenarios
        if scenario.kind == "transfer_halt" and scenario.end_us is not None
    ]


def depeg_factors(config: Config, panel: Panel) -> dict[str, np.ndarray]:
    """By quote currency, what a unit of it is worth at each bar's stamp, as a share of what it would have been.

    It falls to ``factor`` at once at ``start``. With ``recover`` it climbs in a straight line to 1 at ``end``; else it
    stays, until ``end`` where there is one. Currencies that no scenario names are left out.
    """
    factors: dict[str, np.ndarray] = {}
    for scenario in config.scenarios:
        if scenario.kind != "depeg":
            continue
        assert scenario.quote is not None and scenario.factor is not None
        since_us = panel.ts_us - scenario.start_us
        path = np.where(since_us >= 0, scenario.factor, 1.0)
        if scenario.end_us is not None:
            length_us = scenario.end_us - scenario.start_us
            if scenario.recover:
                path = np.where(since_us >= 0, np.interp(since_us, [0, length_us], [scenario.factor, 1.0]), 1.0)
            path[since_us >= length_us] = 1.0
        factors[scenario.quote] = factors.get(scenario.quote, 1.0) * path
    return factors


def adl_shares(config: Config, panel: Panel) -> np.ndarray:
    """Share of each leg that the venue closes in each bar, float64 ``(n_bars, n_legs)``; no rows where it never does.

    Two scenarios in one bar close one after the other: ``a + b - a b``.
    """
    names = [str(instrument) for instrument in panel.instruments]
    is_on = any(scenario.kind == "adl" for scenario in config.scenarios)
    shares = np.zeros((panel.n_bars if is_on else 0, len(names)))
    for scenario in config.scenarios:
        if scenario.kind == "adl" and scenario.share is not None:
            bar = int(np.searchsorted(panel.ts_us, scenario.start_us, side="right")) - 1
            for name in scenario.instruments:
                before = shares[bar, names.index(name)]
                shares[bar, names.index(name)] = before + scenario.share - before * scenario.share
    return shares
