"""Signals made of settled funding; positive where the combo receives."""

from collections.abc import Sequence

import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.frames.funding_columns import settled_column
from basis_bt.frames.panel import funding_column


def perp_legs(combo: Combo) -> list[int]:
    """Places of the perps in a combo."""
    return [index for index, leg in enumerate(combo.legs) if leg.parsed.is_perp]


def _received(combo: Combo, columns: Sequence[str]) -> pl.Expr:
    """``Σ -ρ * column`` over the perp legs: a short perp receives positive funding."""
    terms = [-combo.legs[leg].ratio * pl.col(name) for leg, name in zip(perp_legs(combo), columns, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def funding_apr(combo: Combo, *, hours: float) -> pl.Expr:
    """What the combo received in funding over the last ``hours``, as a simple annual rate.

    ``Σ -ρ Σ r * 8760 / hours`` over the perp legs: a short perp receives positive funding. The sums and their
    annual rates are columns of the frame, since a window of hours may end between two bars.
    """
    return _received(combo, [funding_column(leg, hours) for leg in perp_legs(combo)])


def funding_rate_8h(combo: Combo) -> pl.Expr:
    """What the combo receives at the last settled rates, each scaled to 8 h by its own interval: ``Σ -ρ r 8 / h``."""
    return _received(combo, [settled_column(leg, "mean", 1) for leg in perp_legs(combo)])


def funding_diff(combo: Combo, *, look: int) -> pl.Expr:
    """Mean 8 h rate received on the short perp less that paid on the long one, over ``look`` settlements of each."""
    return _received(combo, [settled_column(leg, "mean", look) for leg in perp_legs(combo)])


def confirmed(combo: Combo, *, n: int, above: float, below: float) -> pl.Expr:
    """+1 where the last ``n`` settlements all paid the combo ``above`` or more per 8 h, -1 where all ``below`` or less.

    Else 0, and null until ``n`` rates are known.
    """
    (leg,) = perp_legs(combo)
    ratio = combo.legs[leg].ratio
    low, high = ("max", "min") if ratio > 0 else ("min", "max")
    least, most = (-ratio * pl.col(settled_column(leg, summary, n)) for summary in (low, high))
    return (
        pl.when(least.is_null()).then(None).when(least >= above).then(1.0).when(most <= below).then(-1.0).otherwise(0.0)
    )
