"""From a configuration and a panel to the structs of the kernels."""

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.instruments import Instrument
from basis_bt.core.models import Config, PerLeg
from basis_bt.core.rulebook import MarginTiers, fee_bps, liquidation_fee_bps, lot_and_minimum, margin_tiers
from basis_bt.core.units import US_PER_DAY, bars_up, parse_hours, parse_instant, to_us
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import (
    ATOMICITIES,
    FILL_MODELS,
    ComboParams,
    CostParams,
    FillParams,
    Market,
    RuleParams,
    SizeParams,
    WalletParams,
)
from basis_bt.market.cost_table import read_cost_table


def by_leg(value: Any, instrument: Instrument, *, key: str, default: float | None = None) -> Any:
    """The value of one leg: by its instrument, else by its kind, else the default of the key."""
    if not isinstance(value, dict):
        return value
    found = value.get(str(instrument), value.get(instrument.kind, default))
    if found is None:
        raise ConfigError(f"{key}: nothing is given for {instrument}", fix=f'add "{instrument.kind}" or "{instrument}"')
    return found


def resolved_fees_bps(config: Config) -> list[float]:
    """Fee of each leg in bps, taker or maker as configured; the venue's base tier where nothing is said."""
    return fees_bps(config, liquidity=config.costs.liquidity)


def fees_bps(config: Config, *, liquidity: str) -> list[float]:
    """Taker or maker fee of each leg in bps; the venue's base tier where nothing is said."""
    costs, on = config.costs, parse_instant(config.data.start).date()
    key = f"{liquidity}_fee_bps"
    given: PerLeg | None = getattr(costs, key)
    out = []
    for instrument in config.combo.instruments:
        missing = given is None or (isinstance(given, dict) and not {str(instrument), instrument.kind} & given.keys())
        if missing:
            out.append(fee_bps(instrument, liquidity=liquidity, on=on))
        else:
            out.append(by_leg(given, instrument, key=f"costs.{key}"))
    return out


def combo_params(config: Config) -> ComboParams:
    """Ratios, and the share of its notional that each leg ties up."""
    legs = config.combo.legs
    weights = [1.0 / config.size.leverage if leg.parsed.is_perp else 1.0 for leg in legs]
    return ComboParams(
        ratio=np.array([leg.ratio for leg in legs]),
        margin_weight=np.array(weights),
        reference_leg=config.combo.reference,
    )


def rule_params(config: Config) -> RuleParams:
    """The rule with its durations in bars, rounded up; -1 and NaN are options that are off."""
    rule, bar_us = config.rule, config.data.bar_us

    def bars(hours: float | str) -> int:
        return bars_up(parse_hours(hours), bar_us=bar_us)

    return RuleParams(
        entry=rule.entry,
        exit=rule.exit,
        reverse=rule.reverse,
        min_hold_bars=bars(rule.min_hold_hours),
        max_hold_bars=-1 if rule.max_hold_hours is None else bars(rule.max_hold_hours),
        cooldown_bars=bars(rule.cooldown_hours),
        stop_loss_pct=np.nan if rule.stop_loss_pct is None else rule.stop_loss_pct,
        max_basis_bps=np.nan if rule.max_basis_bps is None else rule.max_basis_bps,
    )


def size_params(config: Config) -> tuple[SizeParams, list[str]]:
    """Sizing with the rulebook's lots, and a sentence for each instrument whose lot the rulebook does not know."""
    on = parse_instant(config.data.start).date()
    lot, minimums, flags = 0.0, [], []
    for leg in config.combo.legs:
        known = lot_and_minimum(leg.parsed, on=on) if config.size.lots == "venue" else (0.0, 0.0)
        if known is None:
            flags.append(f"no lot or minimum notional is known for {leg.instrument}: traded in any quantity")
            known = (0.0, 0.0)
        lot = max(lot, known[0] / abs(leg.ratio))
        minimums.append(known[1])
    size = config.size
    params = SizeParams(
        capital_usd=size.capital_usd,
        allocation=size.allocation,
        compounding=size.compounding,
        lot=lot,
        min_notional_usd=np.array(minimums),
    )
    return params, flags


def cost_params(config: Config, panel: Panel) -> CostParams:
    """Costs by leg. Raises DataError if impact is asked for and a leg has no volume at all."""
    costs, instruments = config.costs, config.combo.instruments
    fees = resolved_fees_bps(config)
    coefs = [by_leg(costs.impact_coef_bps, leg, key="costs.impact_coef_bps", default=0.0) for leg in instruments]
    for index, (instrument, coef) in enumerate(zip(instruments, coefs, strict=True)):
        if coef != 0.0 and np.isnan(panel.volume_before[:, index]).all():
            raise DataError(
                f"impact needs volumes, and {instrument} has none",
                where={"file": panel.series[index].path},
                fix="set costs.impact_coef_bps to 0 for it, e.g. { spot = 0.0, perp = 1.0 }",
            )
    in_base = [
        fee / 1e4 if costs.spot_fee_in == "base" and not leg.is_perp and fee > 0.0 else 0.0
        for fee, leg in zip(fees, instruments, strict=True)
    ]
    edges, table, row = _buckets(config, panel)
    return CostParams(
        half_spread_bps=np.array(
            [by_leg(costs.half_spread_bps, leg, key="costs.half_spread_bps", default=0.0) for leg in instruments]
        ),
        fee_bps=np.array(fees),
        base_fee_frac=np.array(in_base),
        bucket_usd=edges,
        bucket_bps=table,
        bucket_row=row,
        impact_coef_bps=np.array(coefs),
        impact_exponent=costs.impact_exponent,
    )


