"""Orders at Bybit, from their creation to their end."""

from typing import Any

from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, Ticket, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    joined,
    named,
    place,
    seen_done,
    seen_open,
)

_FORCES = {"GTC": "GTC", "IOC": "IOC", "FOK": "FOK", "PostOnly": "GTX"}


def create(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """A market, limit or post-only order."""
    params = call.params
    force = params.get("timeInForce", "GTC")
    if params.get("orderType") not in ("Market", "Limit") or force not in _FORCES:
        raise Refused("bad_request", "order type or time in force")
    is_spot = params["category"] == "spot"
    is_market = params["orderType"] == "Market"
    quantity = float(params["qty"])
    is_quote = is_spot and is_market and params.get("marketUnit") != "baseCoin" and params["side"] == "Buy"
    is_quote = is_quote or params.get("marketUnit") == "quoteCoin"
    index = params.get("positionIdx", "0")
    ticket = Ticket(
        client_order_id=params.get("orderLinkId", ""),
        instrument=demand_instrument(call),
        side=1 if params["side"] == "Buy" else -1,
        quantity_base=0.0 if is_quote else quantity,
        quantity_quote=quantity if is_quote else None,
        kind="market" if is_market else "limit",
        limit_price=None if is_market else float(params["price"]),
        time_in_force=_FORCES[force],  # type: ignore[arg-type]
        reduce_only=params.get("reduceOnly", "false").lower() == "true",
        position_side=None if index == "0" else index,
    )
    order = place(sim, ticket, treatment)
    return {"orderId": order.venue_order_id, "orderLinkId": order.ticket.client_order_id}


def cancel(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """By either id; an order that is not open does not exist."""
    order = named(sim, call, call.params.get("orderId", ""), call.params.get("orderLinkId", ""))
    order = sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel)
    return {"orderId": order.venue_order_id, "orderLinkId": order.ticket.client_order_id}


def realtime(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Open orders; with an id also a recent one that is over."""
    lens = treatment.lens
    orders = seen_open(sim, call.instrument, lens)
    if call.operation == "find":
        orders += seen_done(sim, call.instrument, lens)
    return _rows(sim, call, orders, lens)


def history(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Orders that are over, newest first."""
    orders = seen_done(sim, call.instrument, treatment.lens)
    since_us = int(call.params.get("startTime", "0")) * 1000
    orders = [order for order in reversed(orders) if order.created_us >= since_us]
    return _rows(sim, call, orders, treatment.lens)


def _rows(sim: SimVenue, call: Call, orders: list[SimOrder], lens: Lens) -> dict[str, Any]:
    params = call.params
    is_spot = params.get("category") == "spot"
    rows = [
        row
        for order in orders
        if sim.contracts[order.ticket.instrument].is_margined != is_spot
        and (not params.get("orderId") or params["orderId"] == order.venue_order_id)
        and (not params.get("orderLinkId") or params["orderLinkId"] == order.ticket.client_order_id)
        for row in [_order(sim, order, lens)]
        if params.get("orderStatus") in (None, row["orderStatus"])
        for _ in range(lens.copies)
    ]
    return {"category": params.get("category", ""), "nextPageCursor": "", "list": rows}


def _status(sim: SimVenue, order: SimOrder, status: str, filled_base: float) -> str:
    if status == OPEN:
        return "PartiallyFilled" if filled_base else "New"
    if status == CANCELED:
        is_spot = not sim.contracts[order.ticket.instrument].is_margined
        return "PartiallyFilledCanceled" if is_spot and filled_base else "Cancelled"
    return "Filled"


def _order(sim: SimVenue, order: SimOrder, lens: Lens) -> dict[str, Any]:
    ticket, moment = order.ticket, lens.order(order)
    force = {theirs: own for own, theirs in _FORCES.items()}[ticket.time_in_force]
    average = text(moment.filled_quote / moment.filled_base) if moment.filled_base else ""
    fees = {asset: text(fee) for asset, fee in order.fees.items()} if moment.filled_base else {}
    left = ticket.quantity_base - moment.filled_base if moment.status == OPEN else 0.0
    return {
        "symbol": joined(sim.contracts[ticket.instrument]), "orderId": order.venue_order_id,
        "orderLinkId": ticket.client_order_id, "side": "Buy" if ticket.side > 0 else "Sell",
        "orderType": ticket.kind.capitalize(),
        "orderStatus": _status(sim, order, moment.status, moment.filled_base),
        "price": text(ticket.limit_price or 0.0), "qty": text(ticket.quantity_base),
        "cumExecQty": text(moment.filled_base), "cumExecValue": text(moment.filled_quote), "avgPrice": average,
        "cumExecFee": next(iter(fees.values()), "0"), "cumFeeDetail": fees, "leavesQty": text(left),
        "timeInForce": "IOC" if ticket.kind == "market" else force, "reduceOnly": ticket.reduce_only,
        "positionIdx": int(ticket.position_side or 0), "createdTime": str(order.created_us // 1000),
        "updatedTime": str(moment.ts_us // 1000),
    }  # fmt: skip
