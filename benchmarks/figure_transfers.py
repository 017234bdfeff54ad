"""Draw one price path twice: with transfers that take no time, and with transfers that take six hours.

    python benchmarks/figure_transfers.py docs/transfers.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl

import basis_bt

COLOURS = {0: "#0072b2", 6: "#d55e00"}


def configuration(hours: int) -> dict:
    """Long ETH on one venue, short its perpetual on the other at 20x, always held, on the synthetic sample."""
    return {
        "name": f"transfers of {hours} h",
        "data": {"root": "data/sample", "start": "2024-01-02T00:00Z", "end": "2025-01-01T00:00Z"},
        "combo": {
            "legs": [
                {"instrument": "spot:binance:ETH-USDT", "ratio": 1.0},
                {"instrument": "perp:bybit:ETH-USDT", "ratio": -1.0},
            ]
        },
        "signal": {"name": "sql", "sql": "close_0 * 0 + 1"},
        "rule": {"entry": 0.5, "exit": -1.0},
        "size": {"leverage": 20.0, "lots": "none", "allocation": 0.95},
        "wallets": {
            "mode": "segregated",
            "rebalance_below": 0.05,
            "transfer_hours": hours,
            "transfer_min_usd": 1000.0,
        },
    }


def main() -> int:
    """Run both, draw equity and the cash of the short's wallet, and print the numbers of the page."""
    figure, axes = plt.subplots(2, 1, figsize=(10, 6.2), sharex=True, layout="constrained")
    for hours, colour in COLOURS.items():
        result = basis_bt.run(configuration(hours))
        metrics = result.metrics.row(0, named=True)
        short = result.tables["wallets"].filter(pl.col("wallet") == "bybit")
        position = result.attribution.filter(pl.col("leg") == 1)
        worth = short["cash_usd"] + position["position_base"] * position["close_price"]
        died = result.events.filter(pl.col("event") == "liquidation")["ts"]
        label = f"{hours} h: {metrics['n_liquidations']} liquidations, {metrics['total_return']:+.1%}"
        axes[0].plot(result.equity["ts"], result.equity["equity_usd"] / 1e6, color=colour, linewidth=1.1, label=label)
        axes[1].plot(result.equity["ts"], worth / 1e6, color=colour, linewidth=0.9)
        for ts in died:
            axes[0].axvline(ts, color=colour, linewidth=0.7, linestyle=":")
        resized = result.events.filter(pl.col("event") == "resize").height
        print(f"{label}, {resized} resizes, least margin ratio {metrics['min_margin_ratio']:.4f}")
    axes[0].set_title("One price path, two speeds of transfers (synthetic sample, ETH, 20x)", loc="left", weight="bold")
    axes[0].set_ylabel("equity, m USD")
    axes[1].set_ylabel("equity of the short's wallet, m USD")
    axes[0].legend(frameon=False, loc="upper left")
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color="#e6e6e6")
    figure.savefig(Path(sys.argv[1]), dpi=120)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
