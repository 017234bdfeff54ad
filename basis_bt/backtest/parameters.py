"""From a configuration and a panel to the structs of the kernels."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.instruments import Instrument
from basis_bt.core.models import Config, PerLeg
from basis_bt.core.rulebook import fee_bps, lot_and_minimum
from basis_bt.core.units import US_PER_DAY, bars_up, parse_hours, parse_instant
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import ComboParams, CostParams, FillParams, Market, RuleParams, SizeParams
from basis_bt.market.cost_table import read_cost_table


def by_leg(value: PerLeg, instrument: Instrument, *, key: str, default: float | None = None) -> float:
    """The value of one leg: by its instrument, else by its kind, else the default of the key."""
    if not isinstance(value, dict):
        return value
    found = value.get(str(instrument), value.get(instrument.kind, default))
    if found is None:
        raise ConfigError(f"{key}: nothing is given for {instrument}", fix=f'add "{instrument.kind}" or "{instrument}"')
    return found


def resolved_fees_bps(config: Config) -> list[float]:
    """Fee of each leg in bps, taker or maker as configured; the venue's base tier where nothing is said."""
    costs, on = config.costs, parse_instant(config.data.start).date()
    key = f"{costs.liquidity}_fee_bps"
    given: PerLeg | None = getattr(costs, key)
    out = []
    for instrument in config.combo.instruments:
        missing = given is None or (isinstance(given, dict) and not {str(instrument), instrument.kind} & given.keys())
        if missing:
            out.append(fee_bps(instrument, liquidity=costs.liquidity, on=on))
        else:
            out.append(by_leg(given, instrument, key=f"costs.{key}"))  # type: ignore[arg-type]
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


def fill_params(config: Config) -> FillParams:
    """Latency in bars, rounded up."""
    return FillParams(latency_bars=bars_up(parse_hours(config.fills.latency), bar_us=config.data.bar_us))


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
        close_price=panel.close_price,
        volume_before=panel.volume_before,
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
