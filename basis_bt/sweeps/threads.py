"""The engine of one machine: threads, which the compiled kernels let run side by side."""

import os
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.sweeps.batch import NO_SAMPLES, Batch, run_batch
from basis_bt.sweeps.interrupts import held_interrupts
from basis_bt.sweeps.jobs import Job, gathered

POLL_SECONDS = 0.1  # signals are looked at this often


def usable_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def given_threads(threads: int | None) -> int:
    """How many threads are meant: all processors where nothing is given.

    Raises
    ------
    ConfigError
        If there are none, or more than any machine has.
    """
    if threads is None:
        return usable_threads()
    if not 1 <= threads <= 1024:
        raise ConfigError(
            f"threads must be between 1 and 1024, found {threads}", fix="leave it out to use all processors"
        )
    return threads


def run_on_threads(
    jobs: Iterable[Job], *, threads: int, sample_bars: np.ndarray = NO_SAMPLES
) -> Generator[tuple[Job, Batch], None, None]:
    """Run jobs on threads and yield each with its rows, in the order in which they end.

    Jobs are taken as there is room: two more than threads are in work. When the caller leaves (an error, an interrupt)
    what runs is stopped within a trial.
    """
    cancelled = np.zeros(1, dtype=np.int64)
    waiting: dict[Future[Batch], Job] = {}
    source = iter(jobs)
    with (
        held_interrupts() as interrupt,
        ThreadPoolExecutor(max_workers=threads, thread_name_prefix="sweep") as pool,
    ):
        try:
            is_open = True
            while is_open or waiting:
                while is_open and len(waiting) < threads + 2:
                    interrupt()
                    job = next(source, None)
                    if job is None:
                        is_open = False
                    else:
                        waiting[pool.submit(_run, job, cancelled, sample_bars)] = job
                done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                interrupt()
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            cancelled[0] = 1
            for future in waiting:
                future.cancel()


def _run(job: Job, cancelled: np.ndarray, sample_bars: np.ndarray) -> Batch:
    batches = [
        run_batch(task.cell, trials=task.trials, values=task.values, cancelled=cancelled, sample_bars=sample_bars)
        for task in job.tasks
    ]
    return gathered(job, batches)
