"""What a venue checks before it accepts an order, in the order in which they are told."""

from typing import TYPE_CHECKING

from basis_bt.live.fake.records import OPEN, Refused, Ticket, clean
from basis_bt.live.venue import Contract

if TYPE_CHECKING:
    from basis_bt.live.fake.simulator import SimVenue


def check_ticket(sim: "SimVenue", ticket: Ticket) -> bool:
    """Raise ``Refused`` for an order that may not be; returns whether it would take from the book at once."""
    contract = sim.contracts[ticket.instrument]
    if contract.is_margined and sim.is_hedge_mode != (ticket.position_side is not None):
        raise Refused("position_mode", "the order's position side does not match the account's position mode")
    if ticket.reduce_only and not contract.is_margined:
        raise Refused("bad_request", "reduceOnly is not sent for spot")
    if not contract.is_trading:
        raise Refused("halted", "the instrument is not trading")
    _check_size(contract, ticket, sim.book(ticket.instrument).mid, sim.rules.minimum_spares_reduce_only)
    _check_id(sim, ticket)
    taken = sim.preview(ticket, ticket.quantity_base)
    if ticket.time_in_force == "GTX" and taken:
        if sim.rules.post_only_is_refused:
            raise Refused("post_only", "the order would take at once")
        return True
    if ticket.reduce_only:
        if -ticket.side * sim.positions[ticket.instrument].position_base <= 0.0:
            raise Refused("reduce_only", "there is no position to reduce")
        return bool(taken)
    _check_money(sim, contract, ticket, taken)
    return bool(taken)


def _is_multiple(number: float, step: float) -> bool:
    steps = number / step
    return abs(steps - round(steps)) <= 1e-6 * max(1.0, abs(steps) * 1e-3)


def _check_size(contract: Contract, ticket: Ticket, mid: float, spares_reduce_only: bool) -> None:
    if not ticket.quantity_base > 0.0 or not _is_multiple(ticket.quantity_base, contract.lot_base):
        raise Refused("lot", f"the quantity is no multiple of the lot {contract.lot_base}")
    price = mid
    if ticket.kind == "limit":
        if ticket.limit_price is None or not ticket.limit_price > 0.0:
            raise Refused("bad_request", "a limit order needs a price")
        if not _is_multiple(ticket.limit_price, contract.tick):
            raise Refused("tick", f"the price is no multiple of the tick {contract.tick}")
        price = ticket.limit_price
    if ticket.quantity_base < contract.min_base - 1e-12:
        raise Refused("minimum", f"the quantity is below the minimum of {contract.min_base}")
    is_spared = ticket.reduce_only and spares_reduce_only
    if not is_spared and ticket.quantity_base * price < contract.min_notional_usd - 1e-9:
        raise Refused("minimum", f"the notional is below the minimum of {contract.min_notional_usd}")


def _check_id(sim: "SimVenue", ticket: Ticket) -> None:
    order = sim.find(ticket.instrument, client_order_id=ticket.client_order_id) if ticket.client_order_id else None
    if order is not None and (sim.rules.is_id_unique_for_ever or order.status == OPEN):
        raise Refused("duplicate", "the client order id is taken")


def _check_money(sim: "SimVenue", contract: Contract, ticket: Ticket, taken: list[tuple[float, float]]) -> None:
    wallet = sim.wallet_of(ticket.instrument)
    cost = sum(price * part for price, part in taken)
    rest = clean(ticket.quantity_base - sum(part for _, part in taken))
    cost += rest * (ticket.limit_price if ticket.kind == "limit" and ticket.limit_price else 0.0)
    if not contract.is_margined:
        asset, need = (contract.quote, cost) if ticket.side > 0 else (contract.base, ticket.quantity_base)
        if need > sim.free(wallet, asset) + 1e-9:
            raise Refused("funds", f"not enough {asset}")
        return
    position = sim.positions[ticket.instrument]
    opening = max(0.0, ticket.quantity_base - max(0.0, -ticket.side * position.position_base))
    need = cost * opening / ticket.quantity_base / position.leverage
    need += cost * contract.taker_fee_bps * 1e-4
    if opening and need > sim.free(wallet, contract.quote) + 1e-9:
        raise Refused("margin", "not enough margin")