def fill_params(config: Config, *, trial: int = 0) -> FillParams:
    """How orders fill, durations in bars rounded up; a limit that is not given is infinite."""
    fills, bar_us = config.fills, config.data.bar_us
    instruments = config.combo.instruments
    latencies = [by_leg(fills.latency, leg, key="fills.latency", default=0.0) for leg in instruments]
    return FillParams(
        latency_bars=np.array([bars_up(parse_hours(one), bar_us=bar_us) for one in latencies], dtype=np.int64),
        model=FILL_MODELS.index(fills.model),
        volume_cap=fills.volume_cap,
        fill_probability=fills.fill_probability,
        offset_bps=fills.offset_bps,
        maker_fee_bps=np.array(
            fees_bps(config, liquidity="maker") if fills.model == "maker" else np.zeros(len(instruments))
        ),
        reject_probability=fills.reject_probability,
        atomicity=ATOMICITIES.index(fills.atomicity),
        rollback_delay_bars=bars_up(parse_hours(fills.rollback_delay_hours), bar_us=bar_us),
        rollback_penalty_bps=fills.rollback_penalty_bps,
        max_cost_bps=math.inf if fills.max_cost_bps is None else fills.max_cost_bps,
        max_volume_share=math.inf if fills.max_volume_share is None else fills.max_volume_share,
        max_spread_bps=math.inf if fills.max_spread_bps is None else fills.max_spread_bps,
        seed=fills.seed,
        trial=trial,
    )


def wallet_params(config: Config, panel: Panel) -> tuple[WalletParams, list[str]]:
    """Wallets by venue with their margin tiers, and the sentences for a manifest about rows that stand in."""
    wallets, bar_us, instruments = config.wallets, config.data.bar_us, config.combo.instruments
    on = parse_instant(config.data.start).date()
    is_split = wallets.mode == "segregated"
    venues = list(dict.fromkeys(leg.venue for leg in instruments)) if is_split else ["all"]
    wallet_of = np.array([venues.index(leg.venue) if is_split else 0 for leg in instruments], dtype=np.int64)
    own = wallet_of[None, :] == np.arange(len(venues))[:, None]
    is_perp = np.array([leg.is_perp for leg in instruments])
    weight = np.where(own, np.where(is_perp, 1.0, wallets.spot_collateral or 0.0), 0.0)
    flags: list[str] = []
    tiers: list[MarginTiers | None] = [None] * len(instruments)
    if wallets.is_tested:
        prices = panel.open_price[0]
        tiers = [
            margin_tiers(leg, on=on, price_usd=float(price)) if leg.is_perp else None
            for leg, price in zip(instruments, prices, strict=True)
        ]
        flags = [one.flag for one in tiers if one is not None and one.flag]
        flags += [
            f"{leg}: margin is tested on trade bars, whose wicks overstate liquidations; load its mark bars"
            for leg, source in zip(instruments, panel.margin_source, strict=True)
            if leg.is_perp and source == "trade"
        ]
    n_tiers = max([len(one.floor_usd) for one in tiers if one is not None], default=1)
    floor = np.full((len(tiers), n_tiers), np.inf)
    mmr, amount = np.zeros((2, len(tiers), n_tiers))
    floor[:, 0] = 0.0
    for leg, one in enumerate(tiers):
        if one is not None:
            n = len(one.floor_usd)
            floor[leg, :n], mmr[leg, :n], amount[leg, :n] = one.floor_usd, one.mmr, one.amount_usd
    starts = [(to_us(parse_instant(a)), to_us(parse_instant(b))) for a, b in wallets.transfer_halts]
    halted = np.zeros(panel.n_bars, dtype=np.bool_)
    for first_us, last_us in starts:
        halted |= (panel.ts_us >= first_us) & (panel.ts_us < last_us)
    params = WalletParams(
        wallet_of=wallet_of,
        is_split=is_split,
        is_tested=wallets.is_tested,
        weight=np.ascontiguousarray(weight),
        is_margined=np.ascontiguousarray(own & is_perp),
        floor_usd=floor,
        mmr=mmr,
        amount_usd=amount,
        liquidation_fee_bps=np.array(_liquidation_fees(config)),
        transfer_bars=bars_up(parse_hours(wallets.transfer_hours), bar_us=bar_us),
        transfer_fee_usd=wallets.transfer_fee_usd,
        transfer_min_usd=wallets.transfer_min_usd,
        transfer_daily_cap_usd=math.inf if wallets.transfer_daily_cap_usd is None else wallets.transfer_daily_cap_usd,
        is_halted=halted,
        day=panel.ts_us // US_PER_DAY,
        rebalance_below=wallets.rebalance_below or 0.0,
    )
    return params, flags


