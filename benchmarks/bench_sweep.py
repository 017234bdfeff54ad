"""How fast sweeps are, beside the peers, a hand-written loop, themselves on one thread, and Ray.

    python benchmarks/bench_sweep.py                         # what this environment has
    python benchmarks/bench_sweep.py --peer-python OTHER     # peers of another environment too, by its interpreter

The task is that of ``benchmarks/peers/task.py``: 15 000 hourly bars, 400 pairs of thresholds. Our side goes through
parquet files and ``prepare()``; what is timed is from arrays to all metrics of all trials, as for the peers, on one
thread and on all. Answers are compared with the scalar reference before anything is timed. Sides of a ratio take turns.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from basis_bt.backtest.prepare import prepare  # noqa: E402
from basis_bt.core.config import build_config  # noqa: E402
from basis_bt.sweeps.batch import METRICS, make_cell  # noqa: E402
from basis_bt.sweeps.fast_axes import base_values  # noqa: E402
from basis_bt.sweeps.jobs import Job, Task  # noqa: E402
from basis_bt.sweeps.threads import run_on_threads, usable_threads  # noqa: E402
from benchmarks.peers import task  # noqa: E402

START_US = 1_672_531_200_000_000
START, END = "2023-01-01T00:00:00Z", "2024-09-17T00:00:00Z"


def write_market(market: task.Market, folder: Path, *, with_funding: bool) -> dict[str, Any]:
    """The task's market as files, and its configuration."""
    n_bars = len(market.signal_apr)
    ts = (pl.Series(np.arange(n_bars)) * 3_600_000_000 + START_US).cast(pl.Datetime("us", "UTC"))
    for series, opens, closes in (
        ("spot", market.spot_open, market.spot_close), ("perp", market.perp_open, market.perp_close),
    ):  # fmt: skip
        path = folder / series / "venue" / "BTC-USD.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes), "close": closes}
        pl.DataFrame({"ts": ts, **columns, "volume": np.full(n_bars, 1e6)}).write_parquet(path)
    path = folder / "funding" / "venue" / "BTC-USD.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = market.funding_rate if with_funding else np.zeros_like(market.funding_rate)
    pl.DataFrame({"ts": ts[:: task.SETTLEMENT_BARS], "rate": rate, "mark_price": market.mark_price}).write_parquet(path)
    legs = [{"instrument": "spot:venue:BTC-USD", "ratio": 1.0}, {"instrument": "perp:venue:BTC-USD", "ratio": -1.0}]
    return {
        "data": {"root": str(folder), "start": START, "end": END, "checks": "clean"},
        "combo": {"legs": legs},
        "signal": {"name": "basis_bps"},
        "rule": {"entry": 1.0, "exit": 0.0},
        "size": {"capital_usd": task.CAPITAL_USD, "allocation": task.ALLOCATION, "leverage": task.LEVERAGE,
                 "lots": "none"},
        "costs": {"half_spread_bps": task.HALF_SPREAD_BPS,
                  "taker_fee_bps": {"spot": task.SPOT_FEE_BPS, "perp": task.PERP_FEE_BPS}},
    }  # fmt: skip


