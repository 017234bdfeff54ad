"""How long a run takes and what it needs, after a check that it is right.

    python benchmarks/bench_run.py [--market DIR] [--repeats N]

Without ``--market`` the sample of the repository is used. See ``benchmarks/README.md`` for what each row means.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_CONFIG = ROOT / "configs" / "sample_btc_carry.toml"
LEGS = (("spot", "spot:binance:BTC-USDT", 1.0), ("perp", "perp:binance:BTC-USDT", -1.0))
FILE = "binance/BTC-USDT.parquet"
CHECKED_HOURS = (2896, 4344)  # of the sample: from 30 April to 29 June, with a gap of the spot leg
WINDOW_HOURS = 72
HOUR_US = 3_600_000_000

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def configuration(market: Path, **data: str) -> dict[str, Any]:
    """The sample's configuration over another market folder: its whole history, or the span given."""
    from basis_bt.core.config import read_toml

    config = read_toml(SAMPLE_CONFIG)
    whole = (
        {} if market == ROOT / "data" / "sample" else {"start": "2021-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
    )
    config["data"] |= {"root": str(market)} | whole | data
    return config


# ------------------------------------------------------------------------------------------------------- correctness


def oracle_equity() -> tuple[list[int], list[float]]:
    """Stamps and equity of two months of the sample by the scalar oracle of the tests, from the files alone."""
    import oracles

    sample = ROOT / "data" / "sample"
    origin_us = 1_704_067_200_000_000  # 2024-01-01
    start_us, end_us = (origin_us + hours * HOUR_US for hours in CHECKED_HOURS)

    def rows(series: str, *columns: str) -> list[tuple]:
        frame = pl.read_parquet(sample / series / FILE, columns=["ts", *columns])
        frame = frame.with_columns(pl.col("ts").dt.cast_time_unit("us").to_physical())
        return frame.filter(pl.col("ts").is_between(start_us - 240 * HOUR_US, end_us)).select("ts", *columns).rows()

    legs = [
        {
            "kind": kind,
            "ratio": ratio,
            "bars": rows(kind, "open", "high", "low", "close", "volume"),
            "step_us": HOUR_US,
            "mark_bars": rows("mark", "open", "close") if kind == "perp" else [],
            "mark_step_us": HOUR_US,
            "settlements": [(*row, None, None) for row in rows("funding", "rate")] if kind == "perp" else [],
            "lot": 1e-5 if kind == "spot" else 1e-3,
            "min_notional_usd": 5.0 if kind == "spot" else 100.0,
        }
        for kind, _, ratio in LEGS
    ]
    cost = {"half_spread_bps": 0.5, "fee_in_base": False, "bucket_usd": [], "bucket_bps": [], "impact_coef_bps": 0.0}
    off = ("min_hold_hours", "max_hold_hours", "cooldown_hours", "stop_loss_pct", "max_basis_bps")
    out = oracles.backtest(
        legs=legs,
        start_us=start_us,
        end_us=end_us,
        bar_us=HOUR_US,
        signal={"name": "funding_apr", "hours": WINDOW_HOURS},
        rule={"entry": 0.10, "exit": 0.02, "reverse": False} | dict.fromkeys(off),
        size={"capital_usd": 1_000_000.0, "allocation": 0.9, "leverage": 3.0, "compounding": True},
        costs=[cost | {"fee_bps": fee, "impact_exponent": 0.5} for fee in (10.0, 5.0)],
        fills={"latency_hours": 0.0},
    )
    assert len(out["trades"]) > 1, "the checked span has no trades"
    return out["ts_us"], out["equity"]


def check_against_oracle() -> float:
    """Largest relative difference of equity between ``run()`` and the oracle; an AssertionError if it is over 1e-9."""
    from basis_bt import run
    from basis_bt.core.units import from_us

    ts_us, theirs = oracle_equity()
    span = {"start": from_us(ts_us[0]).isoformat(), "end": from_us(ts_us[-1] + HOUR_US).isoformat()}
    equity = run(configuration(ROOT / "data" / "sample", **span)).equity
    assert equity["ts"].to_physical().to_list() == ts_us
    worst = float(np.max(np.abs(equity["equity_usd"].to_numpy() / np.array(theirs) - 1.0)))
    assert worst <= 1e-9, worst
    return worst


# ------------------------------------------------------------------------------------------------------------ timing


def best_ms(*functions: Callable[[], object], repeats: int) -> list[float]:
    """Best warm time of each function in ms; the functions take turns, so that a busy moment hits all of them."""
    best = [float("inf")] * len(functions)
    for turn in range(repeats + 1):
        for k, function in enumerate(functions):
            started = time.perf_counter()
            function()
            if turn:
                best[k] = min(best[k], (time.perf_counter() - started) * 1e3)
    return best


def prepared(market: Path) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Loading the panel, one trial with its metrics, and the number of bars."""
    from basis_bt.backtest.prepare import configured_signal, loader, prepare
    from basis_bt.core.config import build_config
    from basis_bt.kernels.metrics import trial_metrics
    from basis_bt.kernels.trial import run_trial

    config = build_config(configuration(market))
    ready = prepare(config)
    size, panel = ready.parameters.size, ready.panel

    def trial() -> Any:
        rows = ready.empty_rows()
        totals = run_trial(ready.market, *ready.parameters, rows)
        return trial_metrics(rows, totals, panel.close_price, size.capital_usd, panel.bar_hours)

    return loader(config, configured_signal(config)), trial, panel.n_bars


def bare_scan(market: Path) -> Callable[[], object]:
    """Reading the same columns of the same four files and nothing else."""
    columns = {
        "spot": ["ts", "open", "high", "low", "close", "volume"],
        "perp": ["ts", "open", "high", "low", "close", "volume"],
        "mark": ["ts", "open", "close"],
        "funding": ["ts", "rate", "interval_hours"],
    }
    return lambda: [pl.scan_parquet(market / s / FILE).select(names).collect() for s, names in columns.items()]


def whole_run(market: Path) -> Callable[[], object]:
    """``run()``: files, signal, trial, checked books, all tables, hashes of the inputs."""
    from basis_bt import run

    config = configuration(market)
    return lambda: run(config)


# ----------------------------------------------------------------------------------------------------- in subprocesses

CLI = "import sys; from basis_bt.cli.main import entry; code = entry(); sys.exit(code)"
FIRST_TRIAL = """
import sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from bench_run import prepared
_, trial, _ = prepared(Path({market!r}))
started = time.perf_counter(); trial(); print(time.perf_counter() - started)
"""
PEAK = """
import re, resource, sys
from pathlib import Path
from basis_bt import run
import json
run(json.loads(sys.argv[1]))
status = Path("/proc/self/status")
# ru_maxrss of a new process begins at that of its parent on Linux; VmHWM is its own
own = re.search(r"VmHWM:\\s+(\\d+)", status.read_text()) if status.exists() else None
unit = 1 if sys.platform == "darwin" else 1024
print((int(own[1]) * 1024 if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) / 1e6)
"""


def child(code: str, *arguments: str, cache: str | None = None) -> tuple[float, str]:
    """Wall seconds and output of Python code in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path} | ({"BASIS_BT_CACHE": cache} if cache else {})
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.perf_counter() - started, done.stdout


