"""The REST of Binance: spot under ``/api/v3`` and ``/sapi/v1``, USD-margined perpetuals under ``/fapi``."""

from collections.abc import Mapping
from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, SimTrade, Ticket, text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Dialect,
    Reply,
    Route,
    Treatment,
    demand_instrument,
    find_or_refuse,
    json_reply,
    place,
    seen_open,
)
from basis_bt.live.venue import Contract

_TRANSFERS = {"MAIN": "spot", "UMFUTURE": "perp", "FUNDING": "funding"}
_TIME_IN_FORCE = ("GTC", "IOC", "FOK", "GTX")
_FOREVER_MS = 4_133_404_800_000

#: refusal -> (HTTP status, code, text), of spot and of futures
_SPOT_ERRORS: Mapping[str, tuple[int, int, str]] = {
    "funds": (400, -2010, "Account has insufficient balance for requested action."),
    "minimum": (400, -1013, "Filter failure: NOTIONAL"),
    "lot": (400, -1013, "Filter failure: LOT_SIZE"),
    "tick": (400, -1013, "Filter failure: PRICE_FILTER"),
    "post_only": (400, -2010, "Order would immediately match and take."),
    "halted": (400, -1013, "Market is closed."),
    "duplicate": (400, -2010, "Duplicate order sent."),
    "price_band": (400, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
    "bad_request": (400, -1104, "Not all sent parameters were read."),
}
_FUTURES_ERRORS: Mapping[str, tuple[int, int, str]] = {
    "funds": (400, -2018, "Balance is insufficient."),
    "margin": (400, -2019, "Margin is insufficient."),
    "minimum": (400, -4164, "Order's notional must be no smaller than 100 (unless you choose reduce only)."),
    "lot": (400, -1111, "Precision is over the maximum defined for this asset."),
    "tick": (400, -4014, "Price not increased by tick size."),
    "reduce_only": (400, -2022, "ReduceOnly Order is rejected."),
    "post_only": (400, -5022, "Due to the order could not be executed as maker, the Post Only order will be rejected."),
    "halted": (400, -4140, "Invalid symbol status for opening position."),
    "duplicate": (400, -4116, "ClientOrderId is duplicated."),
    "price_band": (400, -4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
    "position_mode": (400, -4061, "Order's position side does not match user's setting."),
    "unchanged": (400, -4046, "No need to change margin type."),
    "bad_request": (400, -1102, "Mandatory parameter was not sent, was empty/null, or malformed."),
}
_COMMON_ERRORS: Mapping[str, tuple[int, int, str]] = {
    "not_found": (400, -2013, "Order does not exist."),
    "busy": (503, -1008, "Server is currently overloaded with other requests. Please try again in a few minutes."),
    "clock": (400, -1021, "Timestamp for this request is outside of the recvWindow."),
    "rate": (429, -1003, "Too many requests; current limit is 2400 requests per minute."),
    "key": (401, -2014, "API-key format invalid."),
}


class Binance(Dialect):
    """Sparse where Binance is sparse: futures creates tell neither average nor cost, queries never tell fees."""

    name = "binance"
    routes = {
        ("GET", "/api/v3/time"): Route("time", "time", False),
        ("GET", "/fapi/v1/time"): Route("time", "time", False),
        ("GET", "/api/v3/exchangeInfo"): Route("markets", "spot_markets", False),
        ("GET", "/fapi/v1/exchangeInfo"): Route("markets", "perp_markets", False),
        ("GET", "/dapi/v1/exchangeInfo"): Route("markets", "no_markets", False),
        ("GET", "/sapi/v1/capital/config/getall"): Route("currencies", "currencies"),
        ("GET", "/sapi/v1/margin/allPairs"): Route("markets", "nothing"),
        ("GET", "/sapi/v1/margin/isolated/allPairs"): Route("markets", "nothing"),
        ("GET", "/api/v3/ticker/24hr"): Route("ticker", "ticker", False),
        ("GET", "/fapi/v1/ticker/24hr"): Route("ticker", "ticker", False),
        ("GET", "/api/v3/depth"): Route("book", "spot_depth", False),
        ("GET", "/fapi/v1/depth"): Route("book", "perp_depth", False),
        ("POST", "/api/v3/order"): Route("create", "create"),
        ("POST", "/fapi/v1/order"): Route("create", "create"),
        ("GET", "/api/v3/order"): Route("find", "find"),
        ("GET", "/fapi/v1/order"): Route("find", "find"),
        ("DELETE", "/api/v3/order"): Route("cancel", "cancel"),
        ("DELETE", "/fapi/v1/order"): Route("cancel", "cancel"),
        ("GET", "/api/v3/openOrders"): Route("open_orders", "open_orders"),
        ("GET", "/fapi/v1/openOrders"): Route("open_orders", "open_orders"),
        ("GET", "/api/v3/allOrders"): Route("closed_orders", "all_orders"),
        ("GET", "/fapi/v1/allOrders"): Route("closed_orders", "all_orders"),
        ("GET", "/api/v3/myTrades"): Route("trades", "spot_trades"),
        ("GET", "/fapi/v1/userTrades"): Route("trades", "perp_trades"),
        ("GET", "/api/v3/account"): Route("balances", "spot_account"),
        ("POST", "/sapi/v1/asset/get-funding-asset"): Route("balances", "funding_wallet"),
        ("GET", "/fapi/v3/account"): Route("balances", "perp_account"),
        ("GET", "/fapi/v2/account"): Route("balances", "perp_account"),
        ("GET", "/fapi/v3/positionRisk"): Route("positions", "positions"),
        ("GET", "/fapi/v2/positionRisk"): Route("positions", "positions"),
        ("GET", "/fapi/v1/leverageBracket"): Route("tiers", "brackets"),
        ("GET", "/fapi/v1/symbolConfig"): Route("account", "symbol_config"),
        ("GET", "/fapi/v1/premiumIndex"): Route("funding_rate", "premium_index", False),
        ("GET", "/fapi/v1/fundingRate"): Route("funding_rate", "funding_rates", False),
        ("GET", "/fapi/v1/fundingInfo"): Route("funding_rate", "nothing", False),
        ("GET", "/fapi/v1/income"): Route("funding_payments", "income"),
        ("GET", "/api/v3/klines"): Route("candles", "last_candles", False),
        ("GET", "/fapi/v1/klines"): Route("candles", "last_candles", False),
        ("GET", "/fapi/v1/markPriceKlines"): Route("candles", "mark_candles", False),
        ("GET", "/sapi/v1/asset/tradeFee"): Route("fees", "spot_fee"),
        ("GET", "/fapi/v1/commissionRate"): Route("fees", "perp_fee"),
        ("POST", "/fapi/v1/leverage"): Route("account", "set_leverage"),
        ("POST", "/fapi/v1/marginType"): Route("account", "set_margin_mode"),
        ("GET", "/fapi/v1/positionSide/dual"): Route("account", "position_mode"),
        ("POST", "/fapi/v1/positionSide/dual"): Route("account", "set_position_mode"),
        ("POST", "/sapi/v1/asset/transfer"): Route("transfer", "transfer"),
    }

    # ------------------------------------------------------------- requests

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """Spot and perpetual share their symbols; the path tells them apart."""
        wants_margined = path.startswith("/fapi")
        for contract in sim.contracts.values():
            if _symbol(contract) == params.get("symbol") and contract.is_margined == wants_margined:
                return contract.instrument
        return None

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """A header."""
        return bool(headers.get("X-MBX-APIKEY"))

    def sent_ms(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """A parameter."""
        return int(params["timestamp"]) if "timestamp" in params else None

    def recv_window_ms(self, sim: SimVenue, call: Call) -> int:
        """Named by the request, 5 000 otherwise."""
        return int(call.params.get("recvWindow", "5000"))

    # -------------------------------------------------------------- replies

    def success(self, sim: SimVenue, body: Any) -> Reply:
        """No envelope."""
        return json_reply(body)

    def refusal(self, sim: SimVenue, kind: str, message: str, call: Call) -> Reply:
        """An HTTP error with code and message."""
        own = _FUTURES_ERRORS if call.path.startswith("/fapi") else _SPOT_ERRORS
        status, code, words = own.get(kind) or _COMMON_ERRORS.get(kind) or own["bad_request"]
        if kind == "not_found" and call.operation == "cancel":
            code, words = -2011, "Unknown order sent."
        if kind == "unchanged" and call.path.endswith("dual"):
            code, words = -4059, "No need to change position side."
        return json_reply({"code": code, "msg": words}, status=status)

    def status_unknown(self, call: Call) -> Reply:
        """-1007."""
        words = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
        return json_reply({"code": -1007, "msg": words}, status=408)

    def server_error(self, status: int) -> Reply:
        """503 with Binance's text, others as a proxy writes them."""
        if status == 503:
            words = "Unknown error, please check your request or try again later."
            return json_reply({"code": -1000, "msg": words}, status=503)
        return Reply(status=status, text=f"<html>{status}</html>", content_type="text/html")

    def rate_limited(self, seconds: float, *, is_ban: bool) -> Reply:
        """429, then 418."""
        words = "Way too many requests; IP banned." if is_ban else "Too many requests."
        headers = {"Retry-After": text(seconds)}
        return json_reply({"code": -1003, "msg": words}, status=418 if is_ban else 429, headers=headers)

    # --------------------------------------------------------------- public

    def nothing(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """An empty list."""
        return []

    def time(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The venue's clock."""
        return {"serverTime": sim.venue_now_ms()}

    def no_markets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """No coin-margined contracts here."""
        return {"symbols": []}

    def spot_markets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Spot symbols with their filters."""
        return {
            "symbols": [
                {
                    "symbol": _symbol(contract),
                    "status": "TRADING" if contract.is_trading else "HALT",
                    "baseAsset": contract.base,
                    "quoteAsset": contract.quote,
                    "isSpotTradingAllowed": True,
                    "permissions": [],
                    "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
                    "filters": [
                        *_filters(contract),
                        {
                            "filterType": "NOTIONAL",
                            "minNotional": text(contract.min_notional_usd),
                            "maxNotional": "9000000",
                        },
                    ],
                }
                for contract in sim.contracts.values()
                if not contract.is_margined
            ]
        }

    def perp_markets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Perpetuals with their filters."""
        return {
            "symbols": [
                {
                    "symbol": _symbol(contract),
                    "pair": _symbol(contract),
                    "contractType": "PERPETUAL",
                    "deliveryDate": _FOREVER_MS,
                    "onboardDate": 1_569_398_400_000,
                    "status": "TRADING" if contract.is_trading else "BREAK",
                    "baseAsset": contract.base,
                    "quoteAsset": contract.quote,
                    "marginAsset": contract.quote,
                    "orderTypes": ["LIMIT", "MARKET"],
                    "timeInForce": list(_TIME_IN_FORCE),
                    "filters": [
                        *_filters(contract),
                        {"filterType": "MIN_NOTIONAL", "notional": text(contract.min_notional_usd)},
                    ],
                }
                for contract in sim.contracts.values()
                if contract.is_margined
            ]
        }

    def currencies(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The coins that wallets know."""
        return [
            {"coin": coin, "name": coin, "depositAllEnable": True, "withdrawAllEnable": True, "networkList": []}
            for coin in _coins(sim)
        ]

    def ticker(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """24 hours; ``closeTime`` is how a reader learns the age of a spot price."""
        instrument = demand_instrument(call)
        seen = treatment.lens.book(sim.book(instrument), sim.now_us())
        at_ms = seen.at_us // 1000
        bid = text(seen.bids[0][0]) if seen.bids else "0"
        ask = text(seen.asks[0][0]) if seen.asks else "0"
        return {
            "symbol": call.params["symbol"], "lastPrice": bid if seen.bids else ask, "bidPrice": bid, "askPrice": ask,
            "openTime": at_ms - 86_400_000, "closeTime": at_ms, "volume": "1000", "quoteVolume": "50000000",
        }  # fmt: skip

    def spot_depth(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Levels and an update id, no time."""
        seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
        n = int(call.params.get("limit", "100"))
        return {"lastUpdateId": seen.update_id, "bids": _levels(seen.bids[:n]), "asks": _levels(seen.asks[:n])}

    def perp_depth(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Levels with the time of the event and of the transaction."""
        seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
        at_ms = seen.at_us // 1000
        return {**self.spot_depth(sim, call, treatment), "E": at_ms, "T": at_ms}

    def premium_index(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Mark price and the rate of the running period."""

        def row(instrument: str) -> dict[str, Any]:
            rate, next_us, _ = bars.next_rate(sim, instrument)
            mark = text(sim.mark_price(instrument))
            return {
                "symbol": _symbol(sim.contracts[instrument]), "markPrice": mark, "indexPrice": mark,
                "lastFundingRate": text(rate), "interestRate": "0.0001", "nextFundingTime": next_us // 1000,
                "time": sim.venue_now_ms(),
            }  # fmt: skip

        return row(call.instrument) if call.instrument else [row(instrument) for instrument in sim.positions]

    def funding_rates(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Settled rates, oldest first."""
        return [
            {
                "symbol": call.params["symbol"],
                "fundingRate": text(mark.rate),
                "fundingTime": mark.ts_us // 1000,
                "markPrice": text(mark.mark_price),
            }
            for mark in bars.settled(sim, demand_instrument(call), call.params.get("startTime"))
        ]

    def last_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of trades."""
        return self._candles(sim, call, "last")

    def mark_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of the mark price."""
        return self._candles(sim, call, "mark")

    def _candles(self, sim: SimVenue, call: Call, price: str) -> Any:
        params = call.params
        rows, step_ms = bars.candles(
            sim, demand_instrument(call), price, params["interval"], since_ms=params.get("startTime"),
            until_ms=params.get("endTime"), limit=int(params.get("limit", "500")),
        )  # fmt: skip
        return [
            [at, *(text(x) for x in ohlcv), at + step_ms - 1, text(ohlcv[4] * ohlcv[3]), 3, "0", "0", "0"]
            for at, ohlcv in rows
        ]

    # --------------------------------------------------------------- orders

    def create(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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
        return self._created(sim, order)

    def find(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """By ``orderId`` or ``origClientOrderId``."""
        order = find_or_refuse(
            sim, call, treatment, call.params.get("orderId", ""), call.params.get("origClientOrderId", "")
        )
        return self._queried(sim, order, treatment.lens)

    def cancel(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """By either id; an order that is not open is unknown."""
        order = sim.find(
            demand_instrument(call),
            venue_order_id=call.params.get("orderId", ""),
            client_order_id=call.params.get("origClientOrderId", ""),
        )
        order = sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel)
        body = self._queried(sim, order, Lens())
        if call.path.startswith("/api"):
            body["origClientOrderId"] = body["clientOrderId"]
            body["transactTime"] = body["updateTime"]
        return body

    def open_orders(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one symbol or of all."""
        lens = treatment.lens
        orders = seen_open(sim, call.instrument, lens)
        margined = call.path.startswith("/fapi")
        orders = [order for order in orders if sim.contracts[order.ticket.instrument].is_margined == margined]
        return [self._queried(sim, order, lens) for order in orders for _ in range(lens.copies)]

    def all_orders(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Open or not, oldest first."""
        lens, instrument = treatment.lens, demand_instrument(call)
        if lens.is_order_hidden:
            return []
        since_us = int(call.params.get("startTime", "0")) * 1000
        return [
            self._queried(sim, order, lens)
            for order in sim.orders.values()
            if order.ticket.instrument == instrument and order.created_us >= since_us
            for _ in range(lens.copies)
        ]

    def _created(self, sim: SimVenue, order: SimOrder) -> dict[str, Any]:
        body = self._queried(sim, order, Lens())
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

    def _queried(self, sim: SimVenue, order: SimOrder, lens: Lens) -> dict[str, Any]:
        ticket, moment = order.ticket, lens.order(order)
        contract = sim.contracts[ticket.instrument]
        is_post_only_spot = ticket.time_in_force == "GTX" and not contract.is_margined
        body: dict[str, Any] = {
            "symbol": _symbol(contract),
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

    # --------------------------------------------------------------- account

    def spot_trades(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def perp_trades(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def spot_account(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def funding_wallet(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The funding wallet."""
        return [
            {"asset": coin, "free": text(amount), "locked": "0", "freeze": "0", "withdrawing": "0"}
            for coin, amount in sim.wallets.cash["funding"].items()
        ]

    def perp_account(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def positions(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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
                    "symbol": _symbol(contract), "positionSide": "BOTH", "positionAmt": text(base),
                    "entryPrice": text(entry), "breakEvenPrice": text(entry), "markPrice": text(mark),
                    "unRealizedProfit": text(base * (mark - entry)),
                    "liquidationPrice": text(bars.liquidation_price(sim, instrument, base, entry)),
                    "isolatedMargin": "0", "notional": text(notional), "marginAsset": contract.quote,
                    "isolatedWallet": "0", "initialMargin": text(abs(notional) / position.leverage),
                    "maintMargin": text(abs(notional) * bars.MAINTENANCE_FRAC), "updateTime": updated_us // 1000,
                }
            )  # fmt: skip
        return rows

    def brackets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """One bracket a symbol."""
        bracket = {
            "bracket": 1, "initialLeverage": int(bars.MAX_LEVERAGE), "notionalCap": 50_000_000, "notionalFloor": 0,
            "maintMarginRatio": bars.MAINTENANCE_FRAC, "cum": 0.0,
        }  # fmt: skip
        return [
            {"symbol": _symbol(sim.contracts[instrument]), "brackets": [bracket]}
            for instrument in sim.positions
            if call.instrument in (None, instrument)
        ]

    def symbol_config(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Leverage and margin mode by symbol."""
        return [
            {
                "symbol": _symbol(sim.contracts[instrument]),
                "marginType": "CROSSED" if position.margin_mode == "cross" else "ISOLATED",
                "isAutoAddMargin": False,
                "leverage": int(position.leverage),
                "maxNotionalValue": "50000000",
            }
            for instrument, position in sim.positions.items()
            if call.instrument in (None, instrument)
        ]

    def income(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Funding received (positive) or paid."""
        since_us = int(call.params.get("startTime", "0")) * 1000
        return [
            {
                "symbol": _symbol(sim.contracts[payment.instrument]), "incomeType": "FUNDING_FEE",
                "income": text(payment.amount), "asset": payment.asset, "info": "FUNDING_FEE",
                "time": payment.ts_us // 1000, "tranId": int(payment.payment_id), "tradeId": "",
            }
            for payment in sim.funding
            if call.instrument in (None, payment.instrument) and payment.ts_us >= since_us
            for _ in range(treatment.lens.copies)
        ]  # fmt: skip

    def spot_fee(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Maker and taker of spot symbols."""
        return [
            {
                "symbol": _symbol(contract),
                "makerCommission": text(contract.maker_fee_bps * 1e-4),
                "takerCommission": text(contract.taker_fee_bps * 1e-4),
            }
            for contract in sim.contracts.values()
            if not contract.is_margined and call.params.get("symbol") in (None, _symbol(contract))
        ]

    def perp_fee(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Maker and taker of one perpetual."""
        contract = sim.contracts[demand_instrument(call)]
        return {
            "symbol": _symbol(contract),
            "makerCommissionRate": text(contract.maker_fee_bps * 1e-4),
            "takerCommissionRate": text(contract.taker_fee_bps * 1e-4),
        }

    def set_leverage(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one perpetual."""
        leverage = float(call.params["leverage"])
        if not 1.0 <= leverage <= bars.MAX_LEVERAGE:
            raise Refused("bad_request", "leverage out of range")
        sim.positions[demand_instrument(call)].leverage = leverage
        return {"leverage": int(leverage), "maxNotionalValue": "50000000", "symbol": call.params["symbol"]}

    def set_margin_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one perpetual; the same again is an error."""
        position = sim.positions[demand_instrument(call)]
        mode = "cross" if call.params["marginType"] == "CROSSED" else "isolated"
        if mode == position.margin_mode:
            raise Refused("unchanged", "margin mode")
        position.margin_mode = mode
        return {"code": 200, "msg": "success"}

    def position_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """One-way or hedge."""
        return {"dualSidePosition": sim.is_hedge_mode}

    def set_position_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Account wide; the same again is an error."""
        is_hedge = call.params["dualSidePosition"].lower() == "true"
        if is_hedge == sim.is_hedge_mode:
            raise Refused("unchanged", "position mode")
        sim.is_hedge_mode = is_hedge
        return {"code": 200, "msg": "success"}

    def transfer(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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


def _symbol(contract: Contract) -> str:
    return contract.base + contract.quote


def _coins(sim: SimVenue) -> list[str]:
    coins = {coin for cash in sim.wallets.cash.values() for coin in cash}
    return sorted(coins | {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)})


def _filters(contract: Contract) -> list[dict[str, str]]:
    return [
        {"filterType": "PRICE_FILTER", "tickSize": text(contract.tick), "minPrice": "0.01", "maxPrice": "4529764"},
        {
            "filterType": "LOT_SIZE",
            "stepSize": text(contract.lot_base),
            "minQty": text(contract.min_base),
            "maxQty": "9000",
        },
    ]


def _levels(levels: Any) -> list[list[str]]:
    return [[text(price), text(size)] for price, size in levels]


def _status(order: SimOrder, status: str, filled_base: float) -> str:
    if status == OPEN:
        return "PARTIALLY_FILLED" if filled_base else "NEW"
    if status == CANCELED:
        return "CANCELED" if order.ended_by == "user" else "EXPIRED"
    return "FILLED"


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
