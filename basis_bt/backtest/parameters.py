"""From a configuration and a panel to the structs of the kernels."""

import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import ON_CHAIN, Instrument
from basis_bt.core.models import Config, PerLeg
from basis_bt.core.rulebook import contract_size, days_of_change, exchange, is_coin_margined, lot_and_minimum
from basis_bt.core.units import US_PER_DAY, bars_up, parse_hours, parse_instant
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import (
    ATOMICITIES,
    FILL_MODELS,
    ComboParams,
    FillParams,
    Market,
    RuleParams,
    SizeParams,
)


def by_leg(value: Any, instrument: Instrument, *, key: str, default: float | None = None) -> Any:
    """The value of one leg: by its instrument, else by its kind, else the default of the key."""
    if not isinstance(value, dict):
        return value
    found = value.get(str(instrument), value.get(instrument.kind, default))
    if found is None:
        raise ConfigError(f"{key}: nothing is given for {instrument}", fix=f'add "{instrument.kind}" or "{instrument}"')
    return found


def is_given(given: PerLeg | None, instrument: Instrument) -> bool:
    """Whether a value by leg says something of an instrument."""
    if isinstance(given, dict):
        return bool({str(instrument), instrument.kind} & given.keys())
    return given is not None


def combo_params(config: Config) -> ComboParams:
    """Ratios, and the share of its notional that each leg ties up."""
    return ComboParams(
        ratio=np.array([leg.ratio for leg in config.combo.legs]),
        margin_weight=np.array([_margin_weight(config, leg) for leg in range(len(config.combo.legs))]),
        reference_leg=config.combo.reference,
    )


def _margin_weight(config: Config, leg: int) -> float:
    """1 for what is paid in full, one over the leverage on margin, 0 for an inverse leg on its coin, -1 for a loan."""
    instrument, ratio = config.combo.instruments[leg], config.combo.legs[leg].ratio
    if instrument.kind == "lending":
        return 1.0 if ratio > 0 else -1.0
    if not instrument.is_margined:
        return 1.0
    return 0.0 if backing_spot(config, leg) else 1.0 / config.size.leverage


def backing_spot(config: Config, leg: int) -> list[int]:
    """The spot legs whose coin an inverse leg has for margin: those of the same coin in its wallet."""
    instruments, wallet_of = config.combo.instruments, wallets_of(config)
    if not is_coin_margined(instruments[leg]):
        return []
    return [
        other
        for other, one in enumerate(instruments)
        if one.kind == "spot" and one.base == instruments[leg].base and wallet_of[other] == wallet_of[leg]
    ]


def wallets_of(config: Config) -> list[int]:
    """The wallet of each leg: one for all, or one per exchange in the order of the legs."""
    venues = [exchange(one.venue) for one in config.combo.instruments]
    if config.wallets.mode == "pooled":
        return [0] * len(venues)
    names = list(dict.fromkeys(venues))
    return [names.index(venue) for venue in venues]


def borrowed_legs(config: Config) -> list[int]:
    """The spot legs that can be short: written so, or in a combo that is also traded the other way round."""
    legs = config.combo.legs
    return [
        leg for leg, one in enumerate(legs) if one.parsed.kind == "spot" and (one.ratio < 0 or config.rule.reverse)
    ]


def pays_gas(config: Config) -> bool:
    """Whether fills of a configuration pay for gas."""
    on_chain = any(one.kind in ON_CHAIN for one in config.combo.instruments)
    return on_chain and config.costs.gas_units > 0.0 and config.costs.gas_gwei != 0.0


def rule_days(config: Config, table: str) -> list[date]:
    """The first day of a run and the days within it on which rows of a table come into force at its venues."""
    first = parse_instant(config.data.start).date()
    last = parse_instant(config.data.end).date()
    venues = {one.venue for one in config.combo.instruments}
    changes = {day for venue in venues for day in days_of_change(venue, table, after=first, until=last)}
    return [first, *sorted(changes)]


def row_of_bar(days: list[date], ts_us: np.ndarray) -> np.ndarray:
    """The index of the latest of the days at or before each stamp."""
    starts = np.array([midnight_us(day) for day in days])
    return np.maximum(np.searchsorted(starts, ts_us, side="right") - 1, 0).astype(np.int64)


def midnight_us(day: date) -> int:
    """The beginning of a day, UTC, in epoch microseconds."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days * US_PER_DAY


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
    """Sizing with the rulebook's lots, and a sentence for each instrument whose lot the rulebook does not know.

    A coin-margined contract without a lot of its own is traded in whole contracts of dollars; linear ones are traded in
    parts of a contract at most venues.
    """
    on = parse_instant(config.data.start).date()
    lot, lots_usd, minimums, flags = 0.0, [], [], []
    for leg in config.combo.legs:
        lot_base, lot_usd, minimum_usd = 0.0, 0.0, 0.0
        if config.size.lots == "venue":
            known, contract = lot_and_minimum(leg.parsed, on=on), contract_size(leg.parsed, on=on)
            if known is not None:
                lot_base, minimum_usd = known
            elif contract.known and contract.unit == "usd":
                lot_usd = contract.size
            elif leg.parsed.kind not in ON_CHAIN:
                flags.append(f"no lot or minimum notional is known for {leg.instrument}: traded in any quantity")
        lot = max(lot, lot_base / abs(leg.ratio))
        lots_usd.append(lot_usd)
        minimums.append(minimum_usd)
    size = config.size
    params = SizeParams(
        capital_usd=size.capital_usd,
        allocation=size.allocation,
        compounding=size.compounding,
        lot=lot,
        lot_usd=np.array(lots_usd),
        min_notional_usd=np.array(minimums),
    )
    return params, flags


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


