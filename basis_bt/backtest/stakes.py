"""What the findings of a run are about in cash."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.units import US_PER_HOUR
from basis_bt.frames.panel import Panel
from basis_bt.market.files import Series
from basis_bt.market.intervals import missing_settlements, settlement_intervals_hours


def findings_at_stake(panel: Panel, tables: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The findings of a run for its manifest, each with ``cash_at_stake_usd`` where there is any.

    At stake is, for missing settlements, the sum over them of the notional held times the absolute rate settled
    before: what the run could have paid or received and does not know. For bars taken out it is the largest notional
    of that leg held on one of them, whose price is then stale. None where nothing was held.
    """
    out = []
    for series in panel.series:
        for finding in series.findings:
            row = finding.manifest_row(series.key)
            leg = _leg(panel, series)
            held = tables["attribution"].filter(pl.col("leg") == leg) if leg is not None else None
            if held is None:
                stake = None
            elif finding.rule == "missing settlements":
                stake = _missing_funding_usd(series, held)
            else:
                stake = _stale_notional_usd(panel, leg, held) if finding.repair in ("mask", "note") else None
            out.append(row | {"cash_at_stake_usd": stake})
    return out


def _leg(panel: Panel, series: Series) -> int | None:
    names = [str(instrument) for instrument in panel.instruments]
    return names.index(series.key.instrument) if series.key.instrument in names else None


def _missing_funding_usd(series: Series, held: pl.DataFrame) -> float | None:
    bar_us = held["ts"].to_physical().to_numpy()
    notional = (held["position_base"].abs() * held["close_price"]).to_numpy()
    due_us, rate = _missing(series, first_us=int(bar_us[0]), last_us=int(bar_us[-1]))
    inside = (due_us >= bar_us[0]) & (due_us <= bar_us[-1])
    bar = np.searchsorted(bar_us, due_us[inside], side="right") - 1
    return float(np.sum(notional[bar] * np.abs(rate[inside]))) or None


def _missing(series: Series, *, first_us: int, last_us: int) -> tuple[np.ndarray, np.ndarray]:
    """When the missing settlements were due, and the rate settled before each (after it, where none was)."""
    ts_us, rate = series.frame["ts"].to_physical().to_numpy(), series.frame["rate"].to_numpy()
    hours = settlement_intervals_hours(ts_us)
    if "interval_hours" in series.frame.columns:
        hours = np.where(hours > 0, hours, series.frame["interval_hours"].fill_null(0).to_numpy())
    missing, step_us = missing_settlements(ts_us, hours), np.where(hours > 0, hours, 8).astype(np.int64) * US_PER_HOUR
    due = [np.arange(ts_us[0] - step_us[0], first_us - 1, -step_us[0])[::-1]]
    rates = [np.full(len(due[0]), rate[0])]
    for row in np.flatnonzero(missing):
        due.append(ts_us[row - 1] + np.arange(1, missing[row] + 1) * step_us[row])
        rates.append(np.full(missing[row], rate[row - 1]))
    due.append(np.arange(ts_us[-1] + step_us[-1], last_us + 1, step_us[-1]))
    rates.append(np.full(len(due[-1]), rate[-1]))
    return np.concatenate(due), np.concatenate(rates)


def _stale_notional_usd(panel: Panel, leg: int | None, held: pl.DataFrame) -> float | None:
    notional = (held["position_base"].abs() * held["close_price"]).to_numpy()[panel.missing[:, leg]]
    return float(notional.max()) or None if len(notional) else None
