"""The front door of sweeps: ``sweep()``."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.backtest.engine import run, versions
from basis_bt.core.config import config_dict, config_hash
from basis_bt.core.errors import ConfigError, KernelError, StoreError
from basis_bt.core.rulebook import rulebook_hash
from basis_bt.core.sweep_spec import SweepSpec
from basis_bt.market.remote import market_root
from basis_bt.signals import Signal
from basis_bt.store.folder import check_run_name
from basis_bt.store.partial import PartialRun
from basis_bt.sweeps.batch import STATUSES, Batch
from basis_bt.sweeps.cells import Cells, series_hash
from basis_bt.sweeps.jobs import Job, Rows, make_job, parameter_column
from basis_bt.sweeps.plan import Plan, axis_dict, check_size, make_plan
from basis_bt.sweeps.progress import Progress
from basis_bt.sweeps.result import BEST_KEPT, Sweep, best_of
from basis_bt.sweeps.threads import given_threads, run_on_threads

ENGINES = ("threads", "ray")
Engine = Callable[[Iterator[Job]], Generator[tuple[Job, Batch], None, None]]


def sweep(
    config: str | Path | Mapping[str, Any],
    *,
    runs: str | Path | None = None,
    name: str | None = None,
    engine: str = "threads",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_large: bool = False,
    quiet: bool = True,
    expression: pl.Expr | None = None,
    warmup_hours: float = 0.0,
) -> Sweep:
    """Backtest every parameter set of a configuration whose values are lists or ranges.

    Parameters
    ----------
    config : path of a TOML file or nested dicts; see ``docs/sweeps.md``
    runs : folder of runs to keep the sweep in, written part by part and resumable; None keeps it in memory
    name : of the run, instead of the configuration's
    engine : ``"threads"`` of this machine or ``"ray"``, a cluster; the numbers are the same to the last bit
    threads : how many, all processors by default; workers of a cluster are as many as it has processors
    resume, overwrite : go on with an unfinished sweep of that name; replace a finished one
    allow_large : run what the pre-flight check would refuse
    quiet : say nothing; else the pre-flight line and a progress bar go to stderr
    expression, warmup_hours : a signal of your own, as in ``run``

    Returns
    -------
    Sweep with ``trials`` (one row a trial), the manifest, and details of the best

    Raises
    ------
    ConfigError, StoreError
        Before anything is computed, see ``core/errors.py``. A trial that fails has a status instead of metrics; if all
        do, for one reason, that is raised.
    """
    started = time.perf_counter()
    own = None if expression is None else Signal(expression=expression, warmup_hours=warmup_hours)
    threads = given_threads(threads)
    run_engine = _engine(engine, threads=threads)
    target = None if runs is None else Path(runs)
    if target is None and (resume or overwrite):
        raise ConfigError("a sweep in memory has nothing to resume or overwrite", fix="name the folder of runs")
    plan = make_plan(config, own_signal=own is not None, check=_size_check(threads, target, allow_large))
    name = plan.base.name if name is None else name
    progress = Progress(plan, quiet=quiet)
    progress.say(*plan.space.notes, *plan.design.notes, plan.sentence(threads=threads, engine=engine))
    _announce_compiling(quiet)
    if target is None:
        kept = _Parts()
        facts, tally = _run_parts(plan, run_engine, own, progress, kept)
        tally.check(facts["failures"])
        manifest, tables = _outcome(plan, tally, facts, own=own, name=name, started=started)
        trials = pl.concat([kept.read_part(number) for number in range(plan.n_parts)])
        return Sweep(manifest=manifest, best=tally.best, tables=tables, path=None, loaded=[trials])
    identity = {**plan.identity(), "expression": None if own is None else f"{expression} ({warmup_hours:g} h)"}
    with PartialRun(target, name=name, plan=identity, resume=resume, overwrite=overwrite) as parts:
        _check_inputs(parts.plan.get("inputs", {}))
        facts, tally = _run_parts(plan, run_engine, own, progress, parts)
        try:
            tally.check(facts["failures"])
        except KernelError:
            parts.discard()
            raise
        manifest, tables = _outcome(plan, tally, facts, own=own, name=name, started=started)
        path = parts.finish(manifest=manifest, tables=tables)
    return Sweep(manifest=manifest, best=tally.best, tables=tables, path=path)


def describe(
    config: Mapping[str, Any], *, threads: int | None, engine: str, runs: Path, allow_large: bool = False
) -> str:
    """What a sweep would run, as its pre-flight line says it; refused where the sweep would be."""
    threads = given_threads(threads)
    plan = make_plan(config, check=_size_check(threads, runs, allow_large))
    check_run_name(plan.base.name)
    notes = [*plan.space.notes, *plan.design.notes]
    return "\n".join([*notes, plan.sentence(threads=threads, engine=engine)])


def _run_parts(
    plan: Plan,
    engine: Engine,
    own: Signal | None,
    progress: Progress,
    parts: "_Parts | PartialRun",
) -> tuple[dict[str, Any], "_Tally"]:
    """Compute and write the parts that are missing; returns the inputs, the flags, why trials failed, and a tally."""
    known = dict(parts.plan.get("inputs", {}))
    cells = Cells(
        own_signal=own,
        warmup=None if own else plan.signals,
        met=lambda found: parts.note("inputs", found),
        inputs=known,
        n_bars=plan.n_bars,
    )
    failures: dict[int, dict[str, int]] = {}
    rows, tally = Rows(plan), _Tally(plan.space.spec)
    for number in sorted(parts.done):
        tally.add(parts.read_part(number))
    missing = [part for part in range(plan.n_parts) if part not in parts.done]

    def jobs() -> Iterator[Job]:
        for part in missing:
            yield make_job(plan, cells, part, plan.trials_of(part), failures=failures.setdefault(part, {}))

    progress.start(n_done=plan.n_trials - sum(len(plan.trials_of(part)) for part in missing))
    try:
        with closing(engine(jobs())) as batches:
            for job, batch in batches:
                heard = {"failures": failures.pop(job.number), "flags": list(cells.flags)}
                part = rows.table(job.trials, batch)
                parts.write_part(job.number, part, said=heard)
                tally.add(part)
                progress.advance(len(job.trials))
    finally:
        progress.stop()
    flags: dict[str, None] = {}
    counts: dict[str, int] = {}
    for _, said in sorted(parts.said.items()):
        flags |= dict.fromkeys(said["flags"])
        for text, n in said["failures"].items():
            counts[text] = counts.get(text, 0) + n
    return {"inputs": dict(cells.inputs), "flags": list(flags), "failures": counts}, tally


class _Parts:
    """The parts of a sweep in memory, as ``PartialRun`` has them on disk."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] = {}
        self.frames: dict[int, pl.DataFrame] = {}
        self.said: dict[int, dict[str, Any]] = {}

    @property
    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        return set(self.frames)

    def write_part(self, number: int, frame: pl.DataFrame, *, said: Mapping[str, Any]) -> None:
        """Keep one part of the metrics."""
        self.frames[number], self.said[number] = frame, dict(said)

    def read_part(self, number: int) -> pl.DataFrame:
        """A part that is there."""
        return self.frames[number]

    def note(self, key: str, values: Mapping[str, Any]) -> None:
        """Nothing is resumed from memory."""


