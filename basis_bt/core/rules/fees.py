"""Trading fees by kind of instrument and tier, and the tier a volume reaches."""

from dataclasses import dataclass
from datetime import date

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rules.rows import Row, book, home, in_force, is_coin_margined


def fee_kind(instrument: Instrument) -> str:
    """The kind whose fees an instrument pays: ``inverse_perp`` for a coin-margined perp, else its own kind."""
    return "inverse_perp" if instrument.kind == "perp" and is_coin_margined(instrument) else instrument.kind


def _of_kind(table: str, venue: str, kind: str, on: date) -> Row | None:
    return in_force((row for row in book(venue).get(table, []) if row["kind"] == kind), on)


def fee_bps(instrument: Instrument, *, liquidity: str, on: date, tier: int = 0) -> float:
    """The fee of an instrument in bps of the notional; negative is a rebate.

    Parameters
    ----------
    liquidity : ``"maker"`` or ``"taker"``
    on : the day of the trade
    tier : step of the venue's ladder, 0 the base; ``fee_ladder`` has them by volume

    Raises
    ------
    ConfigError
        If the rulebook has no row for the venue and kind, or no such tier.
    """
    own, kind = home(instrument), fee_kind(instrument)
    missing = ConfigError(
        f"the rulebook has no {kind} fee for {instrument.venue}",
        fix=f'set costs.{liquidity}_fee_bps for "{instrument}"',
    )
    if tier == 0:
        row = _of_kind("fees", own.venue, kind, on)
        if row is None:
            raise missing
        return float(row[f"{liquidity}_bps"])
    ladder = _of_kind("fee_tiers", own.venue, kind, on)
    steps = {} if ladder is None else {int(step[0]): step for step in ladder["tiers"]}
    if tier not in steps:
        missing.what = f"the rulebook has no tier {tier} of {kind} fees for {instrument.venue}"
        raise ConfigError(missing.what, where={"tiers": f"0 to {max(steps, default=0)}"}, fix=missing.fix)
    return float(steps[tier][2 if liquidity == "maker" else 3])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeStep:
    """One tier of a ladder: the volume of 30 days that reaches it, and its fees."""

    volume_usd: float
    maker_bps: float
    taker_bps: float


def fee_ladder(instrument: Instrument, *, on: date) -> list[FeeStep]:
    """The tiers of an instrument's fees by volume, ascending; empty where the rulebook has no ladder.

    Volumes of another window than 30 days (14 at hyperliquid) are scaled to 30. A volume that is not known is infinite:
    such a tier is never reached, so that fees are over- and not understated.
    """
    ladder = _of_kind("fee_tiers", home(instrument).venue, fee_kind(instrument), on)
    if ladder is None:
        return []
    scale = 30.0 / ladder["volume_days"]
    steps = [
        FeeStep(volume_usd=float(volume) * scale, maker_bps=float(maker), taker_bps=float(taker))
        for _, volume, maker, taker in ladder["tiers"]
    ]
    return sorted(steps, key=lambda step: step.volume_usd)
