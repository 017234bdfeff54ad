"""Costs and fees of a configuration as kernels take them."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from basis_bt.backtest.parameters import by_leg, is_given, row_of_bar, rule_days
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.core.instruments import ON_CHAIN
from basis_bt.core.models import Config, PerLeg
from basis_bt.core.rulebook import exchange, fee_bps, fee_kind, fee_ladder
from basis_bt.core.units import parse_instant
from basis_bt.frames.panel import Panel
from basis_bt.kernels.structs import CostParams, Fees
from basis_bt.market.cost_table import read_cost_table


def resolved_fees_bps(config: Config) -> list[float]:
    """Fee of each leg in bps at the start of a run, taker or maker as configured, the venue's where nothing is said."""
    return _fees_on(config, parse_instant(config.data.start).date(), liquidity=config.costs.liquidity)


def one_way_bps(config: Config) -> list[float]:
    """Half spread and fee of each leg at the start, what a signal that estimates costs counts with."""
    spreads = (
        by_leg(config.costs.half_spread_bps, leg, key="costs.half_spread_bps", default=0.0)
        for leg in config.combo.instruments
    )
    return [spread + fee for spread, fee in zip(spreads, resolved_fees_bps(config), strict=True)]


def _fees_on(config: Config, on: date, *, liquidity: str) -> list[float]:
    costs, key = config.costs, f"{liquidity}_fee_bps"
    given: PerLeg | None = getattr(costs, key)
    out = []
    for instrument in config.combo.instruments:
        if is_given(given, instrument):
            out.append(by_leg(given, instrument, key=f"costs.{key}"))
        elif instrument.kind in ON_CHAIN:
            out.append(0.0)  # a pool's fee is part of its price; gas is charged apart
        else:
            tier = 0 if costs.fee_tier == "volume" else costs.fee_tier
            out.append(fee_bps(instrument, liquidity=liquidity, on=on, tier=tier))
    return out


def fees(config: Config, panel: Panel) -> Fees:
    """The fees in force on each day of a run, or the ladders that the trailing volume climbs.

    A fee that the configuration gives is in force on all days and at every volume.
    """
    costs, instruments = config.costs, config.combo.instruments
    is_by_volume = costs.fee_tier == "volume"
    tables = ("fees", "fee_tiers") if is_by_volume else ("fees",) if costs.fee_tier == 0 else ("fee_tiers",)
    days = sorted({day for table in tables for day in rule_days(config, table)})
    other = "maker" if config.fills.model == "maker" else costs.liquidity
    by_day = [_fees_on(config, day, liquidity=costs.liquidity) for day in days]
    maker_by_day = [_fees_on(config, day, liquidity=other) for day in days]
    volume, ladder, maker = _ladders(config, days, by_day, maker_by_day, maker_key=other)
    names = [f"{exchange(one.venue)} {fee_kind(one)}" for one in instruments]
    in_base = [costs.spot_fee_in == "base" and one.kind == "spot" for one in instruments]
    return Fees(
        fee_bps=np.array(by_day),
        maker_fee_bps=np.array(maker_by_day),
        row=row_of_bar(days, panel.ts_us),
        is_in_base=np.array(in_base),
        is_by_volume=is_by_volume,
        tier_volume_usd=volume,
        tier_fee_bps=ladder,
        tier_maker_fee_bps=maker,
        group=np.array([names.index(name) for name in names], dtype=np.int64),
        volume_30d_usd=costs.volume_30d_usd,
    )


def _ladders(
    config: Config, days: list[date], by_day: list[list[float]], maker_by_day: list[list[float]], *, maker_key: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes and fees ``(n_days, n_legs, n_tiers)``, padded with volumes never reached; one tier for a fee given."""
    costs, keys = config.costs, (config.costs.liquidity, maker_key)
    rows: list[list[list[tuple[float, ...]]]] = []
    for day, bps, maker_bps in zip(days, by_day, maker_by_day, strict=True):
        rows.append([])
        for leg, instrument in enumerate(config.combo.instruments):
            base = (bps[leg], maker_bps[leg])
            given = [is_given(getattr(costs, f"{key}_fee_bps"), instrument) for key in keys]
            climbs = costs.fee_tier == "volume" and instrument.kind not in ON_CHAIN
            own: list[tuple[float, ...]] = [(0.0, *base)]
            for step in fee_ladder(instrument, on=day) if climbs else []:
                if 0.0 < step.volume_usd < np.inf:
                    own.append((
                        step.volume_usd,
                        *(fee if is_given else getattr(step, f"{key}_bps")
                          for key, is_given, fee in zip(keys, given, base, strict=True)),
                    ))  # fmt: skip
            rows[-1].append(own)
    n_tiers = max(len(own) for legs in rows for own in legs)
    table = np.full((3, len(rows), len(rows[0]), n_tiers), np.inf)
    for row, legs in enumerate(rows):
        for leg, own in enumerate(legs):
            table[:, row, leg, : len(own)] = np.array(own).T
    volume, ladder_bps, maker_ladder_bps = (np.ascontiguousarray(part) for part in table)
    return volume, ladder_bps, maker_ladder_bps


def cost_params(config: Config, panel: Panel, fees: Fees) -> CostParams:
    """Costs by leg, with the fees of the first bar. Raises DataError if impact is asked for without any volume."""
    costs, instruments = config.costs, config.combo.instruments
    coefs = [by_leg(costs.impact_coef_bps, leg, key="costs.impact_coef_bps", default=0.0) for leg in instruments]
    for index, (instrument, coef) in enumerate(zip(instruments, coefs, strict=True)):
        if coef != 0.0 and np.isnan(panel.volume_before[:, index]).all():
            raise DataError(
                f"impact needs volumes, and {instrument} has none",
                where={"instrument": instrument},
                fix="set costs.impact_coef_bps to 0 for it, e.g. { spot = 0.0, perp = 1.0 }",
            )
    edges, table, row = _buckets(config, panel)
    first = fees.fee_bps[0]
    return CostParams(
        half_spread_bps=np.array(
            [by_leg(costs.half_spread_bps, leg, key="costs.half_spread_bps", default=0.0) for leg in instruments]
        ),
        fee_bps=first.copy(),
        maker_fee_bps=fees.maker_fee_bps[0].copy(),
        base_fee_frac=np.where(fees.is_in_base & (first > 0.0), first / 1e4, 0.0),
        bucket_usd=edges,
        bucket_bps=table,
        bucket_row=row,
        impact_coef_bps=np.array(coefs),
        impact_exponent=costs.impact_exponent,
    )


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
    return np.tile(sizes, (len(pairs), 1)), cube, row_of_bar(days.to_list(), panel.ts_us)
