"""How long it takes to check, list and scan a whole market folder, beside bare polars reading the same files.

    python benchmarks/bench_check.py --market DIR
"""

import argparse
import time
from pathlib import Path

import polars as pl

from basis_bt.market.audit import audit
from basis_bt.market.catalogue import catalogue
from basis_bt.market.scan import scan

CHECK_SECONDS = 3.0


def best_s(call, *, repeats: int = 3) -> float:
    """Shortest of several times, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Print the table; exit code 1 if the check is over its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--market", type=Path, default=Path("data/sample"))
    root = parser.parse_args().market
    files = sorted(root.rglob("*.parquet"))
    rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in files)
    check_s = best_s(lambda: audit(root))
    table = {
        "bare polars reading every file": best_s(lambda: [pl.read_parquet(path) for path in files]),
        f"every check (target {CHECK_SECONDS:g} s)": check_s,
        "catalogue, from nothing": best_s(lambda: catalogue(root, refresh=True)),
        "catalogue, nothing changed": best_s(lambda: catalogue(root)),
        "scan": best_s(lambda: scan(root)),
    }
    print(f"{len(files)} files, {rows:,} rows, polars {pl.__version__}")
    for name, seconds in table.items():
        print(f"{seconds:8.3f} s  {name}")
    return 0 if check_s <= CHECK_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
