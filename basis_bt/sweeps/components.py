"""What a configuration assumes that a backtest costs, one component after the other, and each of them scaled."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from basis_bt.backtest.cost_parameters import resolved_fees_bps
from basis_bt.backtest.parameters import borrowed_legs, by_leg, is_given, pays_gas, rule_days
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import ON_CHAIN
from basis_bt.core.models import Config, PerLeg
from basis_bt.core.rulebook import fee_bps
from basis_bt.core.units import US_PER_HOUR, parse_hours
from basis_bt.market.cost_table import read_cost_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One assumption: its name for people, its key, and its value in numbers (of a bucket table: its path)."""

    name: str
    key: str
    value: Any


def cost_components(config: Config) -> list[Component]:
    """The components that a configuration has and that are not zero; latency, which every run has, is not among them.

    Fees that are left to the venue are those of the run's first day, in numbers.

    Raises
    ------
    ConfigError
        If such a fee changes within the run: it is no number then.
    """
    costs, fills, wallets = config.costs, config.fills, config.wallets
    may_fail = fills.model != "certain" or fills.reject_probability > 0.0
    is_split = wallets.mode == "segregated"
    paid: set[Literal["taker", "maker"]] = {costs.liquidity, "maker"} if fills.model == "maker" else {costs.liquidity}
    found = [
        ("half spread", "costs.half_spread_bps", costs.half_spread_bps),
        *((f"{kind} fees", f"costs.{kind}_fee_bps", _fees_bps(config, kind)) for kind in sorted(paid)),
        ("buckets", "costs.bucket_bps", costs.bucket_bps),
        ("buckets", "costs.bucket_table", costs.bucket_table),
        ("impact", "costs.impact_coef_bps", costs.impact_coef_bps),
        ("rollback penalty", "fills.rollback_penalty_bps", fills.rollback_penalty_bps if may_fail else None),
        ("borrow rate", "costs.borrow_apr", costs.borrow_apr if borrowed_legs(config) else None),
        ("gas", "costs.gas_units", costs.gas_units if pays_gas(config) else None),
        ("transfer fee", "wallets.transfer_fee_usd", wallets.transfer_fee_usd if is_split else None),
        ("liquidation fee", "wallets.liquidation_fee_bps", wallets.liquidation_fee_bps if wallets.is_tested else None),
    ]
    return [Component(name=name, key=key, value=value) for name, key, value in found if is_any(value)]


def is_any(value: PerLeg | list[float] | str | None) -> bool:
    """Whether a value, or that of any leg, is there and not zero."""
    if isinstance(value, dict):
        return any(value.values())
    return any(value) if isinstance(value, list) else bool(value)


def scaled(component: Component, scale: float, *, folder: Path) -> Any:
    """The value of a component times a scale; a bucket table is written to a folder and named."""
    value = component.value
    if isinstance(value, str):
        path = folder / f"{scale!r}.parquet"
        table = read_cost_table(Path(value))
        table.with_columns(table["cost_bps"] * scale).write_parquet(path)
        return str(path)
    if isinstance(value, dict):
        return {leg: scale * one for leg, one in value.items()}
    return [scale * one for one in value] if isinstance(value, list) else scale * value


def later(config: Config, bars: int) -> float | dict[str, float]:
    """The latency of a configuration in hours, and some bars on top."""
    more_hours, latency = bars * config.data.bar_us / US_PER_HOUR, config.fills.latency
    if not isinstance(latency, dict):
        return parse_hours(latency) + more_hours
    legs = config.combo.instruments
    return {str(leg): parse_hours(by_leg(latency, leg, key="fills.latency", default=0.0)) + more_hours for leg in legs}


def _fees_bps(config: Config, liquidity: Literal["taker", "maker"]) -> dict[str, float]:
    """Fees in numbers by instrument, those of the venue where the configuration gives none."""
    costs, legs = config.costs, config.combo.instruments
    given, tier = getattr(costs, f"{liquidity}_fee_bps"), costs.fee_tier
    for leg in legs:
        if is_given(given, leg) or leg.kind in ON_CHAIN:
            continue
        days = rule_days(config, "fees" if tier == 0 else "fee_tiers")
        if tier == "volume" or len({fee_bps(leg, liquidity=liquidity, on=day, tier=tier) for day in days}) > 1:
            raise ConfigError(
                f"the {liquidity} fee of {leg} changes within the run and cannot be scaled as one number",
                where={"key": f"costs.{liquidity}_fee_bps"},
                fix="give it in bps",
            )
    resolved = resolved_fees_bps(dataclasses.replace(config, costs=dataclasses.replace(costs, liquidity=liquidity)))
    return {str(leg): fee for leg, fee in zip(legs, resolved, strict=True)}
