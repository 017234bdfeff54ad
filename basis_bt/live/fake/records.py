"""What the simulated venue keeps: orders, trades, settlements, requests. Base units, quote per base, epoch us."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

OPEN, CLOSED, CANCELED = "open", "closed", "canceled"
TimeInForce = Literal["GTC", "IOC", "FOK", "GTX"]


class Refused(Exception):
    """The venue said no, and nothing exists. ``kind`` is one of ``REFUSALS``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


#: every reason for which a venue says no; each dialect has its own code for each
REFUSALS = (
    "funds", "margin", "minimum", "lot", "tick", "reduce_only", "post_only", "halted", "duplicate", "price_band",
    "position_mode", "not_found", "busy", "clock", "rate", "unchanged", "bad_request", "key",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """An order as it arrives. ``quantity_quote`` is for spot market orders that name the quote amount instead."""

    client_order_id: str
    instrument: str
    side: int
    quantity_base: float
    kind: Literal["market", "limit"] = "market"
    limit_price: float | None = None
    time_in_force: TimeInForce = "GTC"
    reduce_only: bool = False
    position_side: str | None = None
    quantity_quote: float | None = None


@dataclass(frozen=True, slots=True)
class OrderMoment:
    """What an order looked like from ``ts_us`` on."""

    ts_us: int
    status: str
    filled_base: float
    filled_quote: float


@dataclass(slots=True, kw_only=True)
class SimOrder:
    """An order at the venue. ``ended_by``: ``fill``, ``user``, ``remainder`` (of an IOC), ``post_only``, ``venue``."""

    venue_order_id: str
    ticket: Ticket
    created_us: int
    updated_us: int
    status: str = OPEN
    ended_by: str = ""
    filled_base: float = 0.0
    filled_quote: float = 0.0
    fees: dict[str, float] = field(default_factory=dict)
    moments: list[OrderMoment] = field(default_factory=list)

    @property
    def remaining_base(self) -> float:
        """What has not been filled."""
        return clean(self.ticket.quantity_base - self.filled_base)

    @property
    def average_price(self) -> float | None:
        """Quote over base of what has been filled."""
        return self.filled_quote / self.filled_base if self.filled_base else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimTrade:
    """One fill. ``fee`` is paid where positive; ``realised_usd`` is the profit a margined position booked with it."""

    trade_id: str
    venue_order_id: str
    client_order_id: str
    instrument: str
    side: int
    quantity_base: float
    price: float
    fee: float
    fee_asset: str
    is_maker: bool
    realised_usd: float
    ts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimFunding:
    """One settlement of a position held; ``amount`` is positive when received."""

    payment_id: str
    instrument: str
    amount: float
    asset: str
    rate: float
    mark_price: float
    position_base: float
    ts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateMark:
    """A settled funding rate, whether a position was held or not."""

    instrument: str
    rate: float
    mark_price: float
    ts_us: int


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """A request the venue has seen. ``params`` never hold a key, a signature or a passphrase.

    ``reached`` is False where a fault lost it on the way; ``answer`` says in a word what came of it.
    """

    ts_us: int
    method: str
    path: str
    operation: str
    instrument: str | None
    params: Mapping[str, str]
    reached: bool = True
    answer: str = ""


def clean(quantity: float) -> float:
    """Without the last digits that float sums leave behind; a venue counts in decimals."""
    return round(quantity, 12) + 0.0


def floor_to(quantity: float, lot: float) -> float:
    """The largest multiple of the lot that is not above, forgiving a rounding error of a millionth of a lot."""
    return clean(math.floor(quantity / lot + 1e-6) * lot)


def text(number: float) -> str:
    """A decimal as venues write it: no exponent, no trailing zeros."""
    written = f"{number:.12f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written