class _Tally:
    """How many trials ended how, and the best rows: what is known of a sweep without holding it."""

    def __init__(self, spec: SweepSpec) -> None:
        self.best = pl.DataFrame()
        self._metric, self._n_best = spec.metric, max(spec.best, BEST_KEPT)
        self._counts = dict.fromkeys(STATUSES, 0)

    @property
    def counts(self) -> dict[str, int]:
        """Trials by how they ended."""
        return {word: n for word, n in sorted(self._counts.items()) if n}

    def add(self, part: pl.DataFrame) -> None:
        """Count a part; it does not matter which comes first."""
        for word, n in part.group_by("status").len().iter_rows():
            self._counts[word] += n
        rows = pl.concat([self.best, part]) if self.best.width else part
        self.best = best_of(rows, metric=self._metric, n=self._n_best)

    def check(self, failures: Mapping[str, int]) -> None:
        """Refuse a sweep none of whose trials could be prepared.

        Raises
        ------
        KernelError
            With the first reason.
        """
        if failures and set(self.counts) <= {"config_error", "data_error", "signal_error", "error"}:
            raise KernelError(f"no trial could run: {next(iter(failures))}", fix="correct that and run again")


def _outcome(
    plan: Plan, tally: _Tally, facts: Mapping[str, Any], *, own: Signal | None, name: str, started: float
) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """The manifest of a finished sweep, and the tables of its best trials."""
    spec = plan.space.spec
    best = tally.best.head(spec.best)
    expression, warmup_hours = (None, 0.0) if own is None else (own.expression, own.warmup_hours)
    details = [
        run(plan.config_of(number), trial=number, expression=expression, warmup_hours=warmup_hours)
        for number in best["trial"].to_list()
    ]
    tables: dict[str, pl.DataFrame] = {}
    for table in details[0].tables if details else ():
        if table != "metrics":
            tables[table] = pl.concat([one.tables[table] for one in details if table in one.tables])
    span = (
        details[0].manifest["span"] if details else {"bar_hours": plan.base.data.bar_us / 3.6e9, "n_bars": plan.n_bars}
    )
    manifest = {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **versions(),
        "config": config_dict(plan.base),
        "config_hash": config_hash(plan.base),
        "seed": plan.base.fills.seed,
        "rulebook_hash": rulebook_hash(),
        "span": {
            **span,
            "start": config_dict(plan.base)["data"]["start"],
            "end": config_dict(plan.base)["data"]["end"],
        },
        "inputs": [row for _, row in sorted(facts["inputs"].items())],
        "flags": facts["flags"],
        "sweep": {
            "n_trials": plan.n_trials,
            "status": tally.counts,
            "spec": dataclasses.asdict(spec),
            "metric": spec.metric,
            "axes": [axis_dict(axis) for axis in plan.space.axes],
            "columns": [parameter_column(axis) for axis in plan.space.axes],
            "best": _finite(tally.best.row(0, named=True)) if tally.best.height else None,
            "best_trials": best["trial"].to_list(),
            "failures": [{"error": text, "trials": n} for text, n in list(facts["failures"].items())[:20]],
            "expression": None if expression is None else str(expression),
            "identity": plan.identity(),
        },
        "wall_seconds": time.perf_counter() - started,
    }
    return manifest, tables


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a manifest, which holds no infinite rate."""
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in row.items()}


def _size_check(threads: int, folder: Path | None, allow_large: bool) -> Callable[[Plan], None] | None:
    return None if allow_large else partial(check_size, threads=threads, folder=folder)


def _engine(engine: str, *, threads: int) -> Engine:
    if engine == "threads":
        return lambda jobs: run_on_threads(jobs, threads=threads)
    if engine == "ray":
        from basis_bt.sweeps.ray_cluster import check_ray, run_on_ray

        check_ray()
        return run_on_ray
    raise ConfigError(f"there is no engine {engine!r}", fix=f"one of {', '.join(ENGINES)}")


def _check_inputs(known: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to go on with parts that were made of other files."""
    for row in known.values():
        path, sha = row["path"], row["sha256"]
        try:
            found = series_hash(market_root(path))
        except OSError as error:
            found = error.strerror or "unreadable"
        if found != sha:
            raise StoreError(
                "the sweep cannot be resumed: an input file has changed",
                where={"file": path, "then": sha[:12], "now": found if " " in found else found[:12]},
                fix="put the file back, or begin again (--overwrite)",
            )


def _announce_compiling(quiet: bool) -> None:
    from basis_bt.kernels._jit import is_compiled

    if not quiet and not is_compiled():
        print("basis_bt: compiling kernels (once per version, up to a minute) ...", file=sys.stderr, flush=True)
