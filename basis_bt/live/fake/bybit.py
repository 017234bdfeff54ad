"""The REST of Bybit, version 5: one unified account, errors as ``retCode`` under HTTP 200."""

from collections.abc import Mapping
from typing import Any

from basis_bt.live.fake import bybit_account as account
from basis_bt.live.fake import bybit_orders as orders
from basis_bt.live.fake import bybit_public as public
from basis_bt.live.fake.records import text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Dialect,
    Reply,
    Route,
    joined,
    json_reply,
)

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
        ("GET", "/v5/market/time"): Route("time", public.time, False),
        ("GET", "/v5/market/instruments-info"): Route("markets", public.markets, False),
        ("GET", "/v5/asset/coin/query-info"): Route("currencies", public.currencies),
        ("GET", "/v5/user/query-api"): Route("account", account.key_info),
        ("GET", "/v5/account/info"): Route("account", account.account_info),
        ("GET", "/v5/market/tickers"): Route("ticker", public.tickers, False),
        ("GET", "/v5/market/orderbook"): Route("book", public.order_book, False),
        ("POST", "/v5/order/create"): Route("create", orders.create),
        ("POST", "/v5/order/cancel"): Route("cancel", orders.cancel),
        ("GET", "/v5/order/realtime"): Route("open_orders", orders.realtime),
        ("GET", "/v5/order/history"): Route("closed_orders", orders.history),
        ("GET", "/v5/execution/list"): Route("trades", account.executions),
        ("GET", "/v5/account/wallet-balance"): Route("balances", account.wallet),
        ("GET", "/v5/asset/transfer/query-account-coins-balance"): Route("balances", account.coins_balance),
        ("GET", "/v5/position/list"): Route("positions", account.positions),
        ("GET", "/v5/market/funding/history"): Route("funding_rate", public.funding_history, False),
        ("GET", "/v5/market/kline"): Route("candles", public.last_candles, False),
        ("GET", "/v5/market/mark-price-kline"): Route("candles", public.mark_candles, False),
        ("GET", "/v5/account/fee-rate"): Route("fees", account.fee_rate),
        ("GET", "/v5/market/risk-limit"): Route("tiers", public.risk_limit, False),
        ("POST", "/v5/position/set-leverage"): Route("account", account.set_leverage),
        ("POST", "/v5/account/set-margin-mode"): Route("account", account.set_margin_mode),
        ("POST", "/v5/position/switch-mode"): Route("account", account.switch_mode),
        ("POST", "/v5/asset/transfer/inter-transfer"): Route("transfer", account.transfer),
    }

    def operation_of(self, route: Route, params: Mapping[str, str]) -> str:
        """Order lists with an id are look-ups; executions of settlements are funding payments."""
        has_id = "orderId" in params or "orderLinkId" in params
        if route.operation == "open_orders" and has_id:
            return "find"
        if route.operation == "closed_orders" and has_id:
            return "find_history"
        if route.operation == "trades" and params.get("execType") == "Funding":
            return "funding_payments"
        return route.operation

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """The category tells spot from perpetual."""
        wants_margined = params.get("category", "linear") != "spot"
        for contract in sim.contracts.values():
            if joined(contract) == params.get("symbol") and contract.is_margined == wants_margined:
                return contract.instrument
        return None

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """A header."""
        return bool(headers.get("X-BAPI-API-KEY"))

    def sent_ms(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """A header."""
        stamp = headers.get("X-BAPI-TIMESTAMP")
        return int(stamp) if stamp else None

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
