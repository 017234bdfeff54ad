"""One run from configuration to result."""

import dataclasses
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.backtest.cost_parameters import resolved_fees_bps
from basis_bt.backtest.prepare import Prepared, prepare
from basis_bt.backtest.result import Result
from basis_bt.backtest.stakes import findings_at_stake
from basis_bt.core.calibration_file import Calibrated
from basis_bt.core.config import build_config, config_dict, config_hash, load_config
from basis_bt.core.errors import KernelError
from basis_bt.core.models import Config, SignalSpec
from basis_bt.core.rulebook import rulebook_hash
from basis_bt.core.units import from_us
from basis_bt.frames.panel import Panel
from basis_bt.frames.settlements import MARK_SOURCES
from basis_bt.kernels.structs import REASONS, Recorded, Totals
from basis_bt.ledger import tables as ledger_tables
from basis_bt.ledger.identity import check_books
from basis_bt.market.catalogue import changed_inputs
from basis_bt.market.files import file_hash
from basis_bt.market.remote import market_root
from basis_bt.signals import Signal


def run(
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    expression: pl.Expr | None = None,
    warmup_hours: float = 0.0,
    trial: int = 0,
    **models: Any,
) -> Result:
    """One backtest.

    Parameters
    ----------
    config : path of a TOML file, nested dicts of the same shape, or a ``Config``
    expression : a signal of your own, a Polars expression over the aligned frame on bar closes (columns ``open_0`` to
        ``volume_0`` and so on by leg, ``funding_rate_i`` of perps); replaces the configured signal
    warmup_hours : history that ``expression`` needs before ``data.start``
    trial : number of the trial, which random draws depend on; that of a sweep to have one of its trials again
    models : ``data=Data(...), combo=Combo(...), rule=Rule(...)``, ... instead of ``config``, or in place of its parts

    Returns
    -------
    Result with the tables ``metrics, equity, fills, funding, events, attribution, trades``

    Raises
    ------
    ConfigError, DataError, SignalError, KernelError, BooksError
        See ``core/errors.py``; the books of every run are checked.
    """
    started = time.perf_counter()
    if expression is not None:
        models["signal"] = SignalSpec(name="sql", sql=str(expression), warmup_hours=warmup_hours)
    checked = _config(config, models)
    own = None if expression is None else Signal(expression=expression, warmup_hours=warmup_hours)
    prepared = prepare(checked, signal=own, trial=trial)
    panel, market, capital_usd = prepared.panel, prepared.market, prepared.parameters.size.capital_usd
    rows = prepared.empty_rows()
    totals, metrics = simulate(prepared, rows)
    residual_usd = check_books(panel, rows, totals, capital_usd=capital_usd)
    tables = {
        "metrics": _metrics_table(checked, metrics),
        "equity": ledger_tables.equity_table(panel, market, rows, capital_usd=capital_usd),
        "attribution": ledger_tables.attribution_table(panel, rows),
        "fills": ledger_tables.fills_table(panel, rows, totals),
        "funding": ledger_tables.funding_table(panel, market, prepared.settlement_order, rows),
        "events": ledger_tables.events_table(panel, rows, totals),
        "trades": ledger_tables.trades_table(panel, rows, totals),
    }
    if prepared.parameters.wallets.is_split:
        tables["wallets"] = ledger_tables.wallets_table(panel, rows)
    tables = {name: table.with_columns(pl.lit(trial, dtype=pl.Int64).alias("trial")) for name, table in tables.items()}
    flags = [*prepared.flags, *_data_flags(panel, tables), *_idle_scenarios(checked, tables)]
    flags += _changed_inputs(checked, panel)
    manifest = _manifest(checked, panel, tables, flags=flags)
    manifest |= {"books_residual_usd": residual_usd, "wall_seconds": time.perf_counter() - started}
    return Result(manifest=manifest, tables=tables)


def _config(config: Any, models: Mapping[str, Any]) -> Config:
    """The configuration with models put in place of its parts, checked again as a whole."""
    if config is None:
        plain = {
            key: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
            for key, value in models.items()
        }
        return build_config(plain)
    checked = load_config(config)
    return load_config(dataclasses.replace(checked, **models)) if models else checked


def simulate(prepared: Prepared, rows: Recorded) -> tuple[Totals, Any]:
    """Run one trial into ``rows``; returns its totals and metrics.

    Raises
    ------
    KernelError
        If it ends with a status, naming the bar.
    """
    from basis_bt.kernels._jit import is_compiled
    from basis_bt.kernels.metrics import trial_metrics
    from basis_bt.kernels.status import OK, SENTENCES
    from basis_bt.kernels.trial import run_trial

    if not is_compiled():
        print("basis_bt: compiling kernels (once per version, up to a minute) ...", file=sys.stderr, flush=True)
    panel, parameters = prepared.panel, prepared.parameters
    totals = run_trial(prepared.market, *parameters, rows)
    if totals.status != OK:
        raise KernelError(
            SENTENCES[totals.status],
            where={"ts": from_us(int(panel.ts_us[totals.status_bar])).isoformat(), "bar": totals.status_bar},
            fix="look at the input files around that time",
        )
    return totals, trial_metrics(rows, totals, panel.close_price, parameters.size.capital_usd, panel.bar_hours)


