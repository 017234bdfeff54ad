"""Terms of contracts: size and lot, funding, liquidation fee, delivery."""

from dataclasses import dataclass
from datetime import date

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rules.fees import fee_bps
from basis_bt.core.rules.rows import book, closest_in_force, home, in_force, is_coin_margined, venue_row


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSize:
    """What one contract is: ``size`` coins (``unit`` ``"base"``) or ``size`` dollars (``"usd"``, coin-margined)."""

    size: float
    unit: str
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingRule:
    """How a perp's funding is set and paid.

    ``default_interval_hours`` is that of a contract nothing was changed for; each settlement's own stamp counts.
    ``premium_divided``: whether the premium part is divided by 8 over the interval's hours, as the interest part is.
    ``paid_on`` is ``"mark"`` or ``"oracle"``; ``cap_frac`` the largest rate of a settlement, None if not known.
    """

    default_interval_hours: float
    premium_divided: bool
    paid_on: str
    cap_frac: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRule:
    """How a dated future ends: at ``expiry_hour`` UTC, at the index averaged over the minutes before, less the fee."""

    expiry_hour: int
    averaging_minutes: int
    fee_bps: float
    source: str


def lot_and_minimum(instrument: Instrument, *, on: date) -> tuple[float, float] | None:
    """Lot in base units and minimum notional in USD, or None where the rulebook does not know the instrument."""
    rows = [row for row in book(instrument.venue).get("lots", []) if row["instrument"] == str(instrument)]
    row = in_force(rows, on)
    return None if row is None else (float(row["lot_base"]), float(row["min_notional_usd"]))


def contract_size(instrument: Instrument, *, on: date) -> ContractSize:
    """The size of one contract; spot and contracts the rulebook does not list count as one coin (or one dollar).

    ``known`` is False where that default was taken for a contract.
    """
    own = home(instrument)
    row, _ = closest_in_force("contracts", own, on)
    if row is not None:
        return ContractSize(size=float(row["size"]), unit=row["unit"], known=True)
    return ContractSize(size=1.0, unit="usd" if is_coin_margined(own) else "base", known=instrument.kind == "spot")


def funding_rule(instrument: Instrument, *, on: date) -> FundingRule:
    """The funding rule of a perp on a day. Raises ConfigError if the rulebook has none for it."""
    row, _ = closest_in_force("funding", home(instrument), on)
    if row is None:
        raise ConfigError(f"the rulebook has no funding rule for {instrument} on {on}")
    cap, _ = closest_in_force("funding_caps", home(instrument), on)
    return FundingRule(
        default_interval_hours=float(row["default_interval_hours"]),
        premium_divided=row["premium_divisor"] == "8/N",
        paid_on=row["paid_on"],
        cap_frac=None if cap is None else float(cap["cap_frac"]),
        source=row["source"],
    )


def liquidation_fee_bps(instrument: Instrument, *, on: date) -> float:
    """What a liquidation costs beside the price, in bps of the notional closed; the row gives the reason for it.

    Raises
    ------
    ConfigError
        If the rulebook has no row for the venue.
    """
    row = venue_row("liquidation", home(instrument).venue, on, what="liquidation fee", fix="give the fee yourself")
    return float(row["fee_bps"])


def delivery_rule(instrument: Instrument, *, on: date) -> DeliveryRule:
    """The delivery of a dated future; ``on`` is the day it expires. A fee of ``taker`` is the base tier's.

    Raises
    ------
    ConfigError
        If the rulebook has no row for the venue.
    """
    own = home(instrument)
    fix = "add its hour, minutes and fee to the rulebook: docs/rulebook.md"
    row = venue_row("delivery", own.venue, on, what="delivery rule", fix=fix)
    by_rate = "fee_bps" in row
    return DeliveryRule(
        expiry_hour=int(row["expiry_hour"]),
        averaging_minutes=int(row["averaging_minutes"]),
        fee_bps=float(row["fee_bps"]) if by_rate else fee_bps(own, liquidity="taker", on=on),
        source=row["source"],
    )
