"""The REST of Bybit, version 5: one unified account, errors as ``retCode`` under HTTP 200."""

from collections.abc import Mapping
from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, Ticket, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Dialect,
    Reply,
    Route,
    Treatment,
    demand_instrument,
    json_reply,
    place,
    seen_done,
    seen_open,
)
from basis_bt.live.venue import Contract

_FORCES = {"GTC": "GTC", "IOC": "IOC", "FOK": "FOK", "PostOnly": "GTX"}
_WALLETS = {"UNIFIED": "perp", "FUND": "funding"}
_MARGIN_MODES = {"REGULAR_MARGIN": "cross", "ISOLATED_MARGIN": "isolated", "PORTFOLIO_MARGIN": "portfolio"}

#: refusal -> (code, text); where spot has its own it is in the second table
_ERRORS: Mapping[str, tuple[int, str]] = {
    "funds": (110007, "ab not enough for new order"),
    "margin": (110007, "ab not enough for new order"),
    "minimum": (110094, "Order does not meet minimum order value 5USDT"),
    "lot": (10001, "Qty invalid"),
    "tick": (10001, "Price invalid"),
    "reduce_only": (110017, "current position is zero, cannot fix reduce-only order qty"),
    "post_only": (10001, "post only"),
    "halted": (110066, "No trading is allowed at the current time"),
    "duplicate": (110072, "OrderLinkedID is duplicate"),
    "price_band": (110003, "Order price exceeds the allowable range."),
    "position_mode": (10001, "position idx not match position mode"),
    "not_found": (110001, "order not exists or too late to cancel"),
    "busy": (10016, "System error. Please try again later."),
    "clock": (10002, "invalid request, please check your server timestamp or recv_window param."),
    "rate": (10006, "Too many visits. Exceeded the API Rate Limit."),
    "unchanged": (110043, "Set leverage has not been modified."),
    "bad_request": (10001, "Request parameter error."),
    "key": (10003, "API key is invalid."),
}
_SPOT_ERRORS: Mapping[str, tuple[int, str]] = {
    "funds": (170131, "Insufficient balance."),
    "minimum": (170140, "Order value exceeded lower limit."),
    "duplicate": (170141, "Duplicate clientOrderId."),
    "not_found": (170213, "Order does not exist."),
    "price_band": (170193, "Buy order price cannot be higher than the limit."),
}
_UNCHANGED = {"/v5/position/switch-mode": (110025, "Position mode is not modified")}


