"""The REST of OKX, version 5: one trading account, perpetuals counted in contracts, errors under HTTP 200."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from basis_bt.live.fake import okx_account as account
from basis_bt.live.fake import okx_orders as orders
from basis_bt.live.fake import okx_public as public
from basis_bt.live.fake.okx_names import inst_id
from basis_bt.live.fake.records import text
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import (
    Call,
    Dialect,
    Reply,
    Route,
    json_reply,
)

_ORDER_ERRORS: Mapping[str, tuple[str, str]] = {
    "funds": ("51008", "Order failed. Insufficient balance in account."),
    "margin": ("51008", "Order failed. Insufficient USDT margin in account."),
    "minimum": ("51020", "Your order should meet or exceed the minimum order amount."),
    "lot": ("51121", "Order quantity must be a multiple of the lot size."),
    "tick": ("51000", "Parameter px error"),
    "reduce_only": ("51169", "Order failed because you don't have any positions to reduce."),
    "post_only": ("51000", "post only"),
    "halted": ("51022", "Contract suspended."),
    "duplicate": ("51016", "Duplicated client order ID."),
    "price_band": ("51006", "Order price is not within the price limit."),
    "position_mode": ("51000", "Parameter posSide error"),
    "bad_request": ("51000", "Parameter error"),
}
_ERRORS: Mapping[str, tuple[str, str]] = {
    "not_found": ("51603", "Order does not exist"),
    "busy": ("50013", "Systems are busy. Please try again later."),
    "clock": ("50102", "Timestamp request expired."),
    "rate": ("50011", "Too Many Requests"),
    "key": ("50103", 'Request header "OK-ACCESS-KEY" cannot be empty.'),
    "funds": ("58350", "Insufficient balance."),
}
_CANCEL_NOT_FOUND = ("51400", "Cancellation failed as the order has been filled, canceled or does not exist.")


class Okx(Dialect):
    """Sizes of perpetuals, in requests and replies alike, are contracts. Order replies tell the ids only."""

    name = "okx"
    routes = {
        ("GET", "/api/v5/public/time"): Route("time", public.time, False),
        ("GET", "/api/v5/public/instruments"): Route("markets", public.markets, False),
        ("GET", "/api/v5/asset/currencies"): Route("currencies", public.currencies),
        ("GET", "/api/v5/market/ticker"): Route("ticker", public.ticker, False),
        ("GET", "/api/v5/market/books"): Route("book", public.order_book, False),
        ("POST", "/api/v5/trade/order"): Route("create", orders.create),
        ("POST", "/api/v5/trade/batch-orders"): Route("create", orders.create),
        ("POST", "/api/v5/trade/cancel-order"): Route("cancel", orders.cancel),
        ("GET", "/api/v5/trade/order"): Route("find", orders.find),
        ("GET", "/api/v5/trade/orders-pending"): Route("open_orders", orders.pending),
        ("GET", "/api/v5/trade/orders-history"): Route("closed_orders", orders.history),
        ("GET", "/api/v5/trade/orders-history-archive"): Route("closed_orders", orders.history),
        ("GET", "/api/v5/trade/fills-history"): Route("trades", account.fills),
        ("GET", "/api/v5/trade/fills"): Route("trades", account.fills),
        ("GET", "/api/v5/account/balance"): Route("balances", account.balance),
        ("GET", "/api/v5/asset/balances"): Route("balances", account.funding_balance),
        ("GET", "/api/v5/account/positions"): Route("positions", account.positions),
        ("GET", "/api/v5/account/config"): Route("account", account.config),
        ("GET", "/api/v5/account/leverage-info"): Route("account", account.leverage_info),
        ("GET", "/api/v5/account/bills-archive"): Route("funding_payments", account.bills),
        ("GET", "/api/v5/account/bills"): Route("funding_payments", account.bills),
        ("GET", "/api/v5/public/funding-rate"): Route("funding_rate", public.funding_rate, False),
        ("GET", "/api/v5/public/funding-rate-history"): Route("funding_rate", public.funding_rates, False),
        ("GET", "/api/v5/public/mark-price"): Route("ticker", public.mark_price, False),
        ("GET", "/api/v5/public/position-tiers"): Route("tiers", public.tiers, False),
        ("GET", "/api/v5/market/candles"): Route("candles", public.last_candles, False),
        ("GET", "/api/v5/market/history-candles"): Route("candles", public.last_candles, False),
        ("GET", "/api/v5/market/mark-price-candles"): Route("candles", public.mark_candles, False),
        ("GET", "/api/v5/market/history-mark-price-candles"): Route("candles", public.mark_candles, False),
        ("GET", "/api/v5/account/trade-fee"): Route("fees", account.trade_fee),
        ("POST", "/api/v5/account/set-leverage"): Route("account", account.set_leverage),
        ("POST", "/api/v5/account/set-position-mode"): Route("account", account.set_position_mode),
        ("POST", "/api/v5/asset/transfer"): Route("transfer", account.transfer),
    }

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """``instId`` is unique."""
        for contract in sim.contracts.values():
            if inst_id(contract) == params.get("instId"):
                return contract.instrument
        return None

    def has_key(self, headers: Mapping[str, str]) -> bool:
        """A header, and the passphrase with it."""
        return bool(headers.get("OK-ACCESS-KEY")) and bool(headers.get("OK-ACCESS-PASSPHRASE"))

    def sent_ms(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """A header, in ISO 8601."""
        stamp = headers.get("OK-ACCESS-TIMESTAMP")
        if not stamp:
            return None
        return round(datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(UTC).timestamp() * 1000)

    def success(self, sim: SimVenue, body: Any) -> Reply:
        """Code "0" around a list."""
        return json_reply({"code": "0", "msg": "", "data": body if isinstance(body, list) else [body]})

    def refusal(self, sim: SimVenue, kind: str, message: str, call: Call) -> Reply:
        """Order errors sit in ``sCode`` under code "1"; the rest in ``code``."""
        if call.operation == "cancel" and kind == "not_found":
            return self._order_error(call, *_CANCEL_NOT_FOUND)
        if call.operation == "create" and kind in _ORDER_ERRORS:
            return self._order_error(call, *_ORDER_ERRORS[kind])
        code, words = _ERRORS.get(kind) or _ORDER_ERRORS["bad_request"]
        status = 401 if kind == "key" else 429 if kind == "rate" else 200
        return json_reply({"code": code, "msg": words, "data": []}, status=status)

    def _order_error(self, call: Call, code: str, words: str) -> Reply:
        row = {"clOrdId": call.params.get("clOrdId", ""), "ordId": "", "tag": "", "sCode": code, "sMsg": words}
        return json_reply({"code": "1", "msg": "", "data": [row]})

    def status_unknown(self, call: Call) -> Reply:
        """50004."""
        words = "API endpoint request timeout (does not mean that the request was successful or failed)"
        return json_reply({"code": "50004", "msg": words, "data": []})

    def server_error(self, status: int) -> Reply:
        """503 with a body of its own, others as a proxy writes them."""
        if status == 503:
            return json_reply({"code": "503", "msg": "service unavailable", "data": []}, status=503)
        return Reply(status=status, text=f"<html>{status}</html>", content_type="text/html")

    def rate_limited(self, seconds: float, *, is_ban: bool) -> Reply:
        """50011."""
        headers = {"Retry-After": text(seconds)}
        return json_reply({"code": "50011", "msg": "Too Many Requests", "data": []}, status=429, headers=headers)
