"""Walk-forward: choose the best trial on one stretch of time, trade it on the next, and go on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError, KernelError
from basis_bt.core.units import HOURS_PER_YEAR, bars_up, from_us
from basis_bt.kernels.metrics import drawdowns, return_moments, returns_into
from basis_bt.kernels.status import OK
from basis_bt.market.schemas import TS
from basis_bt.reports.robustness import LOWER_IS_BETTER
from basis_bt.statistics.sharpe import ROUNDING_FRAC
from basis_bt.statistics.walk_windows import Window, windows
from basis_bt.sweeps.batch import METRICS, NO_SAMPLES, Batch, Cell
from basis_bt.sweeps.cells import Cells
from basis_bt.sweeps.curves import parts_of
from basis_bt.sweeps.durations import duration_hours
from basis_bt.sweeps.jobs import Rows, Task, make_job, parameter_column
from basis_bt.sweeps.plan import Plan, make_plan
from basis_bt.sweeps.stretches import Outcome, run_to_flat, slice_cell
from basis_bt.sweeps.threads import given_threads, run_on_threads

SUMMED = ("n_trades", "funding_usd", "fees_usd", "slippage_usd")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WalkForward:
    """What choosing anew in each window earned.

    ``windows``: one row each: ``window``, ``train_start``, ``train_end``, ``test_start``, ``test_end`` (ends are not
    in), the ``trial`` chosen (null if none traded in sample), the metric ``in_sample`` and ``out_of_sample`` (null
    without a value), ``out_of_sample_return``, and the parameters of the trial, ``param_<section>_<key>``.
    ``equity``: ``ts``, ``equity_usd``, ``stale`` and ``window`` of the out-of-sample stretches, one after the other on
    the same money. ``metrics`` of that equity: total return, APR, Sharpe (None where nothing moves), drawdown, and sums
    of trades, funding and costs.
    """

    metric: str
    windows: pl.DataFrame
    equity: pl.DataFrame
    metrics: dict[str, float | None]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value:,.4g}" for name, value in self.metrics.items() if value is not None)
        return f"walk-forward over {self.windows.height} windows, out of sample: {facts}\n{self.windows}"


def walk_forward(
    config: str | Path | Mapping[str, Any],
    *,
    train: float | str = "180d",
    test: float | str = "30d",
    anchored: bool = False,
    purge: float | str = 0.0,
    metric: str | None = None,
    threads: int | None = None,
) -> WalkForward:
    """Re-optimise a sweep in each window and trade the winner in the next stretch.

    Every stretch begins flat, in and out of sample, with signals known from its first bar. The winner is the best of
    the trials that traded in sample, the lowest number among equals. Out of sample it also ends flat, see
    ``stretches.run_to_flat``. Capital is what the stretch before left.

    Parameters
    ----------
    config : a sweep, see ``docs/sweeps.md``, over one market: combos and spans must have the same bars
    train, test, purge : durations; ``purge`` lies between the two
    anchored : train on everything before instead of the last ``train``
    metric : what the best is chosen by, the sweep's own by default
    threads : how many, all processors by default

    Raises
    ------
    ConfigError
        If the bars of the trials differ, there is no room for a window, or a duration or the metric is none.
    KernelError
        If no trial can run, or a winner ends with a status out of sample.
    """
    threads = given_threads(threads)
    hours = [duration_hours(one, name=name) for one, name in ((train, "train"), (test, "test"), (purge, "purge"))]
    plan = make_plan(config)
    metric = metric or plan.space.spec.metric
    if metric not in METRICS:
        raise ConfigError(f"{metric!r} is no metric", fix=f"one of {', '.join(METRICS)}")
    if any(axis.key == "size.capital_usd" for axis in plan.space.axes):
        raise ConfigError("walk-forward carries its capital on: size.capital_usd cannot vary", fix="give one value")
    failures: dict[str, int] = {}
    tasks = make_job(plan, Cells(warmup=plan.signals), 0, np.arange(plan.n_trials), failures=failures).tasks
    if not tasks:
        why = next(iter(failures), "all contradict themselves (entry not above exit)")
        raise KernelError(f"no trial could run: {why}", fix="correct that")
    spans = {(task.cell.first_us, task.cell.bar_us, task.cell.n_bars) for task in tasks}
    if len(spans) > 1:
        raise ConfigError(
            f"the trials have {len(spans)} different stretches of bars, and windows need one",
            fix="set data.start and data.end to what all combos have, and one data.bar",
        )
    cell = tasks[0].cell
    train_bars, test_bars, purge_bars = (bars_up(one, bar_us=cell.bar_us) for one in hours)
    found = windows(cell.n_bars, train_bars=train_bars, test_bars=test_bars, anchored=anchored, purge_bars=purge_bars)
    notes = [f"{n:,} trials did not run: {text}" for text, n in failures.items()]
    return _walk(plan, tasks, found, metric=metric, threads=threads, notes=notes)


def _walk(
    plan: Plan, tasks: list[Task], found: list[Window], *, metric: str, threads: int, notes: list[str]
) -> WalkForward:
    cell = tasks[0].cell
    capital_usd = start_usd = plan.base.size.capital_usd
    rows: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []
    for number, window in enumerate(found):
        best, in_sample = _best(tasks, window, metric=metric, threads=threads)
        if best is not None and capital_usd > 0.0:
            task, place = next((task, np.flatnonzero(task.trials == best)) for task in tasks if best in task.trials)
            bounds = {"first": window.test_from, "end": window.test_to}
            outcome = run_to_flat(task, int(place[0]), **bounds, capital_usd=capital_usd)
        else:
            why = "nothing is left" if best is not None else f"no trial traded and has a value of {metric} in sample"
            notes.append(f"window {number}: {why}, nothing is traded")
            n_bars = window.test_to - window.test_from
            flat, fresh = np.full(n_bars, capital_usd), np.zeros(n_bars, dtype=np.bool_)
            outcome = Outcome(equity_usd=flat, stale=fresh, metrics={}, is_open=False)
        if outcome.is_open:
            notes.append(f"window {number}: its position could not be left by its last bar, the exit is not paid")
        end_usd = float(outcome.equity_usd[-1])
        edges = {"train_start": window.train_from, "train_end": window.train_to, "test_start": window.test_from,
                 "test_end": window.test_to}  # fmt: skip
        rows.append({
            "window": number,
            **{name: from_us(cell.first_us + bar * cell.bar_us) for name, bar in edges.items()},
            "trial": best,
            "in_sample": in_sample,
            "out_of_sample": outcome.metrics.get(metric, math.nan),
            "out_of_sample_return": end_usd / capital_usd - 1.0 if capital_usd > 0.0 else 0.0,
        })  # fmt: skip
        outcomes.append(outcome)
        capital_usd = end_usd
    values = ("in_sample", "out_of_sample", "out_of_sample_return")
    schema = {"trial": pl.Int64} | dict.fromkeys(values, pl.Float64)
    table = pl.DataFrame(rows, schema_overrides=schema).with_columns(pl.col(*values).fill_nan(None))
    equity = pl.DataFrame({
        "ts": pl.Series(cell.first_us + np.arange(found[0].test_from, found[-1].test_to) * cell.bar_us).cast(TS),
        "equity_usd": np.concatenate([one.equity_usd for one in outcomes]),
        "stale": np.concatenate([one.stale for one in outcomes]),
        "window": np.repeat(np.arange(len(found)), [len(one.equity_usd) for one in outcomes]),
    })  # fmt: skip
    sums: dict[str, float | None] = {name: sum(one.metrics.get(name, 0.0) for one in outcomes) for name in SUMMED}
    return WalkForward(
        metric=metric,
        windows=table.join(_parameters(plan, table["trial"]), on="trial", how="left", maintain_order="left"),
        equity=equity,
        metrics=_metrics(equity, start_usd, cell.bar_hours) | sums,
        notes=tuple(notes),
    )


def _best(tasks: list[Task], window: Window, *, metric: str, threads: int) -> tuple[int | None, float | None]:
    """The best trial of a window's training stretch and its metric, the lowest number among equals."""
    sliced: dict[int, Cell] = {}
    for task in tasks:
        sliced.setdefault(id(task.cell), slice_cell(task.cell, window.train_from, window.train_to))
    trained = [
        Task(cell=sliced[id(task.cell)], places=task.places, trials=task.trials, values=task.values) for task in tasks
    ]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    best: tuple[float, int] | None = None
    for job, batch in run_on_threads(parts_of(trained, threads=threads), threads=threads):
        has_traded = (batch.status == OK) & (batch.metrics[:, METRICS.index("n_trades")] > 0)
        score = np.where(has_traded, sign * batch.metrics[:, METRICS.index(metric)], np.nan)
        if np.isfinite(score).any():
            place = int(np.nanargmax(np.where(np.isfinite(score), score, np.nan)))
            here = (-float(score[place]), int(job.trials[place]))
            best = here if best is None else min(best, here)
    return (None, None) if best is None else (best[1], -sign * best[0])


