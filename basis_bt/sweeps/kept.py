"""Sweeps that were kept: reading one back, and running a trial of it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from basis_bt.backtest.engine import run
from basis_bt.backtest.result import Result
from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.store.folder import load_table, read_manifest, resolve_run, table_of
from basis_bt.sweeps.result import BEST_KEPT, Sweep, best_of

if TYPE_CHECKING:
    from basis_bt.sweeps.plan import Plan


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


def plan_of(sweep: Sweep) -> "Plan":
    """The plan of a sweep whose trials can be run again.

    Raises
    ------
    ConfigError
        If its signal is an expression of the caller.
    """
    from basis_bt.sweeps.plan import plan_of_manifest

    if sweep.manifest["sweep"]["expression"] is not None:
        raise ConfigError(
            "this sweep has a signal that was given as an expression, which is not kept",
            fix="write it as SQL in the configuration, or run single trials: run(config, expression=..., trial=...)",
        )
    return plan_of_manifest(sweep.manifest)


def check_same(trials: Sequence[int] | np.ndarray, *, then_usd: np.ndarray, now_usd: np.ndarray) -> None:
    """Compare the end equities of trials run again with those of the sweep.

    Raises
    ------
    StoreError
        If one is another, with the first of them.
    """
    other = np.flatnonzero(then_usd != now_usd)
    if len(other):
        first = other[0]
        raise StoreError(
            f"trial {trials[first]} gives another result than it did in the sweep ({len(other):,} of {len(trials):,})",
            where={"then": then_usd[first], "now": now_usd[first]},
            fix="its input files or this package have changed since; run the sweep again",
        )


def rerun(sweep: Sweep, trial: int) -> Result:
    """One trial of a sweep as a run of its own, with everything it records; its numbers are those of the sweep.

    Raises
    ------
    ConfigError
        If the sweep has no such trial, or its signal is an expression of the caller.
    StoreError
        If the trial ends with another equity than in the sweep.
    """
    plan = plan_of(sweep)
    if not 0 <= trial < plan.n_trials:
        raise ConfigError(
            f"the sweep has no trial {trial}", where={"trials": plan.n_trials}, fix="see its column trial"
        )
    result = run(plan.config_of(trial), trial=trial)
    then = sweep.trials.filter(pl.col("trial") == trial)["end_equity_usd"].drop_nulls()
    if len(then):
        check_same([trial], then_usd=then.to_numpy(), now_usd=result.metrics["end_equity_usd"].to_numpy())
    return result
