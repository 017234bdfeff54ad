"""What options cost: one trial with each of them against the plain pooled one, in turns in one process.

    python benchmarks/bench_options.py                  # the sample of this repository
    python benchmarks/bench_options.py --market DIR     # a market folder with BTC-USDT on binance and bybit
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from basis_bt.backtest.prepare import prepare
from basis_bt.core.config import build_config
from basis_bt.kernels.status import OK
from basis_bt.kernels.trial import run_trial

FULL_TARGET = 4.0
WALLETS = {"mode": "segregated", "transfer_hours": 1, "transfer_fee_usd": 1.0, "rebalance_below": 0.1}
FILLS = {"model": "volume", "volume_cap": 0.05, "reject_probability": 0.1, "atomicity": "match",
         "rollback_delay_hours": 1, "rollback_penalty_bps": 2.0, "max_cost_bps": 50.0,
         "latency": {"spot": 0, "perp": 1}}  # fmt: skip
BESIDE = {
    "rule": {"entry": 0.08, "exit": 0.04, "reverse": True},
    "costs": {"half_spread_bps": 0.5, "fee_tier": "volume", "borrow_apr": 0.05},
    "wallets": {"cash_yield_apr": 0.04},
    "scenarios": [{"kind": "depeg", "quote": "USDT", "start": "2024-06-01T00:00Z", "factor": 0.99},
                  {"kind": "adl", "instrument": "perp:binance:BTC-USDT", "start": "2024-08-05T00:00Z", "share": 0.5}],
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain, pooled, certain": {},
    "options given, none of them binding": {"fills": {"atomicity": "match", "max_cost_bps": 1e4}},
    "uncertain fills": {"fills": FILLS},
    "margin of one wallet": {"wallets": {"margin": "venue", "spot_collateral": 0.95}},
    "wallets, transfers, rebalancing, margin": {"wallets": WALLETS},
    "currencies, deleveraging, yield, borrowing, volume tiers": BESIDE,
    "all of it": {"fills": FILLS, "wallets": {**WALLETS, "cash_yield_apr": 0.04},
                  **{key: BESIDE[key] for key in ("rule", "costs", "scenarios")}},
}  # fmt: skip


def trial(market: Path, options: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    """A trial ready to be run again and again, and its number of bars."""
    raw = {
        "data": {"root": str(market), "start": "2024-01-05T00:00Z", "end": "2024-12-31T00:00Z"},
        "combo": {"legs": [{"instrument": "spot:bybit:BTC-USDT", "ratio": 1.0},
                           {"instrument": "perp:binance:BTC-USDT", "ratio": -1.0}]},
        "signal": {"name": "funding_apr", "hours": 24},
        "rule": {"entry": 0.08, "exit": 0.04},
        "costs": {"half_spread_bps": 0.5},
        "size": {"lots": "none"},
        **options,
    }  # fmt: skip
    config = build_config(raw)
    ready = prepare(config)
    rows = ready.empty_rows()

    def run() -> Any:
        totals = run_trial(ready.market, *ready.parameters, rows)
        assert totals.status == OK
        return totals

    return run, ready.panel.n_bars


def main() -> int:
    """Print the table; exit code 1 if the full set costs more than its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--market", type=Path, default=Path("data/sample"))
    market = parser.parse_args().market
    trials = {name: trial(market, options) for name, options in CASES.items()}
    best = dict.fromkeys(trials, float("inf"))
    for _ in range(60):
        for name, (run, _) in trials.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    plain = best["plain, pooled, certain"]
    for name, seconds in best.items():
        n_bars = trials[name][1]
        print(f"{1e3 * seconds:7.3f} ms  {1e9 * seconds / n_bars:5.0f} ns a bar  {seconds / plain:5.2f} x  {name}")
    return 0 if best["all of it"] <= FULL_TARGET * plain else 1


if __name__ == "__main__":
    raise SystemExit(main())
