"""How far a perp is from the price at which its funding pays just the interest: He, Manela, Ross and von Wachter."""

import math

import polars as pl

from basis_bt.core.instruments import Combo
from basis_bt.core.units import HOURS_PER_YEAR
from basis_bt.signals.funding import perp_legs

INTEREST_8H = 0.0001  # ι, the interest part of the funding formula
CLAMP_8H = 0.0005  # γ, how far the formula lets premium and interest lie apart
FUNDING_HOURS = 8.0


def fair_premium_frac(interest_apr: float) -> float:
    """The premium ``p* = r - sgn(ι - r) γ`` per 8 h at which a perp's funding is the interest r.

    Funding is the premium p plus ``ι - p`` held within ±γ. While that is not held it is ι whatever p; so a funding of r
    below ι takes ``p = r - γ``, one above it ``p = r + γ``. At ``r = ι`` every premium within γ is fair: the middle.
    """
    rate = interest_apr * FUNDING_HOURS / HOURS_PER_YEAR
    return rate - math.copysign(CLAMP_8H, INTEREST_8H - rate) * (rate != INTEREST_8H)


def fair_gap(combo: Combo, *, interest_apr: float) -> pl.Expr:
    """``((F - S) / F - p*)`` in bps on closes, positive where the perp is dear; +spot −perp earns its way to zero.

    F is the perp, S the first spot leg; the sign turns with that of the perp. Null where either has no bar.
    """
    (perp,) = perp_legs(combo)
    spot = combo.reference
    sign = 1.0 if combo.legs[perp].ratio < 0 else -1.0
    premium = 1.0 - pl.col(f"close_{spot}") / pl.col(f"close_{perp}")
    return sign * (premium - fair_premium_frac(interest_apr)) * 1e4
