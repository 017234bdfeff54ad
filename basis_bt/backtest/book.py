"""The book of a run at one bar's end, made of the tables that a run leaves: what each wallet has and must keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from basis_bt.backtest.wallet_parameters import tier_tables, wallet_weights
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.models import Config
from basis_bt.core.rulebook import is_coin_margined, margin_tiers
from basis_bt.core.units import from_us, parse_instant, to_us


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Book:
    """Wallets and legs at one bar's end; the arrays are those of ``kernels/margin.py``.

    ``cash_usd`` is by wallet; ``wallet_of``, ``position_base``, ``price`` and ``notional_usd`` by leg; ``weight`` and
    ``is_margined`` are ``(n_wallets, n_legs)``, the tiers ``(n_legs, n_tiers)``.
    """

    ts: datetime
    wallets: list[str]
    instruments: list[Instrument]
    wallet_of: np.ndarray
    cash_usd: np.ndarray
    position_base: np.ndarray
    price: np.ndarray
    notional_usd: np.ndarray
    weight: np.ndarray
    is_margined: np.ndarray
    floor_usd: np.ndarray
    mmr: np.ndarray
    amount_usd: np.ndarray

    @property
    def margined_usd(self) -> np.ndarray:
        """Notional of the margined legs of each wallet."""
        at_price = np.abs(self.position_base) * self.price
        return (self.is_margined * np.where(self.notional_usd >= 0.0, self.notional_usd, at_price)).sum(axis=1)

    @property
    def is_at_risk(self) -> np.ndarray:
        """Which wallets hold a margined position."""
        return (self.is_margined & (self.position_base != 0.0)).any(axis=1)


def book_at(config: Config, tables: Mapping[str, pl.DataFrame], *, at: str | datetime | None = None) -> Book:
    """The book at the end of the bar that holds ``at``; without it, of the bar with the smallest margin ratio.

    Margin equity counts a margined leg in full, spot by the haircut of the configuration (in full where it is owed, or
    where it backs an inverse contract on its coin in the same wallet and no haircut is given), nothing else. The fixed
    notional of an inverse leg is the dollars it was opened at.

    Raises
    ------
    ConfigError
        If nothing is held at that time, or it is not in the run.
    """
    instruments = config.combo.instruments
    n_legs = len(instruments)
    attribution = tables["attribution"]
    ts_us = attribution["ts"].to_physical().to_numpy()[::n_legs]
    position = attribution["position_base"].to_numpy().reshape(-1, n_legs)
    price = attribution["close_price"].to_numpy().reshape(-1, n_legs)
    wallets, cash = _cash(config, tables)
    wallet_of, held, owed, is_margined = wallet_weights(config)
    weights = np.where(position[:, None, :] < 0.0, owed, held)
    notional = np.full(position.shape, -1.0)
    for leg, instrument in enumerate(instruments):
        if is_coin_margined(instrument):
            notional[:, leg] = _opened_usd(tables["fills"].filter(pl.col("leg") == leg), ts_us)
    at_price = np.abs(position) * price
    equity = cash + (weights * (position * price)[:, None, :]).sum(axis=2)
    margined = (is_margined * np.where(notional >= 0.0, notional, at_price)[:, None, :]).sum(axis=2)
    bar = _bar(ts_us, position, equity, margined, at=at)
    on = from_us(int(ts_us[bar])).date()
    tiers = [
        margin_tiers(leg, on=on, price_usd=float(usd)) if leg.is_margined else None
        for leg, usd in zip(instruments, price[bar], strict=True)
    ]
    floor, mmr, amount = (table[0] for table in tier_tables([tiers]))
    return Book(
        ts=from_us(int(ts_us[bar])),
        wallets=wallets,
        instruments=instruments,
        wallet_of=wallet_of,
        cash_usd=cash[bar].copy(),
        position_base=position[bar].copy(),
        price=price[bar].copy(),
        notional_usd=notional[bar].copy(),
        weight=weights[bar].copy(),
        is_margined=is_margined,
        floor_usd=floor,
        mmr=mmr,
        amount_usd=amount,
    )


def _cash(config: Config, tables: Mapping[str, pl.DataFrame]) -> tuple[list[str], np.ndarray]:
    """Names of the wallets, and their cash ``(n_bars, n_wallets)``."""
    if "wallets" not in tables:
        return ["all"], tables["equity"]["cash_usd"].to_numpy().reshape(-1, 1)
    names = tables["wallets"]["wallet"].unique(maintain_order=True).to_list()
    return names, tables["wallets"]["cash_usd"].to_numpy().reshape(-1, len(names))


def _opened_usd(fills: pl.DataFrame, ts_us: np.ndarray) -> np.ndarray:
    """Dollars that the position of one leg was opened at, at the end of each bar."""
    held, opened, steps = 0.0, 0.0, [0.0]
    for change, fill_price in fills.select("position_change_base", "fill_price").iter_rows():
        if held * change < 0.0:
            opened *= 1.0 - min(1.0, abs(change / held))
        else:
            opened += abs(change) * fill_price
        held += change
        steps.append(opened)
    n_before = np.searchsorted(fills["ts"].to_physical().to_numpy(), ts_us, side="right")
    return np.array(steps)[n_before]


def _bar(
    ts_us: np.ndarray, position: np.ndarray, equity: np.ndarray, margined: np.ndarray, *, at: str | datetime | None
) -> int:
    held = (position != 0.0).any(axis=1)
    if at is not None:
        bar = int(np.searchsorted(ts_us, to_us(parse_instant(at)), side="right")) - 1
        step_us = int(ts_us[1] - ts_us[0]) if len(ts_us) > 1 else 0
        if bar < 0 or (bar == len(ts_us) - 1 and to_us(parse_instant(at)) >= int(ts_us[-1]) + max(step_us, 1)):
            span = f"{from_us(int(ts_us[0])).isoformat()} to {from_us(int(ts_us[-1])).isoformat()}"
            raise ConfigError(f"{at} is not in the run", where={"bars": span}, fix="choose a time in it")
        if not held[bar]:
            near = np.flatnonzero(held)
            hint = "the run never holds anything" if not len(near) else _nearest(ts_us, near, bar)
            raise ConfigError(f"nothing is held at {at}", where={"bar": from_us(int(ts_us[bar])).isoformat()}, fix=hint)
        return bar
    if not held.any():
        raise ConfigError("the run never holds anything", fix="loosen its rule, or look at another run")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(margined > 0.0, equity / margined, np.inf).min(axis=1)
    return int(ratio.argmin()) if np.isfinite(ratio).any() else int(np.flatnonzero(held)[-1])


def _nearest(ts_us: np.ndarray, held: np.ndarray, bar: int) -> str:
    nearest = int(held[np.abs(held - bar).argmin()])
    return f"the nearest bar with a position is {from_us(int(ts_us[nearest])).isoformat()}"
