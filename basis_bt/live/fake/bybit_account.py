"""The account at Bybit: trades, cash, positions, settings."""

from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.records import Refused, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    joined,
)

_WALLETS = {"UNIFIED": "perp", "FUND": "funding"}
_MARGIN_MODES = {"REGULAR_MARGIN": "cross", "ISOLATED_MARGIN": "isolated", "PORTFOLIO_MARGIN": "portfolio"}


def executions(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Fills, or settlements (whose ``execFee`` is positive when paid), newest first."""
    params = call.params
    since_us = int(params.get("startTime", "0")) * 1000
    until_us = int(params.get("endTime", "9000000000000")) * 1000 + 999
    is_spot = params.get("category") == "spot"
    rows: list[dict[str, Any]] = []
    if params.get("execType") == "Funding":
        for payment in sim.funding:
            if call.instrument in (None, payment.instrument) and since_us <= payment.ts_us <= until_us:
                size = abs(payment.position_base)
                rows.append(
                    {
                        "symbol": joined(sim.contracts[payment.instrument]), "orderId": "", "orderLinkId": "",
                        "side": "Buy" if payment.position_base > 0 else "Sell", "execId": payment.payment_id,
                        "execPrice": text(payment.mark_price), "execQty": text(size),
                        "execValue": text(size * payment.mark_price), "execFee": text(-payment.amount),
                        "feeCurrency": payment.asset, "feeRate": text(payment.rate), "execType": "Funding",
                        "isMaker": False, "execTime": str(payment.ts_us // 1000),
                    }
                )  # fmt: skip
    else:
        for trade in sim.trades:
            if (
                sim.contracts[trade.instrument].is_margined != is_spot
                and call.instrument in (None, trade.instrument)
                and since_us <= trade.ts_us <= until_us
                and params.get("orderId") in (None, trade.venue_order_id)
                and params.get("orderLinkId") in (None, trade.client_order_id)
            ):
                notional = trade.price * trade.quantity_base
                rows.append(
                    {
                        "symbol": joined(sim.contracts[trade.instrument]), "orderId": trade.venue_order_id,
                        "orderLinkId": trade.client_order_id, "side": "Buy" if trade.side > 0 else "Sell",
                        "execId": trade.trade_id, "execPrice": text(trade.price),
                        "execQty": text(trade.quantity_base), "execValue": text(notional),
                        "execFee": text(trade.fee), "feeCurrency": trade.fee_asset,
                        "feeRate": text(abs(trade.fee) / notional), "execType": "Trade",
                        "isMaker": trade.is_maker, "execTime": str(trade.ts_us // 1000),
                    }
                )  # fmt: skip
    rows = [row for row in reversed(rows) for _ in range(treatment.lens.copies)]
    return {"category": params.get("category", ""), "list": rows, "nextPageCursor": ""}


def wallet(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The unified account."""
    coins = []
    for coin, amount in sim.wallets.cash["unified"].items():
        profit, initial, maintenance = bars.margin(sim, coin)
        locked = amount + profit - initial - sim.free("unified", coin)
        coins.append(
            {
                "coin": coin, "walletBalance": text(amount), "equity": text(amount + profit),
                "locked": text(locked), "totalOrderIM": "0", "totalPositionIM": text(initial),
                "totalPositionMM": text(maintenance), "unrealisedPnl": text(profit),
            }
        )  # fmt: skip
    return {"list": [{"accountType": "UNIFIED", "coin": coins}]}


def coins_balance(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The funding wallet."""
    return {
        "accountType": "FUND",
        "balance": [
            {"coin": coin, "walletBalance": text(amount), "transferBalance": text(amount)}
            for coin, amount in sim.wallets.cash["funding"].items()
        ],
    }


def positions(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """With a symbol also a position of zero, without one only those that are not."""
    rows = []
    for instrument, position in sim.positions.items():
        updated_us, base, entry = position.seen(treatment.lens.positions_lag)
        if call.instrument not in (None, instrument) or (not base and call.instrument is None):
            continue
        mark = sim.mark_price(instrument)
        value = abs(base) * mark
        rows.append(
            {
                "symbol": joined(sim.contracts[instrument]), "size": text(abs(base)),
                "side": "" if not base else "Buy" if base > 0 else "Sell",
                "avgPrice": text(entry), "positionValue": text(abs(base) * entry), "markPrice": text(mark),
                "liqPrice": text(bars.liquidation_price(sim, instrument, base, entry)) if base else "",
                "leverage": text(position.leverage), "positionIM": text(value / position.leverage),
                "positionMM": text(value * bars.MAINTENANCE_FRAC), "unrealisedPnl": text(base * (mark - entry)),
                "positionIdx": (2 if base < 0 else 1) if sim.is_hedge_mode else 0, "tradeMode": 0,
                "positionStatus": "Normal", "createdTime": str(updated_us // 1000),
                "updatedTime": str(updated_us // 1000),
            }
        )  # fmt: skip
    return {"category": "linear", "list": rows, "nextPageCursor": ""}


def fee_rate(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Maker and taker."""
    is_spot = call.params.get("category") == "spot"
    return {
        "list": [
            {
                "symbol": joined(contract),
                "takerFeeRate": text(contract.taker_fee_bps * 1e-4),
                "makerFeeRate": text(contract.maker_fee_bps * 1e-4),
            }
            for instrument, contract in sim.contracts.items()
            if contract.is_margined != is_spot and call.instrument in (None, instrument)
        ]
    }


def key_info(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """A unified account."""
    return {"readOnly": 0, "uta": 1, "unified": 0, "permissions": {}}


def account_info(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """UTA 2.0 and its margin mode."""
    mode = {own: theirs for theirs, own in _MARGIN_MODES.items()}[sim.account_margin_mode]
    return {"unifiedMarginStatus": 5, "marginMode": mode, "updatedTime": str(sim.venue_now_ms())}


def set_leverage(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one perpetual; the same again is an error."""
    position, leverage = sim.positions[demand_instrument(call)], float(call.params["buyLeverage"])
    if not 1.0 <= leverage <= bars.MAX_LEVERAGE:
        raise Refused("bad_request", "leverage out of range")
    if leverage == position.leverage:
        raise Refused("unchanged", "leverage")
    position.leverage = leverage
    return {}


def set_margin_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Account wide; the same again is a success."""
    sim.account_margin_mode = _MARGIN_MODES[call.params["setMarginMode"]]
    return {"reasons": []}


def switch_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One-way (0) or hedge (3)."""
    is_hedge = call.params["mode"] == "3"
    if is_hedge == sim.is_hedge_mode:
        raise Refused("unchanged", "position mode")
    sim.is_hedge_mode = is_hedge
    return {}


def transfer(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Between ``UNIFIED`` and ``FUND``."""
    params = call.params
    if params["fromAccountType"] not in _WALLETS or params["toAccountType"] not in _WALLETS:
        raise Refused("bad_request", "account type")
    sim.transfer(
        params["coin"],
        float(params["amount"]),
        source=_WALLETS[params["fromAccountType"]],
        target=_WALLETS[params["toAccountType"]],
    )
    return {"transferId": params["transferId"]}