class Bybit(Dialect):
    """Creates and cancels tell the ids only; a spot order that filled in part ends as ``PartiallyFilledCanceled``."""

    name = "bybit"
    routes = {
        ("GET", "/v5/market/time"): Route("time", "time", False),
        ("GET", "/v5/market/instruments-info"): Route("markets", "markets", False),
        ("GET", "/v5/asset/coin/query-info"): Route("currencies", "currencies"),
        ("GET", "/v5/user/query-api"): Route("account", "key_info"),
        ("GET", "/v5/account/info"): Route("account", "account_info"),
        ("GET", "/v5/market/tickers"): Route("ticker", "tickers", False),
        ("GET", "/v5/market/orderbook"): Route("book", "order_book", False),
        ("POST", "/v5/order/create"): Route("create", "create"),
        ("POST", "/v5/order/cancel"): Route("cancel", "cancel"),
        ("GET", "/v5/order/realtime"): Route("open_orders", "realtime"),
        ("GET", "/v5/order/history"): Route("closed_orders", "history"),
        ("GET", "/v5/execution/list"): Route("trades", "executions"),
        ("GET", "/v5/account/wallet-balance"): Route("balances", "wallet"),
        ("GET", "/v5/asset/transfer/query-account-coins-balance"): Route("balances", "coins_balance"),
        ("GET", "/v5/position/list"): Route("positions", "positions"),
        ("GET", "/v5/market/funding/history"): Route("funding_rate", "funding_history", False),
        ("GET", "/v5/market/kline"): Route("candles", "last_candles", False),
        ("GET", "/v5/market/mark-price-kline"): Route("candles", "mark_candles", False),
        ("GET", "/v5/account/fee-rate"): Route("fees", "fee_rate"),
        ("GET", "/v5/market/risk-limit"): Route("tiers", "risk_limit", False),
        ("POST", "/v5/position/set-leverage"): Route("account", "set_leverage"),
        ("POST", "/v5/account/set-margin-mode"): Route("account", "set_margin_mode"),
        ("POST", "/v5/position/switch-mode"): Route("account", "switch_mode"),
        ("POST", "/v5/asset/transfer/inter-transfer"): Route("transfer", "transfer"),
    }

    # ------------------------------------------------------------- requests

    def operation_of(self, route: Route, params: Mapping[str, str]) -> str:
        """Order lists with an id are look-ups; executions of settlements are funding payments."""
        has_id = "orderId" in params or "orderLinkId" in params
        if route.operation == "open_orders" and has_id:
            return "find"
        if route.operation == "closed_orders" and has_id:
            return "find_history"
        if route.handler == "executions" and params.get("execType") == "Funding":
            return "funding_payments"
        return route.operation

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """The category tells spot from perpetual."""
        wants_margined = params.get("category", "linear") != "spot"
        for contract in sim.contracts.values():
            if _symbol(contract) == params.get("symbol") and contract.is_margined == wants_margined:
                return contract.instrument
        return None

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """A header."""
        return bool(headers.get("X-BAPI-API-KEY"))

    def sent_ms(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """A header."""
        stamp = headers.get("X-BAPI-TIMESTAMP")
        return int(stamp) if stamp else None

    # -------------------------------------------------------------- replies

    def success(self, sim: SimVenue, body: Any) -> Reply:
        """``retCode`` 0 around the result."""
        return json_reply({"retCode": 0, "retMsg": "OK", "result": body, "retExtInfo": {}, "time": sim.venue_now_ms()})

    def refusal(self, sim: SimVenue, kind: str, message: str, call: Call) -> Reply:
        """A code, under HTTP 200."""
        is_spot = call.params.get("category") == "spot"
        code, words = (_SPOT_ERRORS.get(kind) if is_spot else None) or _ERRORS[kind]
        if kind == "unchanged":
            code, words = _UNCHANGED.get(call.path, (code, words))
        body = {"retCode": code, "retMsg": words, "result": {}, "retExtInfo": {}, "time": sim.venue_now_ms()}
        return json_reply(body)

    def status_unknown(self, call: Call) -> Reply:
        """10016, the very code of an overload."""
        return json_reply({"retCode": 10016, "retMsg": "System error. Please try again later.", "result": {}})

    def server_error(self, status: int) -> Reply:
        """503 with a body of its own, others as a proxy writes them."""
        if status == 503:
            return json_reply({"retCode": -1, "retMsg": "service unavailable", "result": {}}, status=503)
        return Reply(status=status, text=f"<html>{status}</html>", content_type="text/html")

    def rate_limited(self, seconds: float, *, is_ban: bool) -> Reply:
        """10006, and 403 for an address that goes on."""
        code, words = _ERRORS["rate"]
        body = {"retCode": code, "retMsg": words, "result": {}}
        return json_reply(body, status=403 if is_ban else 429, headers={"Retry-After": text(seconds)})

    # --------------------------------------------------------------- public

    def time(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The venue's clock."""
        now_ms = sim.venue_now_ms()
        return {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}

    def markets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Instruments of a category."""
        category = call.params["category"]
        rows = []
        for contract in sim.contracts.values():
            if contract.is_margined != (category == "linear") or category not in ("spot", "linear"):
                continue
            if call.params.get("symbol", _symbol(contract)) != _symbol(contract):
                continue
            if call.params.get("status") == "PreLaunch":
                continue
            rows.append(_perp_row(contract) if contract.is_margined else _spot_row(contract))
        return {"category": category, "list": rows, "nextPageCursor": ""}

    def currencies(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The coins that wallets know."""
        coins = {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)}
        return {"rows": [{"name": c, "coin": c, "remainAmount": "1", "chains": []} for c in sorted(coins)]}

    def tickers(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Best prices, mark and funding."""
        rows = []
        for instrument, contract in sim.contracts.items():
            if call.instrument not in (None, instrument):
                continue
            if contract.is_margined != (call.params.get("category") != "spot"):
                continue
            seen = treatment.lens.book(sim.book(instrument), sim.now_us())
            bid = text(seen.bids[0][0]) if seen.bids else ""
            ask = text(seen.asks[0][0]) if seen.asks else ""
            row = {
                "symbol": _symbol(contract), "lastPrice": bid or ask, "bid1Price": bid, "ask1Price": ask,
                "volume24h": "1000", "turnover24h": "50000000",
            }  # fmt: skip
            if contract.is_margined:
                rate, next_us, hours = bars.next_rate(sim, instrument)
                mark = text(sim.mark_price(instrument))
                row |= {
                    "markPrice": mark, "indexPrice": mark, "fundingRate": text(rate),
                    "nextFundingTime": str(next_us // 1000), "fundingIntervalHour": text(hours),
                }  # fmt: skip
            rows.append(row)
        return {"category": call.params.get("category", ""), "list": rows}

    def order_book(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Levels with a time."""
        seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
        n = int(call.params.get("limit", "25"))
        at_ms = seen.at_us // 1000
        return {
            "s": call.params["symbol"], "b": [[text(p), text(q)] for p, q in seen.bids[:n]],
            "a": [[text(p), text(q)] for p, q in seen.asks[:n]], "ts": at_ms, "u": seen.update_id, "cts": at_ms,
        }  # fmt: skip

    def funding_history(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Settled rates, newest first."""
        marks = bars.settled(sim, demand_instrument(call), call.params.get("startTime"))
        return {
            "category": "linear",
            "list": [
                {
                    "symbol": call.params["symbol"],
                    "fundingRate": text(mark.rate),
                    "fundingRateTimestamp": str(mark.ts_us // 1000),
                }
                for mark in reversed(marks)
            ],
        }

    def last_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of trades."""
        return self._candles(sim, call, "last")

    def mark_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of the mark price."""
        return self._candles(sim, call, "mark")

    def _candles(self, sim: SimVenue, call: Call, price: str) -> Any:
        params = call.params
        rows, _ = bars.candles(
            sim, demand_instrument(call), price, params["interval"], since_ms=params.get("start"),
            until_ms=params.get("end"), limit=int(params.get("limit", "200")),
        )  # fmt: skip
        written = [[str(at), *(text(x) for x in ohlcv), text(ohlcv[4] * ohlcv[3])] for at, ohlcv in reversed(rows)]
        if price == "mark":
            written = [row[:5] for row in written]
        return {"category": params.get("category", ""), "symbol": params["symbol"], "list": written}

    def risk_limit(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """One tier a symbol."""
        return {
            "category": "linear",
            "list": [
                {
                    "id": 1, "symbol": _symbol(contract), "riskLimitValue": "50000000",
                    "maintenanceMargin": text(bars.MAINTENANCE_FRAC), "initialMargin": text(1.0 / bars.MAX_LEVERAGE),
                    "isLowestRisk": 1, "maxLeverage": text(bars.MAX_LEVERAGE), "mmDeduction": "",
                }
                for instrument, contract in sim.contracts.items()
                if contract.is_margined and call.instrument in (None, instrument)
            ],
            "nextPageCursor": "",
        }  # fmt: skip

    # --------------------------------------------------------------- orders

    def create(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def cancel(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """By either id; an order that is not open does not exist."""
        order = sim.find(
            demand_instrument(call),
            venue_order_id=call.params.get("orderId", ""),
            client_order_id=call.params.get("orderLinkId", ""),
        )
        order = sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel)
        return {"orderId": order.venue_order_id, "orderLinkId": order.ticket.client_order_id}

    def realtime(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Open orders; with an id also a recent one that is over."""
        lens = treatment.lens
        orders = seen_open(sim, call.instrument, lens)
        if call.operation == "find":
            orders += seen_done(sim, call.instrument, lens)
        return self._rows(sim, call, orders, lens)

    def history(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Orders that are over, newest first."""
        orders = seen_done(sim, call.instrument, treatment.lens)
        since_us = int(call.params.get("startTime", "0")) * 1000
        orders = [order for order in reversed(orders) if order.created_us >= since_us]
        return self._rows(sim, call, orders, treatment.lens)

    def _rows(self, sim: SimVenue, call: Call, orders: list[SimOrder], lens: Lens) -> dict[str, Any]:
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

    # -------------------------------------------------------------- account

    def executions(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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
                            "symbol": _symbol(sim.contracts[payment.instrument]), "orderId": "", "orderLinkId": "",
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
                            "symbol": _symbol(sim.contracts[trade.instrument]), "orderId": trade.venue_order_id,
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

    def wallet(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def coins_balance(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The funding wallet."""
        return {
            "accountType": "FUND",
            "balance": [
                {"coin": coin, "walletBalance": text(amount), "transferBalance": text(amount)}
                for coin, amount in sim.wallets.cash["funding"].items()
            ],
        }

    def positions(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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
                    "symbol": _symbol(sim.contracts[instrument]), "size": text(abs(base)),
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

    def fee_rate(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Maker and taker."""
        is_spot = call.params.get("category") == "spot"
        return {
            "list": [
                {
                    "symbol": _symbol(contract),
                    "takerFeeRate": text(contract.taker_fee_bps * 1e-4),
                    "makerFeeRate": text(contract.maker_fee_bps * 1e-4),
                }
                for instrument, contract in sim.contracts.items()
                if contract.is_margined != is_spot and call.instrument in (None, instrument)
            ]
        }

    def key_info(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """A unified account."""
        return {"readOnly": 0, "uta": 1, "unified": 0, "permissions": {}}

    def account_info(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """UTA 2.0 and its margin mode."""
        mode = {own: theirs for theirs, own in _MARGIN_MODES.items()}[sim.account_margin_mode]
        return {"unifiedMarginStatus": 5, "marginMode": mode, "updatedTime": str(sim.venue_now_ms())}

    def set_leverage(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one perpetual; the same again is an error."""
        position, leverage = sim.positions[demand_instrument(call)], float(call.params["buyLeverage"])
        if not 1.0 <= leverage <= bars.MAX_LEVERAGE:
            raise Refused("bad_request", "leverage out of range")
        if leverage == position.leverage:
            raise Refused("unchanged", "leverage")
        position.leverage = leverage
        return {}

    def set_margin_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Account wide; the same again is a success."""
        sim.account_margin_mode = _MARGIN_MODES[call.params["setMarginMode"]]
        return {"reasons": []}

    def switch_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """One-way (0) or hedge (3)."""
        is_hedge = call.params["mode"] == "3"
        if is_hedge == sim.is_hedge_mode:
            raise Refused("unchanged", "position mode")
        sim.is_hedge_mode = is_hedge
        return {}

    def transfer(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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


def _symbol(contract: Contract) -> str:
    return contract.base + contract.quote


def _perp_row(contract: Contract) -> dict[str, Any]:
    return {
        "symbol": _symbol(contract), "contractType": "LinearPerpetual",
        "status": "Trading" if contract.is_trading else "Closed",
        "baseCoin": contract.base, "quoteCoin": contract.quote, "settleCoin": contract.quote,
        "launchTime": "1", "deliveryTime": "0", "fundingInterval": 60 * bars.FUNDING_HOURS,
        "leverageFilter": {"minLeverage": "1", "maxLeverage": text(bars.MAX_LEVERAGE), "leverageStep": "0.01"},
        "priceFilter": {"tickSize": text(contract.tick)},
        "lotSizeFilter": {
            "minOrderQty": text(contract.min_base), "maxOrderQty": "1190", "qtyStep": text(contract.lot_base),
            "minNotionalValue": text(contract.min_notional_usd),
        },
    }  # fmt: skip


def _spot_row(contract: Contract) -> dict[str, Any]:
    return {
        "symbol": _symbol(contract), "baseCoin": contract.base, "quoteCoin": contract.quote,
        "status": "Trading" if contract.is_trading else "Closed",
        "lotSizeFilter": {
            "basePrecision": text(contract.lot_base), "quotePrecision": "0.0000001",
            "minOrderQty": text(contract.min_base), "maxOrderQty": "83",
            "minOrderAmt": text(contract.min_notional_usd), "maxOrderAmt": "8000000",
        },
        "priceFilter": {"tickSize": text(contract.tick)},
    }  # fmt: skip


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
        "symbol": _symbol(sim.contracts[ticket.instrument]), "orderId": order.venue_order_id,
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
