"""Wallets, margin and loans of a configuration as kernels take them."""

import math
from datetime import date
from typing import NamedTuple

import numpy as np

from basis_bt.backtest.parameters import backing_spot, by_leg, is_given, row_of_bar, rule_days, wallets_of
from basis_bt.core.models import Config
from basis_bt.core.rulebook import MarginTiers, liquidation_fee_bps, margin_tiers
from basis_bt.core.units import US_PER_DAY, bars_up, parse_hours, parse_instant, to_us
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import WalletParams


class Weights(NamedTuple):
    """What each leg counts for in each wallet's margin equity, ``(n_wallets, n_legs)``, and which it has on margin.

    ``held`` is that of a position above zero, ``owed`` of one below: spot that is owed counts in full.
    """

    wallet_of: np.ndarray
    held: np.ndarray
    owed: np.ndarray
    is_margined: np.ndarray


def wallet_weights(config: Config) -> Weights:
    """Margined legs count in full, spot by its haircut, in full where an inverse leg of its coin has it for margin."""
    instruments, haircut = config.combo.instruments, config.wallets.spot_collateral
    wallet_of = np.array(wallets_of(config), dtype=np.int64)
    own = wallet_of[None, :] == np.arange(wallet_of.max() + 1)[:, None]
    is_margined = np.array([leg.is_margined for leg in instruments])
    is_spot = np.array([leg.kind == "spot" for leg in instruments])
    by_leg = np.where(is_margined, 1.0, np.where(is_spot, haircut or 0.0, 0.0))
    if haircut is None:
        for leg in range(len(instruments)):
            by_leg[backing_spot(config, leg)] = 1.0
    return Weights(
        wallet_of=wallet_of,
        held=np.where(own, by_leg, 0.0),
        owed=np.where(own, np.where(is_spot, 1.0, by_leg), 0.0),
        is_margined=own & is_margined,
    )


def wallet_params(
    config: Config, panel: Panel, *, halts_us: list[tuple[int, int]] | None = None
) -> tuple[WalletParams, list[str]]:
    """Wallets by exchange with their margin tiers, and the sentences for a manifest about rows that stand in.

    Parameters
    ----------
    halts_us : spans ``[from, to)`` in which no transfer leaves, beside those of the configuration
    """
    wallets, instruments = config.wallets, config.combo.instruments
    weights = wallet_weights(config)
    days = rule_days(config, "margin") if wallets.is_tested else [parse_instant(config.data.start).date()]
    days = sorted({*days, *(rule_days(config, "liquidation") if wallets.is_tested else [])})
    flags: list[str] = []
    tiers: list[list[MarginTiers | None]] = []
    for day in days:
        tiers.append([
            margin_tiers(leg, on=day, price_usd=float(price)) if wallets.is_tested and leg.is_margined else None
            for leg, price in zip(instruments, panel.open_price[0], strict=True)
        ])  # fmt: skip
        flags += [one.flag for one in tiers[-1] if one is not None and one.flag]
    if wallets.is_tested:
        flags += [
            f"{leg}: margin is tested on trade bars, whose wicks overstate liquidations; load its mark bars"
            for leg, source in zip(instruments, panel.margin_source, strict=True)
            if leg.is_margined and source == "trade"
        ]
    floor, mmr, amount = tier_tables(tiers)
    spans = [(to_us(parse_instant(a)), to_us(parse_instant(b))) for a, b in wallets.transfer_halts]
    halted = np.zeros(panel.n_bars, dtype=np.bool_)
    for first_us, last_us in [*spans, *(halts_us or [])]:
        halted |= (panel.ts_us >= first_us) & (panel.ts_us < last_us)
    params = WalletParams(
        wallet_of=weights.wallet_of,
        is_split=wallets.mode == "segregated",
        is_tested=wallets.is_tested,
        weight=weights.held,
        short_weight=weights.owed,
        is_margined=weights.is_margined,
        margin_row=row_of_bar(days, panel.ts_us),
        floor_usd=floor,
        mmr=mmr,
        amount_usd=amount,
        liquidation_fee_bps=np.array([_liquidation_fees(config, on=day) for day in days]),
        transfer_bars=bars_up(parse_hours(wallets.transfer_hours), bar_us=config.data.bar_us),
        transfer_fee_usd=wallets.transfer_fee_usd,
        transfer_min_usd=wallets.transfer_min_usd,
        transfer_daily_cap_usd=math.inf if wallets.transfer_daily_cap_usd is None else wallets.transfer_daily_cap_usd,
        is_halted=halted,
        day=panel.ts_us // US_PER_DAY,
        rebalance_below=wallets.rebalance_below or 0.0,
    )
    return params, list(dict.fromkeys(flags))


def tier_tables(tiers: list[list[MarginTiers | None]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiers by row and leg, padded to one length with infinite floors; one of nothing for a leg without a test."""
    n_tiers = max([len(one.floor_usd) for row in tiers for one in row if one is not None], default=1)
    floor = np.full((len(tiers), len(tiers[0]), n_tiers), np.inf)
    mmr, amount = np.zeros_like(floor), np.zeros_like(floor)
    floor[:, :, 0] = 0.0
    for row, legs in enumerate(tiers):
        for leg, one in enumerate(legs):
            if one is not None:
                n = len(one.floor_usd)
                floor[row, leg, :n], mmr[row, leg, :n], amount[row, leg, :n] = one.floor_usd, one.mmr, one.amount_usd
    return floor, mmr, amount


def _liquidation_fees(config: Config, *, on: date) -> list[float]:
    """Liquidation fee of each leg in bps; the venue's where nothing is said, 0 for what has no margin or no test."""
    given = config.wallets.liquidation_fee_bps
    out = []
    for leg in config.combo.instruments:
        if not (leg.is_margined and config.wallets.is_tested):
            out.append(0.0)
        elif not is_given(given, leg):
            out.append(liquidation_fee_bps(leg, on=on))
        else:
            out.append(by_leg(given, leg, key="wallets.liquidation_fee_bps"))
    return out
