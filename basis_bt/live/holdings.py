"""What the events add up to: positions, cash, and orders whose end is not known; derived by replay alone."""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from basis_bt.core.instruments import Instrument
from basis_bt.live.event_types import FILL, FUNDING, INTENT, TERMINAL, TRANSFER, Event
from basis_bt.live.orders import LegOrder

_ZERO = Decimal(0)


class Holdings:
    """A fold over events in the order of ``seq``; everything is counted from zero at the first event.

    Sums are decimal, so what was bought and sold in equal parts is exactly 0. A linear contract's fill moves no cash
    but its fee and, as far as it makes the position smaller, the difference to the average entry price, which is what
    the venues book. A spot fee taken in base makes the position smaller and not the cash.
    """

    def __init__(self) -> None:
        self._position: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._entry: dict[str, Decimal] = {}
        self._cash: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self._open: dict[str, LegOrder] = {}

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        payload = event.payload
        if event.type == FILL and event.instrument is not None:
            self._fill(Instrument.parse(event.instrument), payload)
        elif event.type == FUNDING and event.venue is not None:
            self._cash[event.venue, payload["asset"]] += _decimal(payload["amount"])
        elif event.type == TRANSFER and event.venue is not None:
            self._transfer(event.venue, payload)
        elif event.type == INTENT:
            order = LegOrder(**payload)
            self._open[order.client_order_id] = order
        elif event.type in TERMINAL and event.client_order_id is not None:
            self._open.pop(event.client_order_id, None)

    def positions_base(self) -> dict[str, float]:
        """By instrument, signed, net of fees taken in base; 0.0 for one that was held and is not any more."""
        return {instrument: float(position) for instrument, position in self._position.items()}

    def cash(self) -> dict[str, dict[str, float]]:
        """By venue and asset, what came in less what went out; the base of a spot instrument counts as position."""
        cash: dict[str, dict[str, float]] = {}
        for (venue, asset), amount in self._cash.items():
            cash.setdefault(venue, {})[asset] = float(amount)
        return cash

    def open_intents(self) -> list[LegOrder]:
        """Orders with an intent and no terminal event, oldest first."""
        return list(self._open.values())

    def _fill(self, instrument: Instrument, trade: Mapping[str, Any]) -> None:
        name, venue, side = str(instrument), instrument.venue, int(trade["side"])
        quantity, price, fee = (_decimal(trade[key]) for key in ("quantity_base", "price", "fee"))
        if instrument.is_margined:
            self._cash[venue, instrument.quote] += self._realised(name, side, quantity, price)
        else:
            self._cash[venue, instrument.quote] -= side * quantity * price
        self._position[name] += side * quantity
        if trade["fee_asset"] == instrument.base and not instrument.is_margined:
            self._position[name] -= fee
        else:
            self._cash[venue, trade["fee_asset"]] -= fee

    def _realised(self, name: str, side: int, quantity: Decimal, price: Decimal) -> Decimal:
        """Cash of the part that closes, against the average entry price of what was held; keeps that price."""
        held = self._position[name]
        entry = self._entry.get(name, price)
        if held * side >= 0:
            self._entry[name] = (entry * abs(held) + price * quantity) / (abs(held) + quantity) if quantity else entry
            return _ZERO
        closed = min(quantity, abs(held))
        if quantity >= abs(held):
            self._entry[name] = price
        return (price - entry) * closed * (1 if held > 0 else -1)

    def _transfer(self, venue: str, payload: Mapping[str, Any]) -> None:
        """Between wallets of one venue nothing changes but the fee."""
        amount, fee = _decimal(payload["amount"]), _decimal(payload.get("fee") or 0.0)
        self._cash[venue, payload["asset"]] -= amount + fee
        self._cash[payload.get("target_venue") or venue, payload["asset"]] += amount


def _decimal(value: float) -> Decimal:
    """The shortest decimal that is this float: the number the venue wrote."""
    return Decimal(repr(value))
