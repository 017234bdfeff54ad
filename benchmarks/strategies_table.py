"""Run every named strategy on the market folder given, and write the table of docs/strategies.md.

    python benchmarks/strategies_table.py data/market data/market_8h [docs/strategies.md]

The second folder has the bars of 8 h and the coin-margined perp that trend_gated_carry needs. With a page named, the
table between its two marks is replaced; the table is printed in any case. A strategy that cannot be run is left out of
the table, named on stderr with the reason, and the exit code is 1.
"""

import sys
from pathlib import Path

import basis_bt
from basis_bt.core.config import load_config
from basis_bt.core.errors import BasisBtError
from basis_bt.core.strategy_book import strategy_names, strategy_path

MARKS = ("<!-- results -->", "<!-- end of results -->")
ON_8H = ("trend_gated_carry",)
TIERS = {"no": 1e-9, "low": 4.86, "medium": 10.44, "high": 16.38}  # bps of a round trip: what the entry asks for
COSTS = ("fees_usd", "slippage_usd", "rollback_usd", "borrow_usd", "transfer_usd", "delivery_fee_usd")
COLUMNS = ("period", "return", "APR on capital", "max drawdown", "Sharpe", "trades", "funding", "other income", "costs")


def variants(name: str) -> list[tuple[str, dict[str, str]]]:
    """Rows of a strategy: what is added to its name, and what each sets.

    The arbitrage has a row a cost tier; the futures one for each stretch of contracts without a hole between them.
    """
    if name == "random_maturity_arb":
        return [
            (f", {tier} costs", {"rule.entry": str(bps), "costs.taker_fee_bps": str(bps / 4)})
            for tier, bps in TIERS.items()
        ]
    if name == "quarterly_cash_and_carry":
        return [("", {}), ("", {"data.start": "2025-01-01T00:00:00Z", "data.end": "2025-11-15T01:00:00Z"})]
    return [("", {})]


def row(label: str, result: basis_bt.Result) -> str:
    """One line of the table, dollars in thousands."""
    metrics = result.metrics.row(0, named=True)
    costs = sum(metrics.get(name) or 0.0 for name in COSTS)
    other = metrics["pnl_usd"] - metrics["funding_usd"] + costs
    span = result.manifest["span"]
    sharpe = "–" if metrics["sharpe"] is None else f"{metrics['sharpe']:.1f}"
    cells = [
        label,
        f"{span['first_bar'][:7]} to {span['last_bar'][:7]}",
        f"{metrics['total_return']:.1%}",
        f"{metrics['apr_on_capital']:.1%}",
        f"{metrics['max_drawdown']:.2%}",
        sharpe,
        str(metrics["n_trades"]),
        *(f"{value / 1e3:,.0f}" for value in (metrics["funding_usd"], other, costs)),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run, print, and put the table into the page if one is named."""
    hourly, eighths, *page = sys.argv[1:]
    lines, failed = ["| strategy | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"], False
    for name in strategy_names():
        root = eighths if name in ON_8H else hourly
        for ending, settings in variants(name):
            label = f"`{name}`{ending}"
            try:
                result = basis_bt.run(load_config(strategy_path(name), {"data.root": root, **settings}))
            except BasisBtError as error:
                print(f"{label}: {error}", file=sys.stderr)
                failed = True
                continue
            lines.append(row(label, result))
    table = "\n".join(lines)
    print(table)
    if page:
        text = Path(page[0]).read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        Path(page[0]).write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
