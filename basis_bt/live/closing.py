"""Taking a position back: market orders that only reduce, repeated with pauses until it is gone or they are used up."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from basis_bt.live.amounts import lots_down, lots_up
from basis_bt.live.ids import client_order_id
from basis_bt.live.orders import LegOrder, LegResult
from basis_bt.live.placing import Desk
from basis_bt.live.venue import Book, Contract, VenueDown

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 4.0


class Quote(NamedTuple):
    """Mid and half the quoted spread, as far as they are known."""

    mid: float
    half_spread_bps: float


class Closed(NamedTuple):
    """What closing a leg came to: its orders, and the signed change that is still wanted (0.0 or dust: done)."""

    leg: int
    results: list[LegResult]
    left_base: float
    is_done: bool


async def close_leg(
    desk: Desk,
    instrument: str,
    *,
    leg: int,
    change_base: float,
    intent: str,
    purpose: str,
    prefix: str,
    arrival_price: float | None,
    decided_us: int,
    tries: int,
) -> Closed:
    """Change a position by ``change_base`` towards zero.

    Spot is sold as far as the wallet holds it; contracts are reduce-only, so that a repeat cannot open the other way.
    What is under the venue's smallest order is dust: it is reported, not chased.
    """
    venue = desk.venues[instrument.split(":")[1]]
    contract = venue.contract(instrument)
    left, results, missing = change_base, list[LegResult](), list[LegOrder]()
    last_price = arrival_price or 0.0
    for attempt in range(tries):
        if attempt:
            await desk.clock.sleep(min(BACKOFF_S * 2.0 ** (attempt - 1), LONGEST_BACKOFF_S))
        for order in list(missing):
            landed = await desk.look_again(order)
            if landed is not None:
                missing.remove(order)
                results.append(landed)
                left -= landed.position_change_base
        quote = await quoted(desk, instrument)
        if quote is not None:
            last_price = quote.mid
        quantity = await _sendable(desk, contract, left, last_price)
        if quantity is None:
            return Closed(leg, results, left, True)
        if quantity == 0.0:
            continue
        order = LegOrder(
            intent=intent,
            client_order_id=client_order_id(prefix, intent, purpose=purpose, leg=leg, attempt=attempt),
            instrument=instrument,
            leg=leg,
            side=1 if left > 0.0 else -1,
            quantity_base=quantity,
            purpose=purpose,
            reduce_only=contract.is_margined,
            arrival_price=last_price if arrival_price is None else arrival_price,
            reference_price=last_price,
            half_spread_bps=0.0 if quote is None else quote.half_spread_bps,
            decided_us=decided_us,
        )
        result = await desk.place(order)
        results.append(result)
        left -= result.position_change_base
        if result.event == "missing":
            missing.append(order)
        if result.reason.startswith("reduce_only") and await _is_flat(desk, instrument):
            return Closed(leg, results, 0.0, True)
        if is_dust(left, contract, last_price):
            return Closed(leg, results, left, True)
    return Closed(leg, results, left, False)


async def quoted(desk: Desk, instrument: str) -> Quote | None:
    """What the book says now; None where it says nothing that can be used."""
    try:
        book: Book = await desk.venues[instrument.split(":")[1]].book(instrument)
    except VenueDown:
        return None
    if not (math.isfinite(book.mid) and book.spread_bps >= 0.0):
        return None
    return Quote(book.mid, book.spread_bps / 2.0)


async def _sendable(desk: Desk, contract: Contract, left: float, price: float) -> float | None:
    """Quantity to order now: None for dust, 0.0 where the wallet cannot be seen to hold any.

    Of spot never more than this engine bought: the rest of the wallet is somebody else's.
    """
    if left > 0.0:
        fee_frac = max(contract.taker_fee_bps, 0.0) / 1e4 if contract.is_fee_in_base else 0.0
        wanted = lots_up(left / (1.0 - fee_frac), contract.lot_base) if fee_frac else lots_down(left, contract.lot_base)
        return None if is_dust(wanted, contract, price) else wanted
    wanted = lots_down(-left, contract.lot_base)
    if not contract.is_margined and not desk.is_modelled:
        own = max(desk.journal.positions_base().get(contract.instrument, 0.0), 0.0)
        wanted = min(wanted, lots_down(own, contract.lot_base))
        if is_dust(wanted, contract, price):
            return None
        try:
            held = lots_down((await desk.venues[contract.venue].spot_balance(contract.base)).free, contract.lot_base)
        except VenueDown:
            held = wanted  # the venue refuses more than there is
        if held < wanted and is_dust(held, contract, price):
            return None if is_dust(wanted, contract, price) else 0.0
        wanted = min(wanted, held)
    return None if is_dust(wanted, contract, price) else wanted


def is_dust(quantity_base: float, contract: Contract, price: float) -> bool:
    """Whether a quantity cannot be traded: under a lot, the smallest quantity, or (spot) the smallest notional."""
    quantity = lots_down(abs(quantity_base), contract.lot_base)
    if quantity <= 0.0 or quantity < contract.min_base * (1.0 - 1e-9):
        return True
    return not contract.is_margined and quantity * price < contract.min_notional_usd * (1.0 - 1e-9)


async def _is_flat(desk: Desk, instrument: str) -> bool:
    try:
        return instrument not in await desk.venues[instrument.split(":")[1]].positions()
    except VenueDown:
        return False


def rollback_usd(opened: Sequence[LegResult], closed: Sequence[LegResult], *, kept: Mapping[int, float]) -> float:
    """Cash that opening and closing again took, positive when it hurts, without what stays (``kept``, a share by leg).

    Dust that could not be sold is paid for and counts in full.
    """
    return sum(_paid_usd(one) * (1.0 - kept.get(one.leg, 0.0)) for one in opened) + sum(map(_paid_usd, closed))


def _paid_usd(one: LegResult) -> float:
    in_base = abs(abs(one.position_change_base) - one.filled_base) * (one.fill_price or 0.0)
    return one.side * one.notional_usd + one.fee_usd - in_base
