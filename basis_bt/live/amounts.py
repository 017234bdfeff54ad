"""Amounts in USD, base units and contracts, each way, and whole lots of them.

A linear contract is a fixed number of base units, an inverse one a fixed number of USD (its face), so that its base
units depend on the price. ``quantity / lot`` in floating point is often a hair under a whole number (0.0503 / 0.01 is
5.0299999999999994): lots are counted by the rule of the kernels before anything is cut off, and the count is multiplied
in decimals, so that a venue is sent 0.3 and never 0.30000000000000004.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from basis_bt.kernels.sizing import floor_to_lot
from basis_bt.live.venue import Contract

Unit = Literal["usd", "base", "contracts"]
LOT_TOLERANCE = 1e-9  # of a lot, as in ``floor_to_lot``
QUOTIENT_ERROR = 2.0**-51  # relative: what a quotient of two rounded decimals may be off by


@dataclass(frozen=True, slots=True, kw_only=True)
class Denomination:
    """What a contract is worth: ``contract_base`` base units (linear, spot: 1) or ``face_usd`` USD (inverse).

    ``lot_contracts`` is the step of orders in contracts; 0 trades any quantity.
    """

    contract_base: float | None = None
    face_usd: float | None = None
    lot_contracts: float = 0.0

    def __post_init__(self) -> None:
        if (self.contract_base is None) == (self.face_usd is None):
            raise ValueError("a contract has either contract_base (linear) or face_usd (inverse)")
        worth = self.contract_base if self.face_usd is None else self.face_usd
        if worth is None or not (math.isfinite(worth) and worth > 0.0):
            raise ValueError(f"a contract must be worth more than 0, found {worth!r}")
        if not (math.isfinite(self.lot_contracts) and self.lot_contracts >= 0.0):
            raise ValueError(f"lot_contracts must be at least 0, found {self.lot_contracts!r}")

    @classmethod
    def of(cls, contract: Contract) -> "Denomination":
        """That of a linear contract or a spot pair of a venue."""
        return cls(
            contract_base=contract.contract_base, lot_contracts=_plain(contract.lot_base / contract.contract_base)
        )

    def base_per_contract(self, price: float) -> float:
        """Base units of one contract at a price."""
        if self.contract_base is not None:
            return self.contract_base
        assert self.face_usd is not None
        return self.face_usd / price


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """One quantity in all three units, at the price it was sized at; signed."""

    contracts: float
    quantity_base: float
    notional_usd: float


def convert(amount: float, *, source: Unit, target: Unit, price: float, denomination: Denomination) -> float:
    """An amount in another unit, not rounded; signs are kept.

    Raises
    ------
    ValueError
        If the amount is not finite, or the price not above zero: neither may become an order.
    """
    _check(amount, price)
    if source == target:
        return amount
    base = amount
    if source == "usd":
        base = amount / price
    elif source == "contracts":
        base = amount * denomination.base_per_contract(price)
    if target == "usd":
        return base * price
    return base / denomination.base_per_contract(price) if target == "contracts" else base


def sized(amount: float, *, unit: Unit, price: float, denomination: Denomination) -> Sized:
    """The largest position of whole lots that an amount of any unit pays for, told in all three."""
    contracts = convert(amount, source=unit, target="contracts", price=price, denomination=denomination)
    whole = math.copysign(lots_down(abs(contracts), denomination.lot_contracts), contracts)
    base = convert(whole, source="contracts", target="base", price=price, denomination=denomination)
    return Sized(contracts=whole, quantity_base=base, notional_usd=base * price)


def contracts_of(quantity_base: float, contract: Contract) -> float:
    """Contracts of a quantity in base units, in whole lots: what the venue is sent. Never rounded up past a lot."""
    lot = _plain(contract.lot_base / contract.contract_base)
    count = lot_count(quantity_base, contract.lot_base)
    return quantity_base / contract.contract_base if count is None else _times(count, lot)


def lot_count(quantity_base: float, lot: float) -> int | None:
    """Whole lots in a quantity, to within 1e-9 of a lot; None without a lot.

    Over some millions of lots the quotient itself is off by more than that (114 / 0.00001 is 11399999.999999998): then
    by as much as it may be off, so that whole lots stay what they are however often they are counted.
    """
    if lot <= 0.0:
        return None
    count = round(floor_to_lot(quantity_base, lot) / lot)
    return count + 1 if count + 1 - quantity_base / lot <= _tolerance(count) else count


def lots_down(quantity_base: float, lot: float) -> float:
    """Largest multiple of the lot that is not above the quantity, as the nearest float to its decimal value."""
    count = lot_count(quantity_base, lot)
    return quantity_base if count is None else _times(count, lot)


def lots_up(quantity_base: float, lot: float) -> float:
    """Smallest multiple of the lot that is not under the quantity, to within 1e-9 of a lot."""
    count = lot_count(quantity_base, lot)
    if count is None:
        return quantity_base
    return _times(count if quantity_base / lot - count <= _tolerance(count) else count + 1, lot)


def tick_price(price: float, tick: float, *, is_up: bool) -> float:
    """The price on the venue's grid that is next to it, above or below; a price on the grid stays."""
    return lots_up(price, tick) if is_up else lots_down(price, tick)


def _tolerance(count: int) -> float:
    """In lots."""
    return max(LOT_TOLERANCE, QUOTIENT_ERROR * count)


def _times(count: int, lot: float) -> float:
    return float(count * Decimal(repr(_plain(lot))))


def _plain(lot: float) -> float:
    """A lot without what a product or quotient of decimals left behind (1.0000000000000001e-05)."""
    return float(f"{lot:.12g}")


def _check(amount: float, price: float) -> None:
    if not math.isfinite(amount):
        raise ValueError(f"an amount must be finite, found {amount!r}")
    if not (math.isfinite(price) and price > 0.0):
        raise ValueError(f"a price must be above 0, found {price!r}")
