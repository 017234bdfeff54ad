"""Replay one scenario of each kind onto one real carry, and print what each changes.

    python benchmarks/scenarios_table.py MARKET_FOLDER
"""

import sys
from typing import Any

import basis_bt

PERP = "perp:binance:BTC-USDT"
DAY, LATER = "2024-03-04T00:00Z", "2024-03-06T00:00Z"
RALLY = {"kind": "price_path", "coin": "BTC", "factor": 1.3, "start": DAY, "end": "2024-03-08T00:00Z"}
HALT = {"kind": "transfer_halt", "start": DAY, "end": "2024-03-08T00:00Z"}
EVENTS: list[tuple[str, list[dict[str, Any]]]] = [
    ("nothing", []),
    ("half of the short is deleveraged", [{"kind": "adl", "instrument": PERP, "share": 0.5, "start": DAY}]),
    ("Binance is out for two days", [{"kind": "outage", "venue": "binance", "start": DAY, "end": LATER}]),
    ("USDT falls to 0.95 and recovers in two days", [
        {"kind": "depeg", "quote": "USDT", "factor": 0.95, "recover": True, "start": DAY, "end": LATER}]),
    ("shorts pay 0.3 % at each settlement of two days", [
        {"kind": "funding_spike", "instrument": PERP, "rate": -0.003, "start": DAY, "end": LATER}]),
    ("BTC rises by 30 % more in four days", [RALLY]),
    ("the same, and no transfer leaves", [RALLY, HALT]),
    ("the same in six hours", [RALLY | {"end": "2024-03-04T06:00Z"}]),
    ("the perp alone is up to 30 % higher for six hours", [
        {"kind": "price_path", "instrument": PERP, "factor": 1.3, "recover": True,
         "start": DAY, "end": "2024-03-04T06:00Z"}]),
]  # fmt: skip


def configuration(root: str, scenarios: list[dict[str, Any]]) -> dict[str, Any]:
    """Long BTC on Bybit, short on Binance at 5x, cash moved at a margin ratio of 10 %, transfers of 2 h."""
    return {
        "data": {"root": root, "start": "2024-01-01T00:00Z", "end": "2024-07-01T00:00Z"},
        "combo": {"legs": [{"instrument": "spot:bybit:BTC-USDT", "ratio": 1.0}, {"instrument": PERP, "ratio": -1.0}]},
        "signal": {"name": "funding_apr", "hours": 72},
        "rule": {"entry": 0.05, "exit": -0.10},
        "size": {"leverage": 5.0, "allocation": 0.9},
        "wallets": {"mode": "segregated", "rebalance_below": 0.10, "transfer_hours": 2, "transfer_fee_usd": 10.0},
        "scenarios": scenarios,
    }


def main(root: str) -> int:
    """Print the table."""
    print("| what happens | PnL | against nothing | max drawdown | liquidations | least margin |")
    print("|---|---|---|---|---|---|")
    plain = None
    for what, events in EVENTS:
        row = basis_bt.run(configuration(root, events)).metrics.row(0, named=True)
        plain = row["pnl_usd"] if plain is None else plain
        print(
            f"| {what} | {row['pnl_usd']:,.0f} | {row['pnl_usd'] - plain:+,.0f} | {100 * row['max_drawdown']:.2f} % "
            f"| {row['n_liquidations']} | {100 * row['min_margin_ratio']:.1f} % |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
