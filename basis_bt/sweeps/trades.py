"""The round trips of configurations that share a market, for what metrics of whole trials do not tell."""

from collections.abc import Iterable, Iterator

import polars as pl

from basis_bt.backtest.engine import simulate
from basis_bt.backtest.prepare import configured_signal, prepare
from basis_bt.core.models import Config
from basis_bt.ledger.tables import fills_table, trades_table
from basis_bt.sweeps.cells import Cells


def trades_of(configs: Iterable[Config]) -> Iterator[pl.DataFrame]:
    """The trades of each configuration as ``run`` has them, with ``entry_notional_usd``; files are read once.

    The notional of an entry is that of one leg, the combo's reference (its first spot leg, else its first leg): the
    quantity that stayed, at the price the entry was decided at.
    """
    cells = Cells(warmup=lambda config: [configured_signal(config)])
    for config in configs:
        panel, combo = cells.panel(config), config.combo
        prepared = prepare(config, panel=panel)
        rows = prepared.empty_rows()
        totals, _ = simulate(prepared, rows)
        entries = (
            fills_table(panel, rows, totals)
            .filter((pl.col("action") == "entry") & (pl.col("leg") == combo.reference))
            .group_by("trade")
            .agg(pl.col("arrival_price").first())
        )
        ratio = abs(combo.legs[combo.reference].ratio)
        trades = trades_table(panel, rows, totals).join(entries, on="trade", how="left", maintain_order="left")
        notional_usd = pl.col("quantity_base") * ratio * pl.col("arrival_price")
        yield trades.with_columns(entry_notional_usd=notional_usd).drop("arrival_price")
