"""Orders at OKX, from their creation to their end."""

from typing import Any

from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.okx_names import inst_id, inst_type
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, Ticket, clean, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    find_or_refuse,
    named,
    place,
    seen_done,
    seen_open,
)

#: order type -> (kind, time in force); ``optimal_limit_ioc`` is a market order that does not rest
_TYPES = {
    "market": ("market", "GTC"),
    "optimal_limit_ioc": ("market", "GTC"),
    "limit": ("limit", "GTC"),
    "post_only": ("limit", "GTX"),
    "ioc": ("limit", "IOC"),
    "fok": ("limit", "FOK"),
}


def create(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One order; spot market orders say with ``tgtCcy`` what they count."""
    params = call.params
    if params.get("ordType") not in _TYPES:
        raise Refused("bad_request", "ordType")
    kind, force = _TYPES[params["ordType"]]
    instrument = demand_instrument(call)
    contract = sim.contracts[instrument]
    size = float(params["sz"])
    counts_quote = not contract.is_margined and kind == "market" and params["side"] == "buy"
    is_quote = counts_quote and params.get("tgtCcy", "quote_ccy") == "quote_ccy"
    side = params.get("posSide", "net")
    ticket = Ticket(
        client_order_id=params.get("clOrdId", ""),
        instrument=instrument,
        side=1 if params["side"] == "buy" else -1,
        quantity_base=0.0 if is_quote else clean(size * contract.contract_base),
        quantity_quote=size if is_quote else None,
        kind=kind,  # type: ignore[arg-type]
        limit_price=None if kind == "market" else float(params["px"]),
        time_in_force=force,  # type: ignore[arg-type]
        reduce_only=contract.is_margined and params.get("reduceOnly", "false").lower() == "true",
        position_side=None if side == "net" else side,
    )
    return _ack(sim, place(sim, ticket, treatment))


def cancel(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """By either id."""
    order = named(sim, call, call.params.get("ordId", ""), call.params.get("clOrdId", ""))
    return _ack(sim, sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel))


def _ack(sim: SimVenue, order: SimOrder) -> dict[str, str]:
    return {
        "clOrdId": order.ticket.client_order_id, "ordId": order.venue_order_id, "tag": "",
        "ts": str(sim.venue_now_ms()), "sCode": "0", "sMsg": "",
    }  # fmt: skip


def find(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """By ``ordId`` or ``clOrdId``."""
    order = find_or_refuse(sim, call, treatment, call.params.get("ordId", ""), call.params.get("clOrdId", ""))
    return _order(sim, order, treatment.lens)


def pending(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Open orders."""
    return _rows(sim, call, seen_open(sim, call.instrument, treatment.lens), treatment.lens)


def history(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Orders that are over, newest first."""
    orders = seen_done(sim, call.instrument, treatment.lens)
    return _rows(sim, call, orders[::-1], treatment.lens)


def _rows(sim: SimVenue, call: Call, orders: list[SimOrder], lens: Lens) -> list[dict[str, str]]:
    kind = call.params.get("instType")
    return [
        _order(sim, order, lens)
        for order in orders
        if kind in (None, inst_type(sim.contracts[order.ticket.instrument]))
        for _ in range(lens.copies)
    ]


def _order(sim: SimVenue, order: SimOrder, lens: Lens) -> dict[str, str]:
    ticket, moment = order.ticket, lens.order(order)
    contract = sim.contracts[ticket.instrument]
    state = {OPEN: "partially_filled" if moment.filled_base else "live", CANCELED: "canceled"}.get(
        moment.status, "filled"
    )
    kind = next(name for name, form in _TYPES.items() if form == (ticket.kind, ticket.time_in_force))
    asset, fee = next(iter(order.fees.items()), ("", 0.0))
    is_filled = bool(moment.filled_base)
    return {
        "instType": inst_type(contract), "instId": inst_id(contract), "ordId": order.venue_order_id,
        "clOrdId": ticket.client_order_id, "px": text(ticket.limit_price) if ticket.limit_price else "",
        "sz": text(ticket.quantity_base / contract.contract_base), "ordType": kind,
        "side": "buy" if ticket.side > 0 else "sell", "posSide": ticket.position_side or "net",
        "tdMode": "cross" if contract.is_margined else "cash", "tgtCcy": "" if contract.is_margined else "base_ccy",
        "accFillSz": text(moment.filled_base / contract.contract_base), "state": state,
        "avgPx": text(moment.filled_quote / moment.filled_base) if is_filled else "",
        "fee": text(-fee) if is_filled else "0", "feeCcy": asset if is_filled else "",
        "fillTime": str(moment.ts_us // 1000) if is_filled else "", "uTime": str(moment.ts_us // 1000),
        "cTime": str(order.created_us // 1000), "reduceOnly": str(ticket.reduce_only).lower(), "category": "normal",
        "tag": "",
    }  # fmt: skip
