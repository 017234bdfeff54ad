"""Every order of one or several journals that has come to its end, as one row: what it paid and how it went.

Taken from the orders themselves (intent, fills, end) and not from leg results, which may be several orders in one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from basis_bt.core.instruments import Instrument
from basis_bt.live import event_types as kinds
from basis_bt.live.journal import Journal

SCHEMA = {
    "venue": pl.String, "instrument": pl.String, "client_order_id": pl.String, "purpose": pl.String,
    "is_limit": pl.Boolean, "side": pl.Int8, "outcome": pl.String, "quantity_base": pl.Float64,
    "filled_base": pl.Float64, "notional_usd": pl.Float64, "is_taker": pl.Boolean, "is_maker": pl.Boolean,
    "fee_bps": pl.Float64, "half_spread_bps": pl.Float64, "slippage_bps": pl.Float64, "delay_bps": pl.Float64,
    "volume_base": pl.Float64, "sent_us": pl.Int64, "done_us": pl.Int64, "latency_s": pl.Float64,
}  # fmt: skip
_TYPES = (kinds.INTENT, kinds.FILL, kinds.LATE_FILL, kinds.LEG_RESULT, *kinds.TERMINAL)


def executions(journals: Iterable[Journal]) -> pl.DataFrame:
    """One row an order with an end; an order that several journals have counts once.

    ``outcome`` is ``filled``, ``partial``, ``unfilled`` (also a post-only order that would have been taken),
    ``refused`` or ``missing``. ``slippage_bps`` is the fill against the mid at the send, ``delay_bps`` that mid against
    the price of the decision, both positive when they hurt. ``fee_bps`` is null where a fee in a third asset has no
    known worth, ``volume_base`` (of the last closed bar) where the leg result was recorded without it. An order whose
    fills are of both kinds is neither ``is_taker`` nor ``is_maker``.
    """
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for journal in journals:
        for row in _of_journal(journal):
            rows.setdefault((row["instrument"], row["client_order_id"], row["sent_us"]), row)
    frame = pl.DataFrame(list(rows.values()), schema=SCHEMA, orient="row")
    return frame.sort("done_us", "instrument", "client_order_id")


def _of_journal(journal: Journal) -> Iterable[dict[str, Any]]:
    orders: dict[str, Mapping[str, Any]] = {}
    fills: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    results: dict[str, Mapping[str, Any]] = {}
    volumes: dict[tuple[str | None, str | None], float] = {}
    ends: dict[str, tuple[str, int, Mapping[str, Any]]] = {}
    for event in journal.events(_TYPES):
        name = event.client_order_id
        if name is None:
            continue
        if event.type == kinds.INTENT:
            orders[name] = event.payload
        elif event.type == kinds.FILL:
            fills[name].append(event.payload)
        elif event.type == kinds.LEG_RESULT:
            results[name] = event.payload
            if event.payload.get("volume_base") is not None:
                volumes[event.intent, event.instrument] = event.payload["volume_base"]
        elif event.type in kinds.TERMINAL:
            ends[name] = (event.type, event.ts_us, event.payload)
    for name, order in orders.items():
        if name in ends:
            row = _row(order, fills[name], results.get(name), ends[name])
            yield {**row, "volume_base": volumes.get((order["intent"].partition(".")[0], order["instrument"]))}


def _row(
    order: Mapping[str, Any], fills: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None,
    end: tuple[str, int, Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    instrument = Instrument.parse(order["instrument"])
    filled = sum(fill["quantity_base"] for fill in fills)
    paid = sum(fill["quantity_base"] * fill["price"] for fill in fills)
    price, reference, side = paid / filled if filled else math.nan, order["reference_price"], order["side"]
    fee = _fee_quote(instrument, fills, result, filled)
    makers = {fill["is_maker"] for fill in fills}
    row = {
        "venue": instrument.venue,
        "outcome": _outcome(order, filled, end),
        "is_limit": order["kind"] == "limit" or order["post_only"],
        "filled_base": filled,
        "notional_usd": paid,
        "is_taker": makers == {False},
        "is_maker": makers == {True},
        "fee_bps": None if fee is None or not paid else 1e4 * fee / paid,
        "slippage_bps": 1e4 * side * (price - reference) / reference if filled and reference else None,
        "delay_bps": 1e4 * side * (reference - order["arrival_price"]) / order["arrival_price"],
        "volume_base": None,
        "done_us": end[1],
        "latency_s": (end[1] - order["sent_us"]) / 1e6,
    }
    same = ("instrument", "client_order_id", "purpose", "side", "quantity_base", "half_spread_bps", "sent_us")
    return {name: row[name] if name in row else order[name] for name in (*same, *row)}


def _outcome(order: Mapping[str, Any], filled: float, end: tuple[str, int, Mapping[str, Any]]) -> str:
    kind, _, payload = end
    if kind == kinds.MISSING:
        return "missing"
    if kind == kinds.ORDER_REFUSED:
        return "unfilled" if order["post_only"] and payload.get("kind") == "post_only" else "refused"
    if filled >= order["quantity_base"] * (1.0 - 1e-9):
        return "filled"
    return "partial" if filled else "unfilled"


def _fee_quote(
    instrument: Instrument, fills: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None, filled: float
) -> float | None:
    """Fees in quote. What a third asset is worth is known from the leg result, if that is of this order alone."""
    total = 0.0
    for fill in fills:
        if fill["fee_asset"] == instrument.quote:
            total += fill["fee"]
        elif fill["fee_asset"] == instrument.base:
            total += fill["fee"] * fill["price"]
        elif fill["fee"]:
            is_alone = result is not None and math.isclose(result["filled_base"], filled, rel_tol=1e-9)
            return float(result["fee_usd"]) if result is not None and is_alone else None
    return total