def best_child_s(*arguments: str, repeats: int) -> float:
    """Best warm wall time of a ``basis-bt`` command."""
    return min(child(CLI, *arguments)[0] for _ in range(repeats + 1))


@contextmanager
def sample_config_file(market: Path, folder: str) -> Iterator[str]:
    """A configuration file for the command line: the sample's own, or one with the market folder in it."""
    if market == ROOT / "data" / "sample":
        yield str(SAMPLE_CONFIG)
        return
    text = SAMPLE_CONFIG.read_text(encoding="utf-8")
    data = configuration(market)["data"]
    for key, old in (("root", "data/sample"), ("start", "2024-01-01T00:00:00Z"), ("end", "2024-12-31T00:00:00Z")):
        text = text.replace(f'"{old}"', json.dumps(data[key]))
    path = Path(folder) / "bench.toml"
    path.write_text(text, encoding="utf-8")
    yield str(path)


# ------------------------------------------------------------------------------------------------------------- report


def measure(market: Path, *, repeats: int) -> Iterator[tuple[str, str, str]]:
    """Rows of the table: what, the figure, the target."""
    load, trial, n_bars = prepared(market)
    yield "bars", f"{n_bars}", ""
    load_ms, bare_ms = best_ms(load, bare_scan(market), repeats=repeats)
    yield "load_panel", f"{load_ms:.1f} ms", ""
    yield "bare scan + collect", f"{bare_ms:.1f} ms", ""
    yield "load_panel / bare", f"{load_ms / bare_ms:.2f} x", "<= 3 x"
    trial_ms, run_ms = best_ms(trial, whole_run(market), repeats=repeats)
    yield "trial with metrics", f"{trial_ms:.2f} ms", "< 20 ms for 40 000 bars"
    yield "trial, per bar", f"{trial_ms * 1e6 / n_bars:.0f} ns", ""
    yield "run(), all tables", f"{run_ms:.0f} ms", ""
    with tempfile.TemporaryDirectory() as folder:
        code = FIRST_TRIAL.format(benchmarks=str(ROOT / "benchmarks"), market=str(market))
        cache = str(Path(folder) / "cache")
        yield "first trial, compiling", f"{float(child(code, cache=cache)[1]):.1f} s", ""
        yield "first trial, cached", f"{float(child(code, cache=cache)[1]):.2f} s", ""
        with sample_config_file(market, folder) as config:
            command = ("run", config, "--overwrite", "--runs", str(Path(folder) / "runs"))
            seconds = best_child_s(*command, repeats=2)
            bare_seconds = best_child_s(*command, "--no-report", repeats=2)
        target = "< 2 s" if market == ROOT / "data" / "sample" else ""
        yield "basis-bt run", f"{seconds:.2f} s", target
        yield "basis-bt run --no-report", f"{bare_seconds:.2f} s", ""
    yield "peak memory of run()", f"{float(child(PEAK, json.dumps(configuration(market)))[1]):.0f} MB", "< 500 MB"
    yield "basis-bt --help", f"{best_child_s('--help', repeats=4):.2f} s", "< 0.4 s"


def main() -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--market", type=Path, default=ROOT / "data" / "sample", help="market folder")
    parser.add_argument("--repeats", type=int, default=7, help="warm repetitions; the best counts")
    given = parser.parse_args()
    market = given.market.resolve()
    os.chdir(ROOT)
    print(
        f"python {platform.python_version()}, polars {pl.__version__}, numpy {np.__version__}, "
        f"numba {numba.__version__}, {os.cpu_count()} cores, {platform.machine()}"
    )
    print(f"equity equals the oracle's to {check_against_oracle():.1e}")
    for what, figure, target in measure(market, repeats=given.repeats):
        print(f"{what:<28}{figure:>12}   {target}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