class Ours:
    """The task's trials as a cell and rows of values, ready to be run."""

    def __init__(self, market: task.Market, pairs: task.Pairs, *, with_funding: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = build_config(write_market(market, Path(folder), with_funding=with_funding))
            self.cell = make_cell(prepare(config, signal_values=market.signal_apr))
        self.values = np.tile(base_values(self.cell.parameters), (len(pairs), 1))
        self.values[:, :2] = np.array(pairs)

    def run(self, *, threads: int, repeats: int = 1) -> task.Answers:
        """All trials, ``repeats`` times over, in eight jobs a thread."""
        rows = np.tile(self.values, (repeats, 1))
        jobs = [
            Job(number=k, trials=part, status=np.zeros(len(part), dtype=np.int64),
                tasks=[Task(cell=self.cell, places=np.arange(len(part)), trials=part, values=rows[part])])
            for k, part in enumerate(np.array_split(np.arange(len(rows)), 8 * threads))
        ]  # fmt: skip
        started = time.perf_counter()
        done = {job.number: batch for job, batch in run_on_threads(jobs, threads=threads)}
        seconds = time.perf_counter() - started
        metrics = np.concatenate([done[k].metrics for k in sorted(done)])
        total, fall = (metrics[:, METRICS.index(name)] for name in ("total_return", "max_drawdown"))
        return task.Answers(total, fall, seconds, "all metrics")


def check_answers(market: task.Market, pairs: task.Pairs) -> str:
    """Our answers and those of the hand-written loop against the scalar reference, with and without funding."""
    told = []
    for funding in (False, True):
        ours = Ours(market, pairs, with_funding=funding).run(threads=1)
        loop = task.run(market, pairs, funding=funding)
        worst = max(*task.worst_differences(ours, market, pairs, funding=funding),
                    *task.worst_differences(loop, market, pairs, funding=funding))  # fmt: skip
        if worst > 1e-9:
            raise SystemExit(f"answers differ from the reference by {worst:.1e}: nothing is timed")
        told.append(f"{worst:.0e}")
    return f"answers of {len(pairs)} trials equal the scalar reference to {told[0]}, with funding {told[1]}"


def best(*functions: Callable[[], float], turns: int) -> list[float]:
    """Best seconds of each; the functions take turns, so that a busy moment hits all of them."""
    found = [float("inf")] * len(functions)
    for turn in range(turns + 1):
        for k, function in enumerate(functions):
            seconds = function()
            found[k] = min(found[k], seconds) if turn else found[k]
    return found


def engine_rows(market: task.Market, pairs: task.Pairs, *, turns: int) -> Iterator[tuple[str, str, str]]:
    """Our engine on one thread and on all, the hand-written loop, and vectorbt where it is installed."""
    ours, threads, n = Ours(market, pairs, with_funding=True), usable_threads(), len(pairs)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: ours.run(threads=1, repeats=4).seconds / 4,
        "all": lambda: ours.run(threads=threads, repeats=4).seconds / 4,
        "loop": lambda: task.run(market, pairs, funding=True).seconds,
    }
    has_peer = importlib.util.find_spec("vectorbt") is not None
    if has_peer:
        from benchmarks.peers import vectorbt_peer

        for engine in ("numba", "rust"):
            answers = vectorbt_peer.run(market, pairs, engine=engine)
            worst = max(task.worst_differences(answers, market, pairs))
            if worst > 1e-9:
                raise SystemExit(f"vectorbt {engine} differs from the reference by {worst:.1e}")
            sides[engine] = lambda engine=engine: vectorbt_peer.run(market, pairs, engine=engine).seconds
    seconds = dict(zip(sides, best(*sides.values(), turns=turns), strict=True))
    n_bars = len(market.signal_apr)
    yield (
        "our trial, one thread",
        f"{seconds['ours'] / n * 1e6:.1f} us ({seconds['ours'] / n / n_bars * 1e9:.2f} ns a bar)",
        "",
    )
    yield (
        "hand-written loop",
        f"{seconds['loop'] / n * 1e6:.1f} us ({seconds['loop'] / n / n_bars * 1e9:.2f} ns a bar)",
        "",
    )
    yield "ours / hand-written loop", f"{seconds['ours'] / seconds['loop']:.2f} x", "<= 3 x"
    yield f"{threads} threads / 1 thread", f"{seconds['ours'] / seconds['all']:.2f} x", ">= 1.8 x on 2"
    for engine in ("numba", "rust") if has_peer else ():
        yield f"vectorbt {engine}, a trial", f"{seconds[engine] / n * 1e3:.2f} ms", ""
        yield f"vectorbt {engine} / ours, 1 thread", f"{seconds[engine] / seconds['ours']:.0f} x", ""
        yield f"vectorbt {engine} / ours, {threads} threads", f"{seconds[engine] / seconds['all']:.0f} x", ">= 150 x"


