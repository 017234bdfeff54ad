"""How fast a year of minute bars is imported, against Polars alone reading the same files and writing parquet.

    python benchmarks/bench_import.py [--symbols N] [--months N] [--repeats N]

Makes zipped Vision klines of 1 m bars (10 symbols x 12 months, 5.3 million rows) in a temporary folder, checks that
what is imported equals what was written to the bit, and times both sides in one process each. Bare Polars reads every
zip in memory with the types given, writes one parquet a file, and checks nothing; it is timed with all twelve columns
and with the six that are kept. Exits with 1 below 60 % of the speed of the first.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

MINUTE_US = 60_000_000
WANTED = 0.60
BASES = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LINK", "AVAX", "DOT", "NEAR")


def minute_bars(seed: int, *, months: int) -> pl.DataFrame:
    """A random walk with a tick of one cent, from January 2024."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    end = datetime(2024 + months // 12, months % 12 + 1, 1, tzinfo=UTC)
    ts = pl.datetime_range(start, end, "1m", closed="left", eager=True).dt.cast_time_unit("ms")
    rng, n = np.random.default_rng(seed), len(ts)
    cents = 4_000_000 + np.cumsum(rng.integers(-800, 801, n))
    opens = np.concatenate([cents[:1], cents[:-1]])
    high = np.maximum(opens, cents) + rng.integers(0, 500, n)
    low = np.minimum(opens, cents) - rng.integers(0, 500, n)
    columns = {name: values / 100 for name, values in (("open", opens), ("high", high), ("low", low), ("close", cents))}
    return pl.DataFrame({"ts": ts} | columns | {"volume": rng.integers(0, 10**9, n) / 10**5})


def make(folder: Path, *, symbols: int, months: int) -> None:
    """Write the zips."""
    from vision import export_vision

    for seed, base in enumerate(BASES[:symbols]):
        bars = minute_bars(seed, months=months)
        export_vision(folder, "perp", f"{base}USDT", bars, product="um", step_us=MINUTE_US)


def check(market: Path, *, symbols: int, months: int) -> int:
    """Number of rows, all equal to what was made, to the bit."""
    rows = 0
    for seed, base in enumerate(BASES[:symbols]):
        made = minute_bars(seed, months=months)
        found = pl.read_parquet(market / "perp" / "binance" / f"{base}-USDT.parquet")
        assert found.equals(made), f"{base} differs"
        rows += len(found)
    return rows


def bare(folder: Path, out: Path, *, all_columns: bool) -> None:
    """Polars alone: unzip in memory, read, write."""
    from vision import KLINE_HEADER

    whole = ("open_time", "close_time", "count", "ignore")
    schema = {name: pl.Int64() if name in whole else pl.Float64() for name in KLINE_HEADER}
    columns = None if all_columns else list(range(6))
    out.mkdir()
    for path in sorted(folder.rglob("*.zip")):
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            data = archive.read(archive.namelist()[0])
        frame = pl.read_csv(data, has_header=True, schema=schema, columns=columns)
        frame.write_parquet(out / f"{path.stem}.parquet")


def peak_mb() -> float:
    """The most memory this process has held; its parent's, which getrusage counts in, is left out (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def work(way: str, folder: Path, out: Path) -> None:
    """One side, timed in a process of its own; prints seconds and the peak of memory."""
    from basis_bt.market.importing import import_sources

    before_mb = peak_mb()
    begun = time.perf_counter()
    if way == "import":
        report = import_sources([folder], out)
        assert not report.has_problems, report.frame
    else:
        bare(folder, out, all_columns=way == "bare")
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "idle_mb": before_mb}))


def main() -> int:
    """Make, check, time, and print a line for each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs=3, metavar=("WAY", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]), Path(arguments.work[2]))
        return 0
    size = {"symbols": arguments.symbols, "months": arguments.months}
    ways = ("bare", "bare six columns", "import")
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "vision")
        make(folder, **size)
        rows = 0
        for repeat in range(arguments.repeats):
            for way in ways:
                out = Path(temporary, f"{way} {repeat}")
                command = [sys.executable, __file__, "--work", way, str(folder), str(out)]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                if way not in best or answer["seconds"] < best[way]["seconds"]:
                    best[way] = answer
                if way == "import" and repeat == 0:
                    rows = check(out, **size)
                subprocess.run(["rm", "-r", str(out)], check=True)
    versions = f"Python {platform.python_version()}, polars {pl.__version__}, {os.cpu_count()} cores"
    print(f"{rows:,} rows, equal to the bit; {versions}")
    for way in ways:
        took, memory = best[way]["seconds"], f"peak {best[way]['peak_mb']:.0f} MB ({best[way]['idle_mb']:.0f} before)"
        share = best["bare"]["seconds"] / took
        print(f"{way:<17} {took:6.2f} s  {rows / took / 1e6:5.2f} M rows/s  {share:6.1%} of bare  {memory}")
    return 0 if best["bare"]["seconds"] / best["import"]["seconds"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
