"""Signals made of settled funding."""

import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.frames.panel import funding_column


def funding_apr(combo: Combo, *, hours: float) -> pl.Expr:
    """What the combo received in funding over the last ``hours``, as a simple annual rate.

    ``Σ -ρ Σ r * 8760 / hours`` over the perp legs: a short perp receives positive funding. The sums and their
    annual rates are columns of the frame, since a window of hours may end between two bars.
    """
    terms = [
        -leg.ratio * pl.col(funding_column(index, hours)) for index, leg in enumerate(combo.legs) if leg.parsed.is_perp
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
