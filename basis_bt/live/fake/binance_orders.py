"""Orders at Binance, from their creation to their end."""

from typing import Any

from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, Ticket, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    find_or_refuse,
    joined,
    named,
    place,
    seen_open,
)

_TIME_IN_FORCE = ("GTC", "IOC", "FOK", "GTX")


def create(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """A market, limit or post-only order."""
    params = call.params
    kind = params.get("type", "")
    force = "GTX" if kind == "LIMIT_MAKER" else params.get("timeInForce", "GTC")
    if kind not in ("MARKET", "LIMIT", "LIMIT_MAKER") or force not in _TIME_IN_FORCE:
        raise Refused("bad_request", "order type or time in force")
    if "reduceOnly" in params and call.path.startswith("/api"):
        raise Refused("bad_request", "reduceOnly is not a parameter of spot")
    side = params.get("positionSide", "BOTH")
    ticket = Ticket(
        client_order_id=params.get("newClientOrderId", ""),
        instrument=demand_instrument(call),
        side=1 if params["side"] == "BUY" else -1,
        quantity_base=float(params.get("quantity", "0")),
        quantity_quote=float(params["quoteOrderQty"]) if "quoteOrderQty" in params else None,
        kind="market" if kind == "MARKET" else "limit",
        limit_price=float(params["price"]) if kind != "MARKET" else None,
        time_in_force=force,  # type: ignore[arg-type]
        reduce_only=params.get("reduceOnly", "false").lower() == "true",
        position_side=None if side == "BOTH" else side,
    )
    order = place(sim, ticket, treatment)
    return _created(sim, order)


def find(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """By ``orderId`` or ``origClientOrderId``."""
    order = find_or_refuse(
        sim, call, treatment, call.params.get("orderId", ""), call.params.get("origClientOrderId", "")
    )
    return _queried(sim, order, treatment.lens)


def cancel(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """By either id; an order that is not open is unknown."""
    order = named(sim, call, call.params.get("orderId", ""), call.params.get("origClientOrderId", ""))
    order = sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel)
    body = _queried(sim, order, Lens())
    if call.path.startswith("/api"):
        body["origClientOrderId"] = body["clientOrderId"]
        body["transactTime"] = body["updateTime"]
    return body


def open_orders(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one symbol or of all."""
    lens = treatment.lens
    orders = seen_open(sim, call.instrument, lens)
    margined = call.path.startswith("/fapi")
    orders = [order for order in orders if sim.contracts[order.ticket.instrument].is_margined == margined]
    return [_queried(sim, order, lens) for order in orders for _ in range(lens.copies)]


def all_orders(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Open or not, oldest first."""
    lens, instrument = treatment.lens, demand_instrument(call)
    if lens.is_order_hidden:
        return []
    since_us = int(call.params.get("startTime", "0")) * 1000
    return [
        _queried(sim, order, lens)
        for order in sim.orders.values()
        if order.ticket.instrument == instrument and order.created_us >= since_us
        for _ in range(lens.copies)
    ]


def _created(sim: SimVenue, order: SimOrder) -> dict[str, Any]:
    body = _queried(sim, order, Lens())
    for name in ("avgPrice", "cumQuote", "time", "origQuoteOrderQty", "isWorking"):
        body.pop(name, None)
    if not sim.contracts[order.ticket.instrument].is_margined:
        body["transactTime"] = body.pop("updateTime")
        body["fills"] = [
            {
                "price": text(trade.price),
                "qty": text(trade.quantity_base),
                "commission": text(trade.fee),
                "commissionAsset": trade.fee_asset,
                "tradeId": int(trade.trade_id),
            }
            for trade in sim.trades
            if trade.venue_order_id == order.venue_order_id
        ]
    return body


def _queried(sim: SimVenue, order: SimOrder, lens: Lens) -> dict[str, Any]:
    ticket, moment = order.ticket, lens.order(order)
    contract = sim.contracts[ticket.instrument]
    is_post_only_spot = ticket.time_in_force == "GTX" and not contract.is_margined
    body: dict[str, Any] = {
        "symbol": joined(contract),
        "orderId": int(order.venue_order_id),
        "clientOrderId": ticket.client_order_id,
        "price": text(ticket.limit_price or 0.0),
        "origQty": text(ticket.quantity_base),
        "executedQty": text(moment.filled_base),
        "status": _status(order, moment.status, moment.filled_base),
        "timeInForce": "GTC" if is_post_only_spot else ticket.time_in_force,
        "type": "LIMIT_MAKER" if is_post_only_spot else ticket.kind.upper(),
        "side": "BUY" if ticket.side > 0 else "SELL",
        "time": order.created_us // 1000,
        "updateTime": moment.ts_us // 1000,
    }
    if not contract.is_margined:
        return {**body, "cummulativeQuoteQty": text(moment.filled_quote), "isWorking": True}
    average = moment.filled_quote / moment.filled_base if moment.filled_base else 0.0
    return {
        **body,
        "avgPrice": text(average),
        "cumQuote": text(moment.filled_quote),
        "reduceOnly": ticket.reduce_only,
        "positionSide": ticket.position_side or "BOTH",
    }


def _status(order: SimOrder, status: str, filled_base: float) -> str:
    if status == OPEN:
        return "PARTIALLY_FILLED" if filled_base else "NEW"
    if status == CANCELED:
        return "CANCELED" if order.ended_by == "user" else "EXPIRED"
    return "FILLED"
