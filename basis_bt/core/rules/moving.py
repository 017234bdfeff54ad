"""Borrowed coins and moved cash: how the hours of a loan are counted, the fee and the delay of a transfer."""

from dataclasses import dataclass
from datetime import date

from basis_bt.core.rules.rows import book, exchange, in_force, venue_row


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRule:
    """What moving cash from one venue to another costs and how long it takes."""

    fee_usd: float
    hours: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowRule:
    """How a venue counts the hours of a loan: in whole periods from their beginning, and some more at its opening.

    Kraken charges an opening period and four hours at a time. ``kernels/contracts.py::charged_hours`` counts them.
    """

    period_hours: float
    opening_periods: float


def borrow_rule(venue: str, *, on: date) -> BorrowRule:
    """The rule of a venue on a day: one hour at a time and nothing for the opening where it has no row."""
    row = in_force(book(venue).get("borrow", []), on) or {"period_hours": 1.0, "opening_periods": 0.0}
    return BorrowRule(period_hours=float(row["period_hours"]), opening_periods=float(row["opening_periods"]))


def transfer_rule(venue_from: str, venue_to: str, *, on: date) -> TransferRule:
    """Fee and delay of a transfer of cash; free and instant between the parts of one exchange.

    The fee is that of the venue it leaves, the delay that of the slower of the two.

    Raises
    ------
    ConfigError
        If the rulebook has no row for one of them.
    """
    if exchange(venue_from) == exchange(venue_to):
        return TransferRule(fee_usd=0.0, hours=0.0, source="internal transfer of one exchange")
    fix = "give the fee and the hours yourself"
    rows = [venue_row("transfers", venue, on, what="transfer", fix=fix) for venue in (venue_from, venue_to)]
    return TransferRule(
        fee_usd=float(rows[0]["fee_usd"]), hours=max(float(row["hours"]) for row in rows), source=rows[0]["source"]
    )
