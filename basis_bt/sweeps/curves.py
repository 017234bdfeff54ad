"""Returns of the trials of a sweep by day, which no sweep keeps: the trials are run again for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.core.units import US_PER_DAY
from basis_bt.sweeps.batch import METRICS, Cell
from basis_bt.sweeps.cells import Cells
from basis_bt.sweeps.fast_axes import PLACE
from basis_bt.sweeps.jobs import Job, Task, make_job
from basis_bt.sweeps.plan import Plan
from basis_bt.sweeps.threads import run_on_threads

LEAST_DAYS = 32
TRIALS_AT_ONCE = 1024  # so many are prepared together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Returns:
    """Simple returns ``(n_days, n_trials)`` of the UTC days that all trials have, and the end equity of each trial."""

    day_us: np.ndarray
    returns: np.ndarray
    end_equity_usd: np.ndarray


def daily_returns(plan: Plan, trials: np.ndarray, *, threads: int) -> Returns:
    """Run trials again for their equity at the end of each UTC day.

    A day's equity is that of its last fresh row or an earlier one; its return is measured from the equity at the end of
    the day before, of a trial's first day from the capital. The first day and the last of a trial may not be whole.

    Raises
    ------
    ConfigError
        If the markets of the trials have too few days in common, or a trial that ran before does not run now.
    """
    curves: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(trials)
    end_usd = np.full(len(trials), np.nan)
    cells, failures = Cells(warmup=plan.signals, n_bars=plan.n_bars), dict[str, int]()
    for start in range(0, len(trials), TRIALS_AT_ONCE):
        job = make_job(plan, cells, 0, trials[start : start + TRIALS_AT_ONCE], failures=failures)
        for tasks in _by_stretch(job.tasks):
            day_us, last_bars = _days(tasks[0].cell)
            parts = parts_of(tasks, threads=threads)
            for part, batch in run_on_threads(parts, threads=threads, sample_bars=last_bars):
                task = part.tasks[0]
                places = start + np.searchsorted(job.trials, part.trials)
                end_usd[places] = batch.metrics[:, METRICS.index("end_equity_usd")]
                equity = np.column_stack([task.values[:, PLACE["capital_usd"]], batch.samples])
                for place, row in zip(places.tolist(), _returns(equity), strict=True):
                    curves[place] = (day_us, row)
    if np.isnan(end_usd).any():
        raise ConfigError(
            f"trial {trials[np.isnan(end_usd)][0]} ran in the sweep and does not run now: "
            + next(iter(failures), "it ends with a status").splitlines()[0],
            fix="its input files or this package have changed since; run the sweep again",
        )
    first, last = max(days[0] for days, _ in curves), min(days[-1] for days, _ in curves)
    common_us = np.arange(first, last + 1, US_PER_DAY)
    if len(common_us) < LEAST_DAYS:
        raise ConfigError(
            f"the markets of the trials have {len(common_us)} days in common, fewer than {LEAST_DAYS}",
            fix="sweep over a longer span, or over combos that were traded at the same time",
        )
    returns = np.empty((len(common_us), len(trials)))
    for place, (days, row) in enumerate(curves):
        begin = int((first - days[0]) // US_PER_DAY)
        returns[:, place] = row[begin : begin + len(common_us)]
    return Returns(day_us=common_us, returns=returns, end_equity_usd=end_usd)


def parts_of(tasks: Sequence[Task], *, threads: int) -> list[Job]:
    """Tasks as jobs of one task each, cut so that every thread has some of each."""
    jobs = []
    for task in tasks:
        for rows in np.array_split(np.arange(len(task.trials)), min(threads, len(task.trials))):
            own = Task(cell=task.cell, places=np.arange(len(rows)), trials=task.trials[rows], values=task.values[rows])
            jobs.append(Job(number=0, trials=own.trials, tasks=[own], status=np.zeros(len(rows), dtype=np.int64)))
    return jobs


def _by_stretch(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks over the same bars together."""
    found: dict[tuple[int, int, int], list[Task]] = {}
    for task in tasks:
        found.setdefault((task.cell.first_us, task.cell.bar_us, task.cell.n_bars), []).append(task)
    return list(found.values())


def _days(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """The days of a cell, and the last bar of each."""
    day = (cell.first_us + np.arange(cell.n_bars) * cell.bar_us) // US_PER_DAY
    days = np.arange(day[0], day[-1] + 1)
    return days * US_PER_DAY, np.searchsorted(day, days, side="right") - 1


def _returns(equity_usd: np.ndarray) -> np.ndarray:
    """Returns of rows ``(n_trials, n_days + 1)``; 0 from an equity that is gone."""
    before = equity_usd[:, :-1]
    return np.where(before > 0.0, equity_usd[:, 1:] / np.where(before > 0.0, before, 1.0) - 1.0, 0.0)
