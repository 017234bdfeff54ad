"""The account at Binance: trades, cash, positions, settings."""

from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.records import Refused, SimTrade, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Treatment,
    demand_instrument,
    joined,
)

_TRANSFERS = {"MAIN": "spot", "UMFUTURE": "perp", "FUNDING": "funding"}


def spot_trades(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Fills of a spot symbol."""
    return [
        {
            **_trade(call, trade),
            "isBuyer": trade.side > 0,
            "isMaker": trade.is_maker,
        }
        for trade in _trades(sim, call)
        for _ in range(treatment.lens.copies)
    ]


def perp_trades(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Fills of a perpetual."""
    return [
        {
            **_trade(call, trade),
            "side": "BUY" if trade.side > 0 else "SELL",
            "realizedPnl": text(trade.realised_usd),
            "positionSide": "BOTH",
            "maker": trade.is_maker,
            "buyer": trade.side > 0,
        }
        for trade in _trades(sim, call)
        for _ in range(treatment.lens.copies)
    ]


def spot_account(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Free and locked by coin."""
    return {
        "balances": [
            {
                "asset": coin,
                "free": text(sim.free("spot", coin)),
                "locked": text(amount - sim.free("spot", coin)),
            }
            for coin, amount in sim.wallets.cash["spot"].items()
        ],
        "updateTime": sim.venue_now_ms(),
    }


def funding_wallet(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """The funding wallet."""
    return [
        {"asset": coin, "free": text(amount), "locked": "0", "freeze": "0", "withdrawing": "0"}
        for coin, amount in sim.wallets.cash["funding"].items()
    ]


def perp_account(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Cash of the futures wallet."""
    assets = []
    for coin, amount in sim.wallets.cash["perp"].items():
        profit, margin, _ = bars.margin(sim, coin)
        assets.append(
            {
                "asset": coin, "walletBalance": text(amount), "marginBalance": text(amount + profit),
                "availableBalance": text(sim.free("perp", coin)), "initialMargin": text(margin),
                "unrealizedProfit": text(profit), "crossUnPnl": text(profit), "crossWalletBalance": text(amount),
            }
        )  # fmt: skip
    return {"assets": assets, "positions": []}


def positions(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Positions that are not zero."""
    rows = []
    for instrument, position in sim.positions.items():
        updated_us, base, entry = position.seen(treatment.lens.positions_lag)
        if not base or call.instrument not in (None, instrument):
            continue
        contract, mark = sim.contracts[instrument], sim.mark_price(instrument)
        notional = base * mark
        rows.append(
            {
                "symbol": joined(contract), "positionSide": "BOTH", "positionAmt": text(base),
                "entryPrice": text(entry), "breakEvenPrice": text(entry), "markPrice": text(mark),
                "unRealizedProfit": text(base * (mark - entry)),
                "liquidationPrice": text(bars.liquidation_price(sim, instrument, base, entry)),
                "isolatedMargin": "0", "notional": text(notional), "marginAsset": contract.quote,
                "isolatedWallet": "0", "initialMargin": text(abs(notional) / position.leverage),
                "maintMargin": text(abs(notional) * bars.MAINTENANCE_FRAC), "updateTime": updated_us // 1000,
            }
        )  # fmt: skip
    return rows


def brackets(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One bracket a symbol."""
    bracket = {
        "bracket": 1, "initialLeverage": int(bars.MAX_LEVERAGE), "notionalCap": 50_000_000, "notionalFloor": 0,
        "maintMarginRatio": bars.MAINTENANCE_FRAC, "cum": 0.0,
    }  # fmt: skip
    return [
        {"symbol": joined(sim.contracts[instrument]), "brackets": [bracket]}
        for instrument in sim.positions
        if call.instrument in (None, instrument)
    ]


def symbol_config(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Leverage and margin mode by symbol."""
    return [
        {
            "symbol": joined(sim.contracts[instrument]),
            "marginType": "CROSSED" if position.margin_mode == "cross" else "ISOLATED",
            "isAutoAddMargin": False,
            "leverage": int(position.leverage),
            "maxNotionalValue": "50000000",
        }
        for instrument, position in sim.positions.items()
        if call.instrument in (None, instrument)
    ]


def income(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Funding received (positive) or paid."""
    since_us = int(call.params.get("startTime", "0")) * 1000
    return [
        {
            "symbol": joined(sim.contracts[payment.instrument]), "incomeType": "FUNDING_FEE",
            "income": text(payment.amount), "asset": payment.asset, "info": "FUNDING_FEE",
            "time": payment.ts_us // 1000, "tranId": int(payment.payment_id), "tradeId": "",
        }
        for payment in sim.funding
        if call.instrument in (None, payment.instrument) and payment.ts_us >= since_us
        for _ in range(treatment.lens.copies)
    ]  # fmt: skip


def spot_fee(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Maker and taker of spot symbols."""
    return [
        {
            "symbol": joined(contract),
            "makerCommission": text(contract.maker_fee_bps * 1e-4),
            "takerCommission": text(contract.taker_fee_bps * 1e-4),
        }
        for contract in sim.contracts.values()
        if not contract.is_margined and call.params.get("symbol") in (None, joined(contract))
    ]


def perp_fee(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Maker and taker of one perpetual."""
    contract = sim.contracts[demand_instrument(call)]
    return {
        "symbol": joined(contract),
        "makerCommissionRate": text(contract.maker_fee_bps * 1e-4),
        "takerCommissionRate": text(contract.taker_fee_bps * 1e-4),
    }


def set_leverage(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one perpetual."""
    leverage = float(call.params["leverage"])
    if not 1.0 <= leverage <= bars.MAX_LEVERAGE:
        raise Refused("bad_request", "leverage out of range")
    sim.positions[demand_instrument(call)].leverage = leverage
    return {"leverage": int(leverage), "maxNotionalValue": "50000000", "symbol": call.params["symbol"]}


def set_margin_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Of one perpetual; the same again is an error."""
    position = sim.positions[demand_instrument(call)]
    mode = "cross" if call.params["marginType"] == "CROSSED" else "isolated"
    if mode == position.margin_mode:
        raise Refused("unchanged", "margin mode")
    position.margin_mode = mode
    return {"code": 200, "msg": "success"}


def position_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """One-way or hedge."""
    return {"dualSidePosition": sim.is_hedge_mode}


def set_position_mode(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """Account wide; the same again is an error."""
    is_hedge = call.params["dualSidePosition"].lower() == "true"
    if is_hedge == sim.is_hedge_mode:
        raise Refused("unchanged", "position mode")
    sim.is_hedge_mode = is_hedge
    return {"code": 200, "msg": "success"}


def transfer(sim: SimVenue, call: Call, treatment: Treatment) -> Any:
    """``MAIN_UMFUTURE`` and the like."""
    source, _, target = call.params["type"].partition("_")
    if source not in _TRANSFERS or target not in _TRANSFERS:
        raise Refused("bad_request", "transfer type")
    number = sim.transfer(
        call.params["asset"],
        float(call.params["amount"]),
        source=_TRANSFERS[source],
        target=_TRANSFERS[target],
    )
    return {"tranId": int(number)}


def _trades(sim: SimVenue, call: Call) -> list[SimTrade]:
    instrument, params = demand_instrument(call), call.params
    since_us = int(params.get("startTime", "0")) * 1000
    until_us = int(params.get("endTime", "9000000000000")) * 1000 + 999
    rows = [
        trade
        for trade in sim.trades
        if trade.instrument == instrument
        and since_us <= trade.ts_us <= until_us
        and params.get("orderId") in (None, trade.venue_order_id)
    ]
    limit = int(params.get("limit", "500"))
    return rows[:limit] if "startTime" in params else rows[-limit:]


def _trade(call: Call, trade: SimTrade) -> dict[str, Any]:
    return {
        "symbol": call.params["symbol"],
        "id": int(trade.trade_id),
        "orderId": int(trade.venue_order_id),
        "price": text(trade.price),
        "qty": text(trade.quantity_base),
        "quoteQty": text(trade.price * trade.quantity_base),
        "commission": text(trade.fee),
        "commissionAsset": trade.fee_asset,
        "time": trade.ts_us // 1000,
    }
