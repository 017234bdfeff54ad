"""Whether a replay through the live engine gave the ledger of the backtest: row by row, and to 1e-9 of the turnover."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from basis_bt.backtest.result import Result

TOLERANCE = 1e-9
TABLES = ("fills", "funding", "events", "trades", "equity", "attribution")
# columns of base units are compared in dollars, at the price beside them: what rounding leaves of a position is nothing
_PRICE_OF = {
    ("fills", "quantity_base"): "fill_price",
    ("fills", "position_change_base"): "fill_price",
    ("funding", "position_base"): "mark_price",
    ("attribution", "position_base"): "close_price",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableParity:
    """How two tables of one name differ.

    ``n_different`` counts rows with a difference over the tolerance, rows of one side alone included. ``largest_usd``
    is the largest difference of an amount, ``largest_frac`` the largest of all: of amounts as a share of the turnover,
    of other numbers relative to themselves, infinite for words, times and nulls that differ.
    """

    table: str
    n_backtest: int
    n_replay: int
    n_different: int
    largest_usd: float
    largest_frac: float
    first_difference: str | None

    @property
    def is_equal(self) -> bool:
        """Whether there is nothing over the tolerance."""
        return self.n_different == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The verdict over all tables; amounts are measured by ``scale_usd``, the turnover (at least the capital)."""

    tables: tuple[TableParity, ...]
    scale_usd: float

    @property
    def is_equal(self) -> bool:
        """Whether the two ledgers are the same."""
        return all(one.is_equal for one in self.tables)

    def frame(self) -> pl.DataFrame:
        """One row a table."""
        return pl.DataFrame(
            {
                "table": [one.table for one in self.tables],
                "n_backtest": [one.n_backtest for one in self.tables],
                "n_replay": [one.n_replay for one in self.tables],
                "n_different": [one.n_different for one in self.tables],
                "largest_usd": [one.largest_usd for one in self.tables],
                "largest_frac": [one.largest_frac for one in self.tables],
                "first_difference": pl.Series([one.first_difference for one in self.tables], dtype=pl.String),
            }
        )

    def __str__(self) -> str:
        verdict = "the same ledger" if self.is_equal else "NOT the same ledger"
        lines = [f"{verdict}, to {TOLERANCE:g} of {self.scale_usd:,.2f} USD of turnover"]
        for one in self.tables:
            rows = (
                f"{one.n_backtest} rows" if one.n_backtest == one.n_replay else f"{one.n_backtest}|{one.n_replay} rows"
            )
            found = "equal" if one.is_equal else f"{one.n_different} differ, first {one.first_difference}"
            lines.append(f"  {one.table:<12}{rows:>14}  largest difference {one.largest_usd:.3e} USD  {found}")
        return "\n".join(lines)


def compare(backtest: Result, replay: Result) -> Parity:
    """Fills, funding, events, trades, and cash, equity and books by bar of a run beside those of its replay.

    Settlements at which nothing was held are left out: a venue says nothing of them.
    """
    fills, config = backtest.tables["fills"], backtest.manifest["config"]
    scale_usd = max(float(fills["notional_usd"].sum()), float(config["size"]["capital_usd"]))
    sides = [{name: _rows(one.tables[name], name) for name in TABLES} for one in (backtest, replay)]
    return Parity(
        tables=tuple(_compare(name, sides[0][name], sides[1][name], scale_usd) for name in TABLES),
        scale_usd=scale_usd,
    )


def _rows(table: pl.DataFrame, name: str) -> pl.DataFrame:
    return table.filter(pl.col("position_base") != 0.0) if name == "funding" else table


def _compare(name: str, ours: pl.DataFrame, theirs: pl.DataFrame, scale_usd: float) -> TableParity:
    n, columns = min(ours.height, theirs.height), [one for one in ours.columns if one != "trial"]
    off, largest_usd = np.zeros((n, len(columns))), 0.0
    for k, column in enumerate(columns):
        one, other = ours[column][:n], theirs[column][:n]
        if not one.dtype.is_float():
            off[:, k] = np.where(one.ne_missing(other).to_numpy(), np.inf, 0.0)
            continue
        a, b = (side.cast(pl.Float64).fill_null(float("nan")).to_numpy() for side in (one, other))
        difference = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
        worth = _worth_usd(name, column, ours[:n])
        with np.errstate(divide="ignore", invalid="ignore"):
            frac = difference * worth / scale_usd if worth is not None else difference / np.fmax(np.abs(a), np.abs(b))
        off[:, k] = np.where(difference == 0.0, 0.0, np.where(np.isnan(frac), np.inf, frac))
        if worth is not None and n:
            largest_usd = max(largest_usd, float(np.nan_to_num(difference * worth, nan=np.inf).max()))
    is_different = off > TOLERANCE
    rows = np.flatnonzero(is_different.any(axis=1))
    first = None
    if len(rows):
        column = columns[int(np.flatnonzero(is_different[rows[0]])[0])]
        one_row, other_row = (side.row(int(rows[0]), named=True) for side in (ours, theirs))
        first = f"row {rows[0]} ({one_row[_time_of(name)]}): {column} is {one_row[column]!r} and {other_row[column]!r}"
    elif ours.height != theirs.height:
        longer, side = (ours, "backtest") if ours.height > theirs.height else (theirs, "replay")
        first = f"row {n} ({longer.row(n, named=True)[_time_of(name)]}): only in the {side}"
    return TableParity(
        table=name,
        n_backtest=ours.height,
        n_replay=theirs.height,
        n_different=len(rows) + abs(ours.height - theirs.height),
        largest_usd=largest_usd,
        largest_frac=float(off.max(initial=0.0)),
        first_difference=first,
    )


def _worth_usd(table: str, column: str, rows: pl.DataFrame) -> np.ndarray | float | None:
    """Dollars of one unit of a column; None for what is no amount."""
    if column.endswith("_usd"):
        return 1.0
    price = _PRICE_OF.get((table, column))
    return None if price is None else rows[price].to_numpy()


def _time_of(table: str) -> str:
    return "entry_ts" if table == "trades" else "ts"
