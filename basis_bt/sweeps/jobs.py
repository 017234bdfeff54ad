"""The parts of a sweep as work for an engine, and what comes back as rows of a table."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from basis_bt.backtest.engine import parameter_columns
from basis_bt.core.instruments import leg_texts
from basis_bt.core.sweep_spec import Axis, parse_hours_or_number, replaced
from basis_bt.sweeps.batch import COUNTS, INVALID, METRICS, STATUSES, Batch, Cell
from basis_bt.sweeps.cells import Cells, Failure
from basis_bt.sweeps.fast_axes import means_nothing, numbers_of, value_rows
from basis_bt.sweeps.plan import Plan, value_at


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """Trials of one cell within a job: their places in it, their numbers, their values."""

    cell: Cell
    places: np.ndarray
    trials: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """Trials that are computed together; ``status`` has the codes of those that cannot run."""

    number: int
    trials: np.ndarray
    tasks: list[Task]
    status: np.ndarray


def make_job(plan: Plan, cells: Cells, number: int, trials: np.ndarray, *, failures: dict[str, int]) -> Job:
    """Prepare some trials; why cells fail is counted in ``failures`` by sentence."""
    columns = plan.design.take(trials)
    status = np.zeros(len(trials), dtype=np.int64)
    tasks = []
    fast_axes = [plan.space.axes[place] for place in plan.fast]
    for keys, places in _groups([columns[place] for place in plan.slow], len(trials)):
        slow = {
            plan.space.axes[place].key: value_at(plan.space.axes[place], key)
            for place, key in zip(plan.slow, keys, strict=True)
        }
        raw = replaced(plan.space.raw, slow)
        cell = cells.get(raw)
        if isinstance(cell, Failure):
            status[places] = cell.status
            failures[cell.text] = failures.get(cell.text, 0) + len(places)
            continue
        own = [columns[place][places] for place in plan.fast]
        values = value_rows(fast_axes, own, cell.parameters, n_trials=len(places), bar_us=cell.bar_us)
        wrong = means_nothing(fast_axes, own, raw["rule"], n_trials=len(places))
        status[places[wrong]] = INVALID
        good = places[~wrong]
        if len(good):
            tasks.append(Task(cell=cell, places=good, trials=trials[good], values=values[~wrong]))
    return Job(number=number, trials=trials, tasks=tasks, status=status)


def _groups(columns: Sequence[np.ndarray], n: int) -> Iterator[tuple[list[Any], np.ndarray]]:
    """Values that occur together, and the places where they do."""
    if not columns:
        yield [], np.arange(n)
        return
    rows = np.rec.fromarrays(columns)
    unique, inverse = np.unique(rows, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    edges = np.searchsorted(inverse[order], np.arange(len(unique) + 1))
    for k, row in enumerate(unique):
        yield list(row), order[edges[k] : edges[k + 1]]


def gathered(job: Job, batches: Sequence[Batch]) -> Batch:
    """The batches of a job's tasks as one, in the order of its trials."""
    n_samples = batches[0].samples.shape[1] if batches else 0
    out = Batch(
        metrics=np.full((len(job.trials), len(METRICS)), np.nan),
        status=job.status.copy(),
        samples=np.full((len(job.trials), n_samples), np.nan),
    )
    for task, batch in zip(job.tasks, batches, strict=True):
        out.metrics[task.places], out.status[task.places] = batch.metrics, batch.status
        out.samples[task.places] = batch.samples
    out.metrics[out.status != 0] = np.nan
    return out


class Rows:
    """Makes the tables of a plan's trials: trial, parameters, metrics, status."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._swept = {parameter_column(axis): place for place, axis in enumerate(plan.space.axes)}
        self._fixed = {name: value for name, value in parameter_columns(plan.base).items() if name not in self._swept}
        self._values = [None if axis.is_drawn else _column_of(axis) for axis in plan.space.axes]

    def table(self, trials: np.ndarray, batch: Batch) -> pl.DataFrame:
        """One row a trial; nothing (null) where a metric has no value."""
        columns = self.plan.design.take(trials)
        out: list[Any] = [pl.Series("trial", trials.astype(np.int64))]
        for name, place in self._swept.items():
            out.append(self._swept_column(name, place, columns[place]))
        for name, value in self._fixed.items():
            kind = pl.String if value is None or isinstance(value, str) else None
            out.append(pl.Series(name, [value], dtype=kind).new_from_index(0, len(trials)))
        nothing = batch.status != 0
        for place, name in enumerate(METRICS):
            values = batch.metrics[:, place]
            if name in COUNTS:
                counts = pl.Series(name, np.where(nothing, 0, np.nan_to_num(values)).astype(np.int64))
                out.append(counts.set(pl.Series(nothing), None) if nothing.any() else counts)
            else:
                out.append(pl.Series(name, values, nan_to_null=True))
        words = pl.Series("status", STATUSES)
        out.append(words.gather(batch.status).alias("status"))
        return pl.DataFrame(out)

    def _swept_column(self, name: str, place: int, column: np.ndarray) -> pl.Series:
        values = self._values[place]
        if values is None:
            axis = self.plan.space.axes[place]
            numbers = numbers_of(axis, column)
            return pl.Series(name, numbers.astype(np.int64) if axis.is_whole else numbers)
        return values.gather(column).alias(name)


def parameter_column(axis: Axis) -> str:
    """The column of an axis: ``param_rule_entry`` of ``rule.entry``, ``param_combo`` of the combos."""
    return f"param_{axis.key.replace('.', '_')}"


def _column_of(axis: Axis) -> pl.Series:
    """The values of an axis as a column takes them: numbers, durations in hours, text, else JSON."""
    values = list(axis.values)
    if axis.key == "combo":
        return pl.Series([" ".join(leg_texts(one["legs"])) for one in values])
    kinds = {type(one) for one in values if one is not None}
    is_duration = axis.key.endswith("hours")
    if kinds <= {bool} or kinds <= {int} or (kinds <= {str} and not is_duration):
        return pl.Series(values)
    if kinds <= {int, float, str}:
        with contextlib.suppress(ValueError):
            return pl.Series([None if one is None else parse_hours_or_number(one) for one in values])
    texts = (str, type(None))
    return pl.Series([
        one if isinstance(one, texts) else json.dumps(one, sort_keys=True, default=str) for one in values
    ])  # fmt: skip
