"""Which wallet of a book dies first, and at what price.

All prices move together by one factor, and each wallet is asked where its margin equity meets its maintenance: in
closed form, tier by tier (``kernels/liquidation.py``).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.backtest.book import Book, book_at
from basis_bt.backtest.result import Result
from basis_bt.core.config import build_config
from basis_bt.store.folder import StoredRun, load_run

LARGEST_FACTOR = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stress:
    """A book under stress.

    ``wallets``: ``wallet``, ``cash_usd``, ``equity_usd`` and ``maintenance_usd`` of its margin, ``margin_ratio``,
    ``factor_down`` and ``factor_up``, the factors on all prices at which it dies (null: never; 1: dead already).
    ``legs``: ``wallet``, ``instrument``, ``position_base``, ``price`` and ``notional_usd`` at the close, ``price_down``
    and ``price_up`` at which its wallet dies.
    """

    ts: datetime
    wallets: pl.DataFrame
    legs: pl.DataFrame
    book: Book

    def first(self, direction: str) -> str | None:
        """The wallet that dies first when prices go ``"down"`` or ``"up"``; None if none ever does."""
        factor = pl.col(f"factor_{direction}")
        dying = self.wallets.filter(factor.is_not_null()).sort((factor - 1.0).abs(), maintain_order=True)
        return dying["wallet"][0] if dying.height else None

    def surplus(self, factors: np.ndarray) -> pl.DataFrame:
        """Margin equity less maintenance, ``surplus_usd``, of each wallet with a margined position at each factor."""
        from basis_bt.kernels.margin import wallet_surplus_usd

        book = self.book
        rows = [
            {"wallet": name, "factor": float(factor), "surplus_usd": wallet_surplus_usd(
                book.cash_usd[w], book.position_base, book.weight[w], book.is_margined[w], book.notional_usd,
                book.price * factor, book.floor_usd, book.mmr, book.amount_usd,
            )}
            for w, name in enumerate(book.wallets) if book.is_at_risk[w]
            for factor in factors
        ]  # fmt: skip
        return pl.DataFrame(rows, schema={"wallet": pl.String, "factor": pl.Float64, "surplus_usd": pl.Float64})


def stress(source: Any, *, at: str | datetime | None = None, largest_factor: float = LARGEST_FACTOR) -> Stress:
    """Where each wallet of a run's book dies when all prices fall, and when all prices rise.

    The book is that of a bar's end: positions after its fills, trade closes, the margin tiers in force on its day (also
    where the run itself tests no margin). A loan is not among the wallets: what all prices do alike leaves its health
    as it is.

    Parameters
    ----------
    source : a ``Result``, a run folder, or what ``run`` takes (a TOML path, nested dicts, a ``Config``), which is run
    at : the bar that holds this instant; without it the bar with the smallest margin ratio, else the last one held
    largest_factor : how far up to look; downwards prices go to zero

    Raises
    ------
    ConfigError
        If nothing is held at that time, or it is not in the run.
    """
    result = _result(source)
    book = book_at(build_config(result.manifest["config"]), result.tables, at=at)
    factors = _factors(book, largest_factor)
    equity_usd = book.cash_usd + (book.weight * book.position_base * book.price).sum(axis=1)
    wallets = pl.DataFrame(
        {
            "wallet": book.wallets,
            "cash_usd": book.cash_usd,
            "equity_usd": equity_usd,
            "maintenance_usd": _maintenance_usd(book),
            "margin_ratio": _or_null(equity_usd, book.margined_usd),
            "factor_down": pl.Series(factors[:, 0], nan_to_null=True),
            "factor_up": pl.Series(factors[:, 1], nan_to_null=True),
        }
    )
    of_leg = factors[book.wallet_of] * book.price[:, None]
    legs = pl.DataFrame(
        {
            "wallet": [book.wallets[wallet] for wallet in book.wallet_of],
            "instrument": [str(instrument) for instrument in book.instruments],
            "position_base": book.position_base,
            "price": book.price,
            "notional_usd": np.abs(book.position_base) * book.price,
            "price_down": pl.Series(of_leg[:, 0], nan_to_null=True),
            "price_up": pl.Series(of_leg[:, 1], nan_to_null=True),
        }
    )
    return Stress(ts=book.ts, wallets=wallets, legs=legs, book=book)


def _result(source: Any) -> Result | StoredRun:
    """What ``stress`` was handed, as something with a manifest and tables."""
    if isinstance(source, Result | StoredRun):
        return source
    if isinstance(source, str | Path) and Path(source).is_dir():
        return load_run(Path(source))
    from basis_bt.backtest.engine import run

    return run(source)


def _factors(book: Book, largest_factor: float) -> np.ndarray:
    from basis_bt.kernels.liquidation import stress_factors

    factors = stress_factors(
        book.cash_usd, book.position_base, book.weight, book.is_margined, book.notional_usd, book.price,
        book.floor_usd, book.mmr, book.amount_usd, largest_factor,
    )  # fmt: skip
    factors[~book.is_at_risk] = np.nan
    return factors


def _maintenance_usd(book: Book) -> list[float]:
    from basis_bt.kernels.margin import wallet_maintenance_usd

    tiers = (book.floor_usd, book.mmr, book.amount_usd)
    return [
        wallet_maintenance_usd(book.position_base, is_margined, book.notional_usd, book.price, *tiers)
        for is_margined in book.is_margined
    ]


def _or_null(numerator: np.ndarray, denominator: np.ndarray) -> pl.Series:
    with np.errstate(divide="ignore", invalid="ignore"):
        return pl.Series(np.where(denominator > 0.0, numerator / denominator, np.nan), nan_to_null=True)