def _parameters(plan: Plan, chosen: pl.Series) -> pl.DataFrame:
    """``trial`` and what it varies in, of the trials that were chosen."""
    trials = chosen.drop_nulls().unique().sort().to_numpy()
    nothing = Batch(
        metrics=np.full((len(trials), len(METRICS)), np.nan),
        status=np.zeros(len(trials), dtype=np.int64),
        samples=np.empty((len(trials), len(NO_SAMPLES))),
    )
    return Rows(plan).table(trials, nothing).select("trial", *(parameter_column(axis) for axis in plan.space.axes))


def _metrics(equity: pl.DataFrame, capital_usd: float, bar_hours: float) -> dict[str, float | None]:
    equity_usd, stale = equity["equity_usd"].to_numpy(), equity["stale"].to_numpy()
    moved = np.empty(len(equity_usd))
    n_moved, n_fresh = returns_into(equity_usd, stale, capital_usd, moved)
    mean, deviation, _ = return_moments(moved[:n_moved], n_fresh)
    deepest, _ = drawdowns(equity_usd, stale, capital_usd)
    years = len(equity_usd) * bar_hours / HOURS_PER_YEAR
    total = float(equity_usd[-1]) / capital_usd - 1.0
    sharpe = mean / deviation * math.sqrt(HOURS_PER_YEAR / bar_hours) if deviation > ROUNDING_FRAC else None
    return {"total_return": total, "apr_on_capital": total / years, "sharpe": sharpe, "max_drawdown": deepest}