def parameter_columns(config: Config) -> dict[str, Any]:
    """The scalar parameters of a configuration, as the metrics of its trials have them: ``param_<section>_<key>``."""
    plain = config_dict(config)
    return {
        f"param_{section}_{key}": value
        for section in ("signal", "rule", "size", "costs", "fills", "wallets")
        for key, value in plain[section].items()
        if value is None or isinstance(value, str | bool | int | float)
    }


def _metrics_table(config: Config, metrics: Any) -> pl.DataFrame:
    """One row: trial, the scalar parameters of the configuration, the metrics (null for NaN), the status."""
    parameters = parameter_columns(config)
    texts = {name: pl.String for name, value in parameters.items() if value is None or isinstance(value, str)}
    columns = {"trial": 0, **parameters, **metrics._asdict(), "status": "ok"}
    return pl.DataFrame([columns], schema_overrides=texts, infer_schema_length=1).with_columns(
        pl.col(name).cast(pl.Float64).fill_nan(None) for name in metrics._fields if isinstance(columns[name], float)
    )


def _data_flags(panel: Panel, tables: Mapping[str, pl.DataFrame]) -> list[str]:
    flags = []
    for leg, part in panel.settlements.items():
        if (part.mark_source == MARK_SOURCES.index("trade")).any():
            flags.append(f"{panel.instruments[leg]}: settlements without a mark are priced by its trade bars")
    stale = int(tables["equity"]["stale"].sum())
    if stale:
        flags.append(f"{stale} rows are stale: a held leg had no bar; they are left out of returns and drawdowns")
    return flags


def _idle_scenarios(config: Config, tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """A sentence where more deleveragings were to happen than there was anything to close."""
    asked = sum(len(scenario.instruments) for scenario in config.scenarios if scenario.kind == "adl")
    found = int((tables["events"]["event"] == "adl").sum())
    return [f"scenario adl: {asked - found} of {asked} met no position"] if found < asked else []


def _changed_inputs(config: Config, panel: Panel) -> list[str]:
    """A sentence for each input whose bytes are not those that the folder's catalogue met before."""
    root = market_root(config.data.root)
    used = {str(series.path).removeprefix(f"{root}/"): series.sha256 for series in panel.series}
    return [f"input changed: {sentence}" for sentence in changed_inputs(root, used=used)]


def _manifest(config: Config, panel: Panel, tables: Mapping[str, pl.DataFrame], *, flags: list[str]) -> dict[str, Any]:
    inputs = [series.manifest_row() for series in panel.series]
    if config.costs.bucket_table is not None:
        path = Path(config.costs.bucket_table)
        inputs.append({"instrument": None, "series": "cost", "path": str(path), "sha256": file_hash(path)})
    if isinstance(config.calibration, Calibrated):
        source = config.calibration
        inputs.append({"instrument": None, "series": "calibration", "path": source.path, "sha256": source.sha256})
    names = [str(instrument) for instrument in panel.instruments]
    refused = tables["events"].filter(pl.col("event") == "refused")["reason"]
    sources = tables["funding"].filter(pl.col("position_base") != 0)["mark_source"]
    return {
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **versions(),
        "config": config_dict(config),
        "config_hash": config_hash(config),
        "fees_bps": dict(zip(names, resolved_fees_bps(config), strict=True)),
        "seed": config.fills.seed,
        "inputs": inputs,
        "rulebook_hash": rulebook_hash(),
        "span": {
            "start": config_dict(config)["data"]["start"],
            "end": config_dict(config)["data"]["end"],
            "first_bar": from_us(int(panel.ts_us[0])).isoformat(),
            "last_bar": from_us(int(panel.ts_us[-1])).isoformat(),
            "bar_hours": panel.bar_hours,
            "n_bars": panel.n_bars,
        },
        "counts": {
            "stale_rows": int(tables["equity"]["stale"].sum()),
            "missing_bars": dict(zip(names, panel.missing.sum(axis=0).tolist(), strict=True)),
            "untradable_bars": dict(zip(names, (~panel.tradable).sum(axis=0).tolist(), strict=True)),
            "settlements": {names[leg]: int((tables["funding"]["leg"] == leg).sum()) for leg in panel.settlements},
            "marks": {source: int((sources == source).sum()) for source in MARK_SOURCES},
            "refused": {reason: int((refused == reason).sum()) for reason in REASONS if (refused == reason).any()},
        },
        "checks": {"mode": config.data.checks, "findings": findings_at_stake(panel, tables)},
        "flags": flags,
    }


def versions() -> dict[str, Any]:
    """Versions of the package and of what its numbers depend on, as manifests have them."""
    import numba
    import pyarrow

    from basis_bt import __version__

    packages = {"polars": pl, "numpy": np, "numba": numba, "pyarrow": pyarrow}
    return {
        "basis_bt": __version__,
        "versions": {"python": platform.python_version(), **{name: one.__version__ for name, one in packages.items()}},
    }
