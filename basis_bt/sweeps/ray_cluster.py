"""The engine of many machines: a Ray cluster. What jobs share is put into its object store once.

A job that is lost with its worker or node is sent again; its numbers are the same wherever it runs.
"""

import contextlib
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.sweeps.batch import NO_SAMPLES, Batch, Cell, run_batch
from basis_bt.sweeps.jobs import Job, gathered

ATTEMPTS = 5
KEPT_CELLS = 64
POLL_SECONDS = 0.1
_cells: OrderedDict[str, Cell] = OrderedDict()  # of this worker, by reference


def check_ray() -> None:
    """Refuse to go on without Ray.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the engine ray needs Ray, which is not installed",
            fix='pip install "basis-bt[ray]", or use the threads of this machine: --engine threads',
        ) from None


def run_on_ray(
    jobs: Iterable[Job], *, sample_bars: np.ndarray = NO_SAMPLES
) -> Generator[tuple[Job, Batch], None, None]:
    """Run jobs on the cluster this process is connected to (``RAY_ADDRESS``), else on a local one started for it."""
    import ray

    is_own = not ray.is_initialized()
    if is_own:
        address = os.environ.get("RAY_ADDRESS")
        with _own_signals():
            ray.init(address=address, log_to_driver=False, include_dashboard=None if address else False)
    remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS, retry_exceptions=False)(_run)
    put: OrderedDict[int, tuple[Cell, Any]] = OrderedDict()
    waiting: dict[Any, tuple[Job, int]] = {}

    def send(job: Job, attempt: int) -> None:
        references = []
        for task in job.tasks:
            if id(task.cell) not in put:
                put[id(task.cell)] = (task.cell, ray.put(_packed(task.cell)))
                while len(put) > KEPT_CELLS:
                    put.popitem(last=False)
            references.append(put[id(task.cell)][1])
        work = [(task.trials, task.values) for task in job.tasks]
        names = [reference.hex() for reference in references]
        waiting[remote.remote(names, work, sample_bars, *references)] = (job, attempt)

    try:
        source, is_open = iter(jobs), True
        while is_open or waiting:
            room = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
            while is_open and len(waiting) < room:
                job = next(source, None)
                if job is None:
                    is_open = False
                else:
                    send(job, 1)
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS) if waiting else ([], [])
            for reference in done:
                job, attempt = waiting.pop(reference)
                try:
                    yield job, gathered(job, ray.get(reference))
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.RayActorError,
                        ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError):  # fmt: skip
                    if attempt >= ATTEMPTS:
                        raise
                    put.clear()  # what was put may be lost with a node
                    send(job, attempt + 1)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        if is_own:
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does when it is told to end, which Ray would replace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _run(
    names: list[str], work: list[tuple[np.ndarray, np.ndarray]], sample_bars: np.ndarray, *packed: Any
) -> list[Batch]:
    """The tasks of a job, in a worker."""
    running = np.zeros(1, dtype=np.int64)
    out = []
    for name, (trials, values), one in zip(names, work, packed, strict=True):
        if name not in _cells:
            _cells[name] = _unpacked(one)
            while len(_cells) > KEPT_CELLS:
                _cells.popitem(last=False)
        own = {"trials": np.array(trials), "values": np.array(values), "sample_bars": np.array(sample_bars)}
        out.append(run_batch(_cells[name], cancelled=running, **own))
    return out


def _packed(cell: Cell) -> tuple[Cell, list[bool]]:
    """A cell, and which of its arrays may be written: kernels are compiled for that too, and a store forgets it."""
    return cell, [array.flags.writeable for array in _arrays(cell)]


def _unpacked(packed: tuple[Cell, list[bool]]) -> Cell:
    cell, writable = packed
    flags = iter(writable)

    def restored(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy() if next(flags) else _locked(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(restored(one) for one in value))
        return value

    parts = {name: restored(getattr(cell, name)) for name in Cell.__slots__}
    return Cell(**parts)


def _locked(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _arrays(cell: Cell) -> Iterator[np.ndarray]:
    """The arrays of a cell in the order in which ``_unpacked`` meets them."""

    def of(value: Any) -> Iterator[np.ndarray]:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            for one in value:
                yield from of(one)

    for name in Cell.__slots__:
        yield from of(getattr(cell, name))
