"""Income less what it costs to get in and out."""

from collections.abc import Sequence

import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.core.units import HOURS_PER_YEAR


def round_trip_frac(combo: Combo, *, one_way_bps: Sequence[float]) -> float:
    """Estimated cost of entering and leaving a combo, as a fraction of the notional of one base unit.

    ``Σ |ρ| 2 c / 1e4`` over the legs, ``c`` half spread and fee; every leg counts as worth the same a base unit.
    """
    one_way = sum(abs(leg.ratio) * bps for leg, bps in zip(combo.legs, one_way_bps, strict=True))
    return 2.0 * one_way / 1e4


def net_apr(
    income_apr: pl.Expr, combo: Combo, *, one_way_bps: Sequence[float], hold_hours: float, per_base: float
) -> pl.Expr:
    """An annual income less the round trip spread over ``hold_hours``; ``per_base``: base units the income is of."""
    cost_apr = round_trip_frac(combo, one_way_bps=one_way_bps) / per_base * HOURS_PER_YEAR / hold_hours
    return income_apr - cost_apr
