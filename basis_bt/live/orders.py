"""Orders, and what became of them. Quantities are in base units, prices are quote per base, times epoch us, UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: what an order is for; the order of the list is the order in which a crowded venue is asked
PURPOSES = ("stop", "rollback", "unwind", "exit", "fallback", "entry")
CLOSING = ("stop", "rollback", "unwind", "exit")
OPEN, CLOSED, CANCELED, REJECTED = "open", "closed", "canceled", "rejected"
Kind = Literal["market", "limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LegOrder:
    """One order for one instrument at its venue, as it is written into the journal before it is sent.

    Parameters
    ----------
    intent : number of the instruction it serves, e.g. ``"3-entry"``
    client_order_id : made before the send, letters and digits only, the same again after a restart
    instrument : ``kind:venue:BASE-QUOTE``
    side : +1 buy, -1 sell
    quantity_base : above zero, a multiple of the lot
    limit_price : of a limit order
    reduce_only : on margined contracts: may only make the position smaller
    post_only : refused rather than taken at once
    arrival_price : last price known at the decision; reference_price : mid just before the send
    """

    intent: str
    client_order_id: str
    instrument: str
    leg: int
    side: int
    quantity_base: float
    kind: Kind = "market"
    purpose: str = "entry"
    limit_price: float | None = None
    reduce_only: bool = False
    post_only: bool = False
    arrival_price: float
    reference_price: float
    half_spread_bps: float = 0.0
    decided_us: int
    sent_us: int = 0

    @property
    def venue(self) -> str:
        """The venue's name."""
        return self.instrument.split(":")[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What the rule wants of all legs at once. ``change_base`` is by leg, signed, what is to arrive (net of base fees).

    ``number`` counts the instructions of a journal; client order ids are made of it, so a restart makes the same ones.
    """

    number: int
    action: Literal["entry", "exit"]
    reason: str
    direction: int
    quantity: float
    change_base: tuple[float, ...]
    arrival_price: tuple[float, ...]
    decided_us: int

    @property
    def intent(self) -> str:
        """Its name in the journal."""
        return f"{self.number}-{self.action}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """An order as its venue tells it; ``filled_base`` is the truth, never the word. None is what it does not say."""

    client_order_id: str
    venue_order_id: str
    instrument: str
    side: int
    status: str  # OPEN, CLOSED, CANCELED or REJECTED
    quantity_base: float
    filled_base: float
    average_price: float | None
    updated_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueTrade:
    """One fill of an order. ``fee`` is what was paid (negative: a rebate) in units of ``fee_asset``.

    ``parts_usd`` are spread, bucket and impact where a model says them apart, as a replay does.
    """

    trade_id: str
    venue_order_id: str
    instrument: str
    side: int
    quantity_base: float
    price: float
    fee: float
    fee_asset: str
    is_maker: bool
    ts_us: int
    parts_usd: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingPayment:
    """Cash of one settlement, positive when received, in units of ``asset``; all venues have this sign here."""

    payment_id: str
    instrument: str
    amount: float
    asset: str
    ts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LegResult:
    """What an order came to, of the same shape in every mode.

    Costs are those of docs/semantics.md: ``shortfall_usd = delay + spread + bucket + impact + fee``, positive when they
    hurt. ``position_change_base`` is net of a fee taken in base; ``cash_change`` is by asset, as the venue books it.
    """

    success: bool
    event: str  # filled, partial, refused, missing, unknown
    venue: str
    instrument: str
    leg: int
    side: int
    client_order_id: str
    venue_order_id: str | None
    purpose: str
    requested_base: float
    filled_base: float
    position_change_base: float
    arrival_price: float
    reference_price: float
    fill_price: float | None
    notional_usd: float
    delay_usd: float
    spread_usd: float
    bucket_usd: float
    impact_usd: float
    fee_usd: float
    fees: Mapping[str, float]
    cash_change: Mapping[str, float]
    is_maker: bool
    decided_us: int
    sent_us: int
    done_us: int
    reason: str = ""

    @property
    def shortfall_usd(self) -> float:
        """Fill against arrival, fee included."""
        return self.delay_usd + self.spread_usd + self.bucket_usd + self.impact_usd + self.fee_usd

    @property
    def shortfall_bps(self) -> float:
        """The same per notional at the arrival price."""
        at_arrival = self.filled_base * self.arrival_price
        return 1e4 * self.shortfall_usd / at_arrival if at_arrival else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComboResult:
    """What an instruction for all legs came to.

    ``outcome``: ``opened``, ``reduced`` (the matched part is held), ``flat``, ``refused`` (nothing was sent, see
    ``reason``) or ``halted`` (the circuit breaker is open; ``naked_base`` is what is left unhedged, by instrument).
    ``rollback_usd`` is what undoing cost: the whole shortfall of what did not stay.
    """

    intent: str
    outcome: str
    reason: str = ""
    legs: tuple[LegResult, ...] = ()
    rollback_usd: float = 0.0
    naked_base: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether what was asked for is what is held."""
        return self.outcome in ("opened", "flat") and not self.reason
