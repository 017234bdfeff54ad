"""Sweeps over the sample for the tests of sweeps: configurations, what to compare, and sweeps in their own process."""

import copy
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

import basis_bt
from basis_bt.core.errors import BasisBtError
from basis_bt.sweeps.batch import METRICS
from basis_bt.sweeps.engine import sweep
from basis_bt.sweeps.plan import make_plan
from basis_bt.sweeps.progress import Progress
from basis_bt.sweeps.result import Sweep

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"


def leg(instrument: str, ratio: float) -> dict[str, Any]:
    return {"instrument": instrument, "ratio": ratio}


CARRY = {"legs": [leg("spot:binance:BTC-USDT", 1.0), leg("perp:binance:BTC-USDT", -1.0)]}
THREE = {"legs": [leg("spot:binance:BTC-USDT", 1.0), leg("perp:binance:BTC-USDT", -0.5),
                  leg("perp:bybit:BTC-USDT", -0.5)]}  # fmt: skip
PERPS = {"legs": [leg("perp:bybit:BTC-USDT", 1.0), leg("perp:binance:BTC-USDT", -1.0)]}
ABSENT = {"legs": [leg("spot:okx:BTC-USDT", 1.0), leg("perp:okx:BTC-USDT", -1.0)]}
TABLES: dict[str, Any] = {
    "name": "demo",
    "data": {"root": str(SAMPLE), "start": "2024-02-01T00:00:00Z", "end": "2024-03-01T00:00:00Z", "bar": "1h"},
    "combo": CARRY,
    "signal": {"name": "funding_apr", "hours": 72},
    "rule": {"entry": 0.1, "exit": 0.02},
    "costs": {"half_spread_bps": 0.5, "taker_fee_bps": {"spot": 10.0, "perp": 5.0}},
    "sweep": {"best": 1},
}
# for whom a fill is a matter of luck, the whole trial is run: a part takes a tenth of a second
SLOW = {"fills": {"model": "bernoulli", "fill_probability": 0.8}}


def tables(**changes: Any) -> dict[str, Any]:
    """Nested tables with some replaced: ``rule__entry=[0.1, 0.2]`` or ``combo=THREE``."""
    out = copy.deepcopy(TABLES)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            out.setdefault(section, {})[name] = copy.deepcopy(value)
        else:
            out[section] = copy.deepcopy(value)
    return out


def long_tables(n_entries: int = 40, n_exits: int = 40, **changes: Any) -> dict[str, Any]:
    """A sweep of some seconds in some twenty parts: a year, 1,600 whole trials."""
    entries = {"from": 0.02, "to": 0.3, "steps": n_entries}
    exits = {"from": -0.05, "to": 0.01, "steps": n_exits}
    out = tables(**SLOW, rule={"entry": entries, "exit": exits}, **changes)
    out["data"] |= {"start": "2024-01-10T00:00:00Z", "end": "2024-12-30T00:00:00Z"}
    return out


def differences(config: dict[str, Any], done: Sweep) -> list[Any]:
    """Trials of a sweep that are not, in every bit of every metric, what ``run`` gives of their configuration."""
    plan = make_plan(config)
    assert plan.n_trials == done.trials.height
    out: list[Any] = []
    for row in done.trials.iter_rows(named=True):
        try:
            single = basis_bt.run(plan.config_of(row["trial"]), trial=row["trial"]).metrics.row(0, named=True)
        except BasisBtError as error:
            if row["status"] == "ok" or any(row[name] is not None for name in METRICS):
                out.append((plan.values_of(row["trial"]), row["status"], str(error)))
            continue
        if row["status"] != "ok":
            out.append((plan.values_of(row["trial"]), row["status"], "run gives a result"))
        wrong = [(name, row[name], single[name]) for name in METRICS if row[name] != single[name]]
        if wrong:
            out.append((plan.values_of(row["trial"]), wrong))
    return out


def part_hashes(folder: Path) -> dict[str, str]:
    """Hash of each part of the metrics."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("metrics/*"))}


def names_in(folder: Path) -> list[str]:
    """Everything in a folder, also what is hidden."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


class Stopped(Exception):
    """What a test stops a sweep with."""


def stopped(config: dict[str, Any], runs: Path, monkeypatch: Any, *, after: int = 2, **options: Any) -> None:
    """Begin a sweep and stop it once some parts are written."""
    count = 0

    def advance(self: Progress, n_trials: int) -> None:
        nonlocal count
        count += 1
        if count >= after:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", advance)
        try:
            sweep(config, runs=runs, **options)
        except Stopped:
            return
    raise AssertionError("the sweep ended before it was stopped")


# what a sweep in a process of its own runs first; ``{log}`` hears of each part as it begins and ends
DRIVER = """
import os, sys
from basis_bt.sweeps import threads
from basis_bt.sweeps.progress import Progress
real, log = threads._run, os.open({log!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def run(job, *rest):
    os.write(log, b"begun %d\\n" % job.number)
    batch = real(job, *rest)
    os.write(log, b"done %d\\n" % job.number)
    return batch
threads._run = run
{more}
from basis_bt.cli.main import entry
if __name__ == "__main__":
    sys.exit(entry(sys.argv[1:]))
"""


def environment(**changes: str) -> dict[str, str]:
    """That of this process, with the package and the tests in reach."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])} | changes


def toml_of(config: dict[str, Any], path: Path) -> Path:
    """A configuration as a file: JSON values are TOML but for tables, which are written inline."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {text(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    path.write_text("".join(f"{key} = {text(value)}\n" for key, value in config.items()))
    return path


def started(
    folder: Path, config: dict[str, Any], *arguments: str, more: str = "", log: str = "log"
) -> subprocess.Popen[str]:
    """``basis-bt sweep`` of a configuration into ``folder/runs``, in its own process."""
    folder.mkdir(parents=True, exist_ok=True)
    code = DRIVER.format(log=str(folder / log), more=more)
    path = toml_of(config, folder / "sweep.toml")
    command = [sys.executable, "-c", code, "sweep", str(path), "--runs", str(folder / "runs"), "--threads", "2"]
    return subprocess.Popen(
        [*command, *arguments], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def ended(process: subprocess.Popen[str], *, timeout: float = 120.0) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_until(is_so: Callable[[], Any], *, seconds: float = 90.0) -> Any:
    """Poll a condition until it holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = is_so()
        if found:
            return found
        time.sleep(0.002)
    raise AssertionError(f"not so within {seconds:g} s")


def journal(folder: Path, name: str = "demo") -> set[int]:
    """Numbers of the parts that an unfinished sweep has."""
    try:
        lines = (folder / "runs" / f".{name}.sweep" / "parts.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return set()
    return {json.loads(line)["part"] for line in lines}


def trials_hash(trials: pl.DataFrame) -> str:
    """Hash of every bit of a table of trials."""
    buffer = io.BytesIO()
    arrow = trials.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    pq.write_table(arrow, buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()
