"""The REST of Binance: spot under ``/api/v3`` and ``/sapi/v1``, USD-margined perpetuals under ``/fapi``."""

from collections.abc import Mapping
from typing import Any

from basis_bt.live.fake import binance_account as account
from basis_bt.live.fake import binance_orders as orders
from basis_bt.live.fake import binance_public as public
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
        ("GET", "/api/v3/time"): Route("time", public.time, False),
        ("GET", "/fapi/v1/time"): Route("time", public.time, False),
        ("GET", "/api/v3/exchangeInfo"): Route("markets", public.spot_markets, False),
        ("GET", "/fapi/v1/exchangeInfo"): Route("markets", public.perp_markets, False),
        ("GET", "/dapi/v1/exchangeInfo"): Route("markets", public.no_markets, False),
        ("GET", "/sapi/v1/capital/config/getall"): Route("currencies", public.currencies),
        ("GET", "/sapi/v1/margin/allPairs"): Route("markets", public.nothing),
        ("GET", "/sapi/v1/margin/isolated/allPairs"): Route("markets", public.nothing),
        ("GET", "/api/v3/ticker/24hr"): Route("ticker", public.ticker, False),
        ("GET", "/fapi/v1/ticker/24hr"): Route("ticker", public.ticker, False),
        ("GET", "/api/v3/depth"): Route("book", public.spot_depth, False),
        ("GET", "/fapi/v1/depth"): Route("book", public.perp_depth, False),
        ("POST", "/api/v3/order"): Route("create", orders.create),
        ("POST", "/fapi/v1/order"): Route("create", orders.create),
        ("GET", "/api/v3/order"): Route("find", orders.find),
        ("GET", "/fapi/v1/order"): Route("find", orders.find),
        ("DELETE", "/api/v3/order"): Route("cancel", orders.cancel),
        ("DELETE", "/fapi/v1/order"): Route("cancel", orders.cancel),
        ("GET", "/api/v3/openOrders"): Route("open_orders", orders.open_orders),
        ("GET", "/fapi/v1/openOrders"): Route("open_orders", orders.open_orders),
        ("GET", "/api/v3/allOrders"): Route("closed_orders", orders.all_orders),
        ("GET", "/fapi/v1/allOrders"): Route("closed_orders", orders.all_orders),
        ("GET", "/api/v3/myTrades"): Route("trades", account.spot_trades),
        ("GET", "/fapi/v1/userTrades"): Route("trades", account.perp_trades),
        ("GET", "/api/v3/account"): Route("balances", account.spot_account),
        ("POST", "/sapi/v1/asset/get-funding-asset"): Route("balances", account.funding_wallet),
        ("GET", "/fapi/v3/account"): Route("balances", account.perp_account),
        ("GET", "/fapi/v2/account"): Route("balances", account.perp_account),
        ("GET", "/fapi/v3/positionRisk"): Route("positions", account.positions),
        ("GET", "/fapi/v2/positionRisk"): Route("positions", account.positions),
        ("GET", "/fapi/v1/leverageBracket"): Route("tiers", account.brackets),
        ("GET", "/fapi/v1/symbolConfig"): Route("account", account.symbol_config),
        ("GET", "/fapi/v1/premiumIndex"): Route("funding_rate", public.premium_index, False),
        ("GET", "/fapi/v1/fundingRate"): Route("funding_rate", public.funding_rates, False),
        ("GET", "/fapi/v1/fundingInfo"): Route("funding_rate", public.nothing, False),
        ("GET", "/fapi/v1/income"): Route("funding_payments", account.income),
        ("GET", "/api/v3/klines"): Route("candles", public.last_candles, False),
        ("GET", "/fapi/v1/klines"): Route("candles", public.last_candles, False),
        ("GET", "/fapi/v1/markPriceKlines"): Route("candles", public.mark_candles, False),
        ("GET", "/sapi/v1/asset/tradeFee"): Route("fees", account.spot_fee),
        ("GET", "/fapi/v1/commissionRate"): Route("fees", account.perp_fee),
        ("POST", "/fapi/v1/leverage"): Route("account", account.set_leverage),
        ("POST", "/fapi/v1/marginType"): Route("account", account.set_margin_mode),
        ("GET", "/fapi/v1/positionSide/dual"): Route("account", account.position_mode),
        ("POST", "/fapi/v1/positionSide/dual"): Route("account", account.set_position_mode),
        ("POST", "/sapi/v1/asset/transfer"): Route("transfer", account.transfer),
    }

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """Spot and perpetual share their symbols; the path tells them apart."""
        wants_margined = path.startswith("/fapi")
        for contract in sim.contracts.values():
            if joined(contract) == params.get("symbol") and contract.is_margined == wants_margined:
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
