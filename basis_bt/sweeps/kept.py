"""Sweeps that were kept: reading one back, and running a trial of it again."""

from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.backtest.engine import run
from basis_bt.backtest.result import Result
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.store.folder import load_table, read_manifest, resolve_run, table_of
from basis_bt.sweeps.result import BEST_KEPT, Sweep, best_of


def load_sweep(root: Path, name: str) -> Sweep:
    """A sweep of a runs folder, every byte verified.

    Raises
    ------
    StoreError
        If there is no such run, it is damaged, or it is a single backtest.
    """
    path = resolve_run(root, name)
    manifest = read_manifest(path)
    if "sweep" not in manifest:
        raise StoreError(f"run {path.name!r} is a single backtest, no sweep", fix="basis-bt show tells about it")
    trials = load_table(path, "metrics")
    details = {table_of(file) for file in manifest["outputs"]} - {"metrics"}
    return Sweep(
        manifest=manifest,
        best=best_of(trials, metric=manifest["sweep"]["metric"], n=BEST_KEPT),
        tables={table: load_table(path, table) for table in sorted(details)},
        path=path,
        loaded=[trials],
    )


def config_of(sweep: Sweep, trial: int) -> dict[str, Any]:
    """The configuration of one trial as nested tables.

    Raises
    ------
    ConfigError
        If the sweep has no such trial.
    """
    from basis_bt.sweeps.plan import plan_of_manifest

    plan = plan_of_manifest(sweep.manifest)
    if not 0 <= trial < plan.n_trials:
        raise ConfigError(
            f"the sweep has no trial {trial}", where={"trials": plan.n_trials}, fix="see its column trial"
        )
    return plan.config_of(trial)


def rerun(sweep: Sweep, trial: int) -> Result:
    """One trial of a sweep as a run of its own, with everything it records; its numbers are those of the sweep."""
    facts = sweep.manifest["sweep"]
    if facts["expression"] is not None:
        raise ConfigError(
            "this sweep has a signal that was given as an expression, which is not kept",
            fix="call run(config, expression=..., trial=...) with it",
        )
    result = run(config_of(sweep, trial), trial=trial)
    check = sweep.trials.filter(pl.col("trial") == trial)["end_equity_usd"].item()
    if check is not None and result.metrics["end_equity_usd"].item() != check:
        raise StoreError(
            f"trial {trial} gives another result than it did in the sweep",
            where={"then": check, "now": result.metrics["end_equity_usd"].item()},
            fix="its input files or this package have changed since; run the sweep again",
        )
    return result