def slow_peer_rows(python: str, ours_s_per_bar: float) -> Iterator[tuple[str, str, str]]:
    """Peers that need another environment, each in a process of its own."""
    for name, target in (("backtesting_peer", ">= 500 x"), ("nautilus_peer", ">= 5 000 x")):
        done = subprocess.run(
            [python, "-m", f"benchmarks.peers.{name}", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            continue
        for line in done.stdout.splitlines():
            row = json.loads(line)
            per_bar = row["ns_per_bar"] * 1e-9
            yield f"{name.removesuffix('_peer')}, a bar", f"{per_bar * 1e6:.1f} us", ""
            yield f"{name.removesuffix('_peer')} / ours, a bar", f"{per_bar / ours_s_per_bar:,.0f} x", target


SWEEP = """
import json, re, sys, time
from pathlib import Path
started = time.perf_counter()
from basis_bt.sweeps.engine import sweep
imported = time.perf_counter()
raw, runs, engine = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
if engine == "ray":
    import ray
    ray.init(log_to_driver=False, include_dashboard=False)
    sweep({**raw, "rule": {"entry": [0.1, 0.2], "exit": 0.0}, "name": "warm"}, runs=runs, engine=engine)
begun = time.perf_counter()
sweep(raw, runs=runs, engine=engine, overwrite=True, allow_large=True)
ended = time.perf_counter()
status = Path("/proc/self/status")
own = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
print(json.dumps({"import": imported - started, "sweep": ended - begun, "peak_mb": int(own[1]) / 1e3 if own else 0}))
"""


def run_sweep(n_trials: int, folder: str, *, engine: str = "threads", cache: str | None = None) -> dict[str, float]:
    """A sweep of the sample in a process of its own: seconds of import and sweep, peak memory."""
    raw = tomllib.loads((ROOT / "configs" / "sweep_sample.toml").read_text())
    raw["data"]["root"] = str(ROOT / "data" / "sample")
    raw["signal"]["hours"] = 72
    side = round(n_trials**0.5)
    raw["rule"]["entry"] |= {"steps": n_trials // side}
    raw["rule"]["exit"] = {"from": -0.05, "to": 0.019, "steps": side}
    raw["sweep"]["best"] = 1
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"BASIS_BT_CACHE": cache} if cache else {})
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, json.dumps(raw), folder, engine], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def sweep_rows(*, full: bool) -> Iterator[tuple[str, str, str]]:
    """Whole sweeps of the sample, files to parquet: cost by size, Ray, cold and cached start, memory."""
    with tempfile.TemporaryDirectory() as folder:
        cold = run_sweep(1_024, folder, cache=str(Path(folder) / "cache"))
        yield "cold: import", f"{cold['import']:.2f} s", ""
        yield "cold: compile and first 1 024 trials", f"{cold['sweep']:.0f} s", ""
        run_sweep(1_024, folder)
        small = min((run_sweep(1_024, folder) for _ in range(3)), key=lambda one: one["sweep"])
        cached = min((run_sweep(10_000, folder) for _ in range(3)), key=lambda one: one["sweep"])
        yield "cached: import and sweep of 10 000", f"{cached['import'] + cached['sweep']:.2f} s", "< 2.5 s"
        sizes = [(1_024, small), (10_000, cached)] + [
            (n, run_sweep(n, folder)) for n in ((102_400, 1_000_000) if full else (102_400,))
        ]
        for n, one in sizes:
            yield f"sweep of {n:,}: a trial, all told", f"{one['sweep'] / n * 1e6:.0f} us", ""
        yield f"peak memory at {sizes[-1][0]:,} trials", f"{sizes[-1][1]['peak_mb']:,.0f} MB", "< 1 000 MB"
        if importlib.util.find_spec("ray") is not None:
            on_ray = min((run_sweep(102_400, folder, engine="ray") for _ in range(2)), key=lambda one: one["sweep"])
            yield "Ray / threads, trials a second", f"{sizes[2][1]['sweep'] / on_ray['sweep']:.2f} x", ">= 0.8 x"


def main() -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="turns of each side; the best counts")
    parser.add_argument("--peer-python", action="append", default=[], help="interpreter of an environment with a peer")
    parser.add_argument("--only-engine", action="store_true", help="leave whole sweeps out")
    parser.add_argument("--full", action="store_true", help="a sweep of a million trials too")
    given = parser.parse_args()
    print(
        f"python {platform.python_version()}, polars {pl.__version__}, numpy {np.__version__}, "
        f"numba {numba.__version__}, {usable_threads()} cores, {platform.machine()}"
    )
    market, pairs = task.make_market(), task.threshold_pairs()
    print(check_answers(market, pairs), flush=True)

    def show(rows: Iterator[tuple[str, str, str]]) -> None:
        for what, figure, target in rows:
            print(f"{what:<40}{figure:>26}   {target}", flush=True)

    show(engine_rows(market, pairs, turns=given.turns))
    ours = Ours(market, pairs, with_funding=True)
    (seconds,) = best(lambda: ours.run(threads=1, repeats=4).seconds / 4, turns=3)
    for python in [sys.executable, *given.peer_python]:
        show(slow_peer_rows(python, seconds / len(pairs) / len(market.signal_apr)))
    if not given.only_engine:
        show(sweep_rows(full=given.full))
    return 0


if __name__ == "__main__":
    sys.exit(main())
