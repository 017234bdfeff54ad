"""What a venue is to the live engine: the one interface behind which replay, paper and live differ.

Everything is in base units of the instrument, whatever the venue counts in. Sending an order ends in one of
three ways: an ``Ack`` (the venue has it), ``OrderRefused`` (it certainly does not), ``OrderUnknown`` (nobody can tell:
look it up by its client id, never send it again).
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from basis_bt.live.orders import FundingPayment, LegOrder, OrderState, VenueTrade


class OrderRefused(Exception):
    """The venue said no, nothing exists there. ``kind`` says why: funds, minimum, lot, reduce_only, rate, ..."""

    def __init__(self, message: str, *, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class OrderUnknown(Exception):
    """Nobody can tell whether the venue has the order."""


class VenueDown(Exception):
    """A question (not an order) that the venue did not answer as asked.

    ``kind``: ``gone``, there is no such order; ``unchanged``, a setting is so already; else ``down``.
    """

    def __init__(self, message: str, *, kind: str = "down") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """How a venue trades an instrument. Fees are fractions of the notional times 1e4, takers first."""

    instrument: str
    venue: str
    symbol: str
    base: str
    quote: str
    is_margined: bool
    lot_base: float
    tick: float
    min_base: float
    min_notional_usd: float
    contract_base: float
    taker_fee_bps: float
    maker_fee_bps: float
    is_fee_in_base: bool
    is_trading: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Price levels ``(price, quantity_base)``, best first; ``at_us`` is when the venue says they were true."""

    instrument: str
    bids: Sequence[tuple[float, float]]
    asks: Sequence[tuple[float, float]]
    at_us: int

    @property
    def mid(self) -> float:
        """Half way between the best prices; NaN where a side is empty."""
        return (self.bids[0][0] + self.asks[0][0]) / 2.0 if self.bids and self.asks else float("nan")

    @property
    def spread_bps(self) -> float:
        """Quoted spread over mid."""
        return 1e4 * (self.asks[0][0] - self.bids[0][0]) / self.mid if self.bids and self.asks else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An asset at a venue, in its own units."""

    total: float
    free: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A margined position; signed. What a venue does not tell is None."""

    instrument: str
    position_base: float
    entry_price: float | None
    mark_price: float | None
    liquidation_price: float | None
    margin_ratio: float | None
    updated_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The venue has the order."""

    venue_order_id: str


class Venue(abc.ABC):
    """One account at one venue."""

    name: str

    @abc.abstractmethod
    async def open(self, instruments: Sequence[str]) -> None:
        """Learn the contracts of these instruments, and check that the account is set up as it has to be."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""

    @abc.abstractmethod
    def contract(self, instrument: str) -> Contract:
        """How an instrument is traded here; known after ``open``."""

    @abc.abstractmethod
    async def refresh(self, instrument: str) -> Contract:
        """The same, asked again: whether it is trading may have changed."""

    @abc.abstractmethod
    async def book(self, instrument: str) -> Book:
        """The order book."""

    @abc.abstractmethod
    async def send(self, order: LegOrder) -> Ack:
        """Send an order once. Raises OrderRefused or OrderUnknown."""

    @abc.abstractmethod
    async def find(self, order: LegOrder) -> OrderState | None:
        """The order by its client id; None: the venue says that there is none (which once is no proof)."""

    @abc.abstractmethod
    async def cancel(self, order: LegOrder, venue_order_id: str | None) -> bool:
        """Ask to cancel; False: the venue has no such open order (any more)."""

    @abc.abstractmethod
    async def cancel_found(self, state: OrderState) -> bool:
        """The same of an order that was met at the venue, e.g. by ``open_orders``."""

    @abc.abstractmethod
    async def open_orders(self) -> list[OrderState]:
        """All open orders of the instruments, whoever sent them."""

    @abc.abstractmethod
    async def trades(self, instrument: str, *, since_us: int, venue_order_id: str | None = None) -> list[VenueTrade]:
        """Own fills since an instant, each once."""

    @abc.abstractmethod
    async def balances(self) -> dict[str, Balance]:
        """By asset."""

    async def spot_balance(self, asset: str) -> Balance:
        """What the wallet that spot is sold from has of an asset."""
        return (await self.balances()).get(asset, Balance(total=0.0, free=0.0))

    async def margin_balance(self, asset: str) -> Balance:
        """What the wallet that margins contracts has of an asset."""
        return (await self.balances()).get(asset, Balance(total=0.0, free=0.0))

    @abc.abstractmethod
    async def positions(self) -> dict[str, Position]:
        """Of the margined instruments, those that are not zero, by instrument."""

    @abc.abstractmethod
    async def funding_payments(self, instrument: str, *, since_us: int) -> list[FundingPayment]:
        """Settlements booked since an instant, each once, positive when received."""

    @abc.abstractmethod
    async def worth(self, asset: str, *, quote: str) -> float:
        """Price of an asset that a fee was paid in, in units of a quote currency. Raises VenueDown."""

    @abc.abstractmethod
    async def transfer(self, asset: str, amount: float, *, source: str, target: str) -> str:
        """Move cash between wallets of this venue (``spot``, ``perp``, ``funding``); returns the venue's id of it."""
