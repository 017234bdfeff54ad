"""The account at OKX: trades, cash, positions, settings."""

from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.okx_names import inst_id, inst_type, pair
from basis_bt.live.fake.records import Refused, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
)

_WALLETS = {"6": "funding", "18": "perp"}


def fills(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Trades, newest first; a fee that was paid is negative."""
    params = call.params
    since_us = int(params.get("begin", "0")) * 1000
    until_us = int(params.get("end", "9000000000000")) * 1000 + 999
    rows = []
    for trade in reversed(sim.trades):
        contract = sim.contracts[trade.instrument]
        if (
            params.get("instType") in (None, inst_type(contract))
            and call.instrument in (None, trade.instrument)
            and params.get("ordId") in (None, trade.venue_order_id)
            and since_us <= trade.ts_us <= until_us
        ):
            row = {
                "side": "buy" if trade.side > 0 else "sell", "fillPx": text(trade.price),
                "fillSz": text(trade.quantity_base / contract.contract_base), "fee": text(-trade.fee),
                "feeCcy": trade.fee_asset, "ordId": trade.venue_order_id, "instType": inst_type(contract),
                "instId": inst_id(contract), "clOrdId": trade.client_order_id, "posSide": "net",
                "execType": "M" if trade.is_maker else "T", "tradeId": trade.trade_id,
                "billId": "9" + trade.trade_id, "ts": str(trade.ts_us // 1000),
                "fillPnl": text(trade.realised_usd), "tag": "",
            }  # fmt: skip
            rows += [row] * treatment.lens.copies
    return rows[: int(params.get("limit", "100"))]


def balance(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The trading account."""
    details = []
    for coin, amount in sim.wallets.cash["trading"].items():
        profit, initial, _ = bars.margin(sim, coin)
        free = sim.free("trading", coin)
        details.append(
            {
                "ccy": coin, "eq": text(amount + profit), "cashBal": text(amount), "availBal": text(free),
                "availEq": text(free), "frozenBal": text(amount + profit - free), "upl": text(profit),
                "imr": text(initial), "uTime": str(sim.venue_now_ms()),
            }
        )  # fmt: skip
    return {"totalEq": "", "uTime": str(sim.venue_now_ms()), "details": details}


def funding_balance(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The funding account."""
    return [
        {"ccy": coin, "bal": text(amount), "availBal": text(amount), "frozenBal": "0"}
        for coin, amount in sim.wallets.cash["funding"].items()
    ]


def positions(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Signed, in contracts; those that are not zero."""
    wanted = call.params.get("instId", "")
    rows = []
    for instrument, position in sim.positions.items():
        updated_us, base, entry = position.seen(treatment.lens.positions_lag)
        contract = sim.contracts[instrument]
        if not base or (wanted and inst_id(contract) not in wanted.split(",")):
            continue
        mark = sim.mark_price(instrument)
        value = abs(base) * mark
        rows.append(
            {
                "instType": "SWAP", "instId": inst_id(contract), "mgnMode": position.margin_mode,
                "posSide": ("long" if base > 0 else "short") if sim.is_hedge_mode else "net",
                "pos": text(base / contract.contract_base), "avgPx": text(entry), "markPx": text(mark),
                "upl": text(base * (mark - entry)), "lever": text(position.leverage),
                "liqPx": text(bars.liquidation_price(sim, instrument, base, entry)),
                "imr": text(value / position.leverage), "mmr": text(value * bars.MAINTENANCE_FRAC),
                "mgnRatio": text(sim.wallets.amount("trading", contract.quote) / (value * bars.MAINTENANCE_FRAC)),
                "notionalUsd": text(value), "ccy": contract.quote, "uTime": str(updated_us // 1000),
                "cTime": str(updated_us // 1000), "posId": "1",
            }
        )  # fmt: skip
    return rows


def config(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Position mode, and account level 2 (futures mode)."""
    return {"uid": "1", "acctLv": "2", "posMode": "long_short_mode" if sim.is_hedge_mode else "net_mode"}


def leverage_info(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one perpetual."""
    position = sim.positions[demand_instrument(call)]
    return {
        "instId": call.params["instId"], "mgnMode": call.params.get("mgnMode", "cross"), "posSide": "net",
        "lever": text(position.leverage),
    }  # fmt: skip


def bills(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Funding, newest first, positive when received."""
    since_us = int(call.params.get("begin", "0")) * 1000
    return [
        {
            "balChg": text(payment.amount), "billId": payment.payment_id, "ccy": payment.asset,
            "instId": inst_id(sim.contracts[payment.instrument]), "instType": "SWAP", "type": "8",
            "subType": "174" if payment.amount > 0 else "173", "pnl": text(payment.amount),
            "sz": text(abs(payment.position_base) / sim.contracts[payment.instrument].contract_base),
            "ts": str(payment.ts_us // 1000),
        }
        for payment in reversed(sim.funding)
        if payment.ts_us >= since_us and call.params.get("type", "8") == "8"
        for _ in range(treatment.lens.copies)
    ]  # fmt: skip


def trade_fee(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Negative where the account pays."""
    kind = call.params["instType"]
    family = call.params.get("instFamily") or call.params.get("uly") or call.params.get("instId")
    for contract in sim.contracts.values():
        if inst_type(contract) == kind and family in (None, pair(contract), inst_id(contract)):
            maker, taker = text(-contract.maker_fee_bps * 1e-4), text(-contract.taker_fee_bps * 1e-4)
            return {
                "instType": kind, "maker": maker, "taker": taker, "makerU": maker if contract.is_margined else "",
                "takerU": taker if contract.is_margined else "", "level": "Lv1", "ts": str(sim.venue_now_ms()),
            }  # fmt: skip
    raise Refused("bad_request", "no such instrument")


def set_leverage(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Leverage and margin mode of one perpetual."""
    leverage, mode = float(call.params["lever"]), call.params["mgnMode"]
    if not 1.0 <= leverage <= bars.MAX_LEVERAGE or mode not in ("cross", "isolated"):
        raise Refused("bad_request", "lever or mgnMode")
    position = sim.positions[demand_instrument(call)]
    position.leverage, position.margin_mode = leverage, mode
    return {"instId": call.params["instId"], "lever": text(leverage), "mgnMode": mode, "posSide": ""}


def set_position_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Account wide; the same again is a success."""
    sim.is_hedge_mode = call.params["posMode"] == "long_short_mode"
    return {"posMode": call.params["posMode"]}


def transfer(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Between 6 (funding) and 18 (trading)."""
    params = call.params
    if params["from"] not in _WALLETS or params["to"] not in _WALLETS:
        raise Refused("bad_request", "from or to")
    number = sim.transfer(
        params["ccy"], float(params["amt"]), source=_WALLETS[params["from"]], target=_WALLETS[params["to"]]
    )
    return {
        "transId": number, "ccy": params["ccy"], "from": params["from"], "amt": params["amt"], "to": params["to"],
    }  # fmt: skip