def _liquidation_fees(config: Config) -> list[float]:
    """Liquidation fee of each leg in bps; the venue's where nothing is said, 0 for spot and without a test."""
    given, on = config.wallets.liquidation_fee_bps, parse_instant(config.data.start).date()
    out = []
    for leg in config.combo.instruments:
        if not (leg.is_perp and config.wallets.is_tested):
            out.append(0.0)
        elif given is None or (isinstance(given, dict) and not {str(leg), leg.kind} & given.keys()):
            out.append(liquidation_fee_bps(leg, on=on))
        else:
            out.append(by_leg(given, leg, key="wallets.liquidation_fee_bps"))
    return out


def market_struct(panel: Panel, signal: np.ndarray, basis_bps: np.ndarray) -> tuple[Market, np.ndarray]:
    """Arrays of the panel as the kernels take them, and the order its settlements were put in."""
    parts = panel.settlements
    empty = np.empty(0)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts.values()]) if parts else empty

    leg = np.concatenate([np.full(len(part.raw_us), index) for index, part in parts.items()] or [empty]).astype(
        np.int64
    )
    bar = -(-(column("paid_us").astype(np.int64) - panel.ts_us[0]) // panel.bar_us)
    inside = np.flatnonzero((bar >= 0) & (bar < panel.n_bars))
    order = inside[np.lexsort((column("paid_us")[inside], leg[inside], bar[inside]))]
    first = np.searchsorted(bar[order], np.arange(panel.n_bars + 1), side="left")
    market = Market(
        open_price=panel.open_price,
        high_price=panel.high_price,
        low_price=panel.low_price,
        close_price=panel.close_price,
        volume=panel.volume,
        volume_before=panel.volume_before,
        margin_open=panel.margin_open,
        margin_high=panel.margin_high,
        margin_low=panel.margin_low,
        tradable=panel.tradable,
        missing=panel.missing,
        signal=signal,
        basis_bps=basis_bps,
        first_settlement=first.astype(np.int64),
        settlement_leg=leg[order],
        funding_rate=column("funding_rate")[order],
        mark_price=column("mark_price")[order],
    )
    return market, order


def _buckets(config: Config, panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges ``(n_legs, n_edges)``, bps ``(n_legs, n_days, n_edges)`` and the day of each bar."""
    costs, n_legs = config.costs, len(panel.instruments)
    if costs.bucket_table is None:
        edges = np.tile(np.array(costs.bucket_usd, dtype=np.float64), (n_legs, 1))
        table = np.tile(np.array(costs.bucket_bps, dtype=np.float64), (n_legs, 1, 1))
        return edges, table, np.zeros(panel.n_bars, dtype=np.int64)
    path = Path(costs.bucket_table)
    pairs = []
    for instrument in panel.instruments:
        pair = costs.bucket_pairs.get(str(instrument), costs.bucket_pairs.get(instrument.kind))
        if pair is None:
            raise ConfigError(
                f"costs.bucket_pairs: nothing is given for {instrument}", fix="name its pair of the table"
            )
        pairs.append(pair)
    return _day_table(path, pairs, panel)


def _day_table(path: Path, pairs: list[str], panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = read_cost_table(path).filter(pl.col("pair").is_in(list(set(pairs))))
    absent = set(pairs) - set(rows["pair"])
    if absent:
        raise DataError(
            f"the cost table has no rows for {', '.join(sorted(absent))}",
            where={"file": path},
            fix="see its column pair",
        )
    wide = rows.pivot("size_usd", index=["pair", "day"], values="cost_bps", aggregate_function="len")
    if (
        wide.select(pl.exclude("pair", "day")).null_count().sum_horizontal().item()
        or (wide[:, 2:] != 1).to_numpy().any()
    ):
        raise DataError(
            "every pair and day of a cost table must have each size once",
            where={"file": path},
            fix="fill or drop the rest",
        )
    sizes = np.sort(rows["size_usd"].unique().to_numpy())
    days = rows["day"].unique().sort()
    cube = np.empty((len(pairs), len(days), len(sizes)))
    for leg, pair in enumerate(pairs):
        mine = rows.filter(pl.col("pair") == pair).sort("day", "size_usd")
        if mine.height != len(days) * len(sizes):
            raise DataError(
                f"{pair} has other days or sizes than the rest", where={"file": path}, fix="use one grid for all"
            )
        cube[leg] = mine["cost_bps"].to_numpy().reshape(len(days), len(sizes))
    day_us = np.array([_midnight_us(day) for day in days.to_list()])
    row = np.maximum(np.searchsorted(day_us, panel.ts_us, side="right") - 1, 0).astype(np.int64)
    return np.tile(sizes, (len(pairs), 1)), cube, row


def _midnight_us(day: date) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days * US_PER_DAY
