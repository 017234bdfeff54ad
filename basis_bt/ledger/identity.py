"""The books must balance: checked on every run, per leg and in total, at every bar."""

import numpy as np

from basis_bt.core.errors import BooksError
from basis_bt.core.units import from_us
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import BOOK_SIGNS, Recorded, Totals

TOLERANCE = 1e-9


def check_books(panel: Panel, rows: Recorded, totals: Totals, *, capital_usd: float) -> float:
    """Largest residual in USD, over bars and legs, of cash and value against the parts they are split into.

    Two routes lead to a leg's result: what it paid and received plus what it is worth, and the sum of delta, basis,
    funding and costs. A third, the wallet's cash, must agree with both in total.

    Raises
    ------
    BooksError
        If a residual exceeds 1e-9 of the turnover, naming the bar, the leg and the amount.
    """
    by_parts = rows.books @ np.array(BOOK_SIGNS)
    by_cash = rows.leg_cash_usd + rows.position_base * panel.close_price
    legs = np.abs(by_parts - by_cash)
    total = np.abs(rows.equity_usd - capital_usd - by_parts.sum(axis=1))
    tolerance = TOLERANCE * max(totals.turnover_usd, capital_usd)
    residual = np.column_stack([legs, total])
    if np.isnan(residual).any() or residual.max() > tolerance:
        bar, column = np.unravel_index(np.nan_to_num(residual, nan=np.inf).argmax(), residual.shape)
        names = [*map(str, panel.instruments), "total"]
        raise BooksError(
            f"the books do not balance: {residual[bar, column]:.3e} USD is unexplained",
            where={"leg": names[column], "ts": from_us(int(panel.ts_us[bar])).isoformat(), "tolerance_usd": tolerance},
            fix="this is a defect of basis_bt; please report the configuration",
        )
    return float(residual.max())
