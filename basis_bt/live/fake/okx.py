"""The REST of OKX, version 5: one trading account, perpetuals counted in contracts, errors under HTTP 200."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from basis_bt.live.fake import bars
from basis_bt.live.fake.lens import Lens
from basis_bt.live.fake.records import CANCELED, OPEN, Refused, SimOrder, Ticket, clean, text
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
    seen_done,
    seen_open,
)
from basis_bt.live.venue import Contract

#: order type -> (kind, time in force); ``optimal_limit_ioc`` is a market order that does not rest
_TYPES = {
    "market": ("market", "GTC"),
    "optimal_limit_ioc": ("market", "GTC"),
    "limit": ("limit", "GTC"),
    "post_only": ("limit", "GTX"),
    "ioc": ("limit", "IOC"),
    "fok": ("limit", "FOK"),
}
_WALLETS = {"6": "funding", "18": "perp"}
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
        ("GET", "/api/v5/public/time"): Route("time", "time", False),
        ("GET", "/api/v5/public/instruments"): Route("markets", "markets", False),
        ("GET", "/api/v5/asset/currencies"): Route("currencies", "currencies"),
        ("GET", "/api/v5/market/ticker"): Route("ticker", "ticker", False),
        ("GET", "/api/v5/market/books"): Route("book", "order_book", False),
        ("POST", "/api/v5/trade/order"): Route("create", "create"),
        ("POST", "/api/v5/trade/batch-orders"): Route("create", "create"),
        ("POST", "/api/v5/trade/cancel-order"): Route("cancel", "cancel"),
        ("GET", "/api/v5/trade/order"): Route("find", "find"),
        ("GET", "/api/v5/trade/orders-pending"): Route("open_orders", "pending"),
        ("GET", "/api/v5/trade/orders-history"): Route("closed_orders", "history"),
        ("GET", "/api/v5/trade/orders-history-archive"): Route("closed_orders", "history"),
        ("GET", "/api/v5/trade/fills-history"): Route("trades", "fills"),
        ("GET", "/api/v5/trade/fills"): Route("trades", "fills"),
        ("GET", "/api/v5/account/balance"): Route("balances", "balance"),
        ("GET", "/api/v5/asset/balances"): Route("balances", "funding_balance"),
        ("GET", "/api/v5/account/positions"): Route("positions", "positions"),
        ("GET", "/api/v5/account/config"): Route("account", "config"),
        ("GET", "/api/v5/account/leverage-info"): Route("account", "leverage_info"),
        ("GET", "/api/v5/account/bills-archive"): Route("funding_payments", "bills"),
        ("GET", "/api/v5/account/bills"): Route("funding_payments", "bills"),
        ("GET", "/api/v5/public/funding-rate"): Route("funding_rate", "funding_rate", False),
        ("GET", "/api/v5/public/funding-rate-history"): Route("funding_rate", "funding_rates", False),
        ("GET", "/api/v5/public/mark-price"): Route("ticker", "mark_price", False),
        ("GET", "/api/v5/public/position-tiers"): Route("tiers", "tiers", False),
        ("GET", "/api/v5/market/candles"): Route("candles", "last_candles", False),
        ("GET", "/api/v5/market/history-candles"): Route("candles", "last_candles", False),
        ("GET", "/api/v5/market/mark-price-candles"): Route("candles", "mark_candles", False),
        ("GET", "/api/v5/market/history-mark-price-candles"): Route("candles", "mark_candles", False),
        ("GET", "/api/v5/account/trade-fee"): Route("fees", "trade_fee"),
        ("POST", "/api/v5/account/set-leverage"): Route("account", "set_leverage"),
        ("POST", "/api/v5/account/set-position-mode"): Route("account", "set_position_mode"),
        ("POST", "/api/v5/asset/transfer"): Route("transfer", "transfer"),
    }

    # ------------------------------------------------------------- requests

    def instrument_of(self, sim: SimVenue, path: str, params: Mapping[str, str]) -> str | None:
        """``instId`` is unique."""
        for contract in sim.contracts.values():
            if _inst_id(contract) == params.get("instId"):
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

    # -------------------------------------------------------------- replies

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

    # --------------------------------------------------------------- public

    def time(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The venue's clock."""
        return {"ts": str(sim.venue_now_ms())}

    def markets(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Instruments of a type."""
        kind = call.params["instType"]
        return [
            _market(contract)
            for contract in sim.contracts.values()
            if kind == _inst_type(contract) and call.params.get("instId") in (None, _inst_id(contract))
        ]

    def currencies(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The coins that wallets know."""
        coins = {c for contract in sim.contracts.values() for c in (contract.base, contract.quote)}
        return [
            {"ccy": c, "chain": f"{c}-{c}", "canDep": True, "canWd": True, "canInternal": True, "minWd": "0",
             "minFee": "0", "maxFee": "0", "wdTickSz": "8", "mainNet": True, "name": c}
            for c in sorted(coins)
        ]  # fmt: skip

    def ticker(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Best prices and their time."""
        seen = treatment.lens.book(sim.book(demand_instrument(call)), sim.now_us())
        bid = text(seen.bids[0][0]) if seen.bids else ""
        ask = text(seen.asks[0][0]) if seen.asks else ""
        return {
            "instId": call.params["instId"], "last": bid or ask, "bidPx": bid, "askPx": ask, "vol24h": "1000",
            "volCcy24h": "1000", "ts": str(seen.at_us // 1000),
        }  # fmt: skip

    def order_book(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Levels in contracts, with a time."""
        instrument = demand_instrument(call)
        size = sim.contracts[instrument].contract_base
        seen = treatment.lens.book(sim.book(instrument), sim.now_us())
        n = int(call.params.get("sz", "1"))
        return {
            "asks": [[text(p), text(q / size), "0", "1"] for p, q in seen.asks[:n]],
            "bids": [[text(p), text(q / size), "0", "1"] for p, q in seen.bids[:n]],
            "ts": str(seen.at_us // 1000),
            "seqId": seen.update_id,
        }

    def mark_price(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one perpetual, or of all."""
        return [
            {
                "instType": "SWAP", "instId": _inst_id(sim.contracts[instrument]),
                "markPx": text(sim.mark_price(instrument)), "ts": str(sim.venue_now_ms()),
            }
            for instrument in sim.positions
            if call.instrument in (None, instrument)
        ]  # fmt: skip

    def funding_rate(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The rate of the running period; its settlement is ``fundingTime``."""
        rate, next_us, hours = bars.next_rate(sim, demand_instrument(call))
        return {
            "instId": call.params["instId"], "instType": "SWAP", "fundingRate": text(rate),
            "fundingTime": str(next_us // 1000), "nextFundingTime": str(next_us // 1000 + round(hours * 3_600_000)),
            "method": "current_period", "settState": "settled", "settFundingRate": text(rate),
            "maxFundingRate": "0.00375", "minFundingRate": "-0.00375", "nextFundingRate": "",
            "ts": str(sim.venue_now_ms()),
        }  # fmt: skip

    def funding_rates(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Settled rates, newest first; what was paid is ``realizedRate``."""
        marks = bars.settled(sim, demand_instrument(call), call.params.get("before"))
        return [
            {
                "instId": call.params["instId"], "instType": "SWAP", "fundingRate": text(mark.rate),
                "realizedRate": text(mark.rate), "fundingTime": str(mark.ts_us // 1000), "method": "current_period",
            }
            for mark in reversed(marks)
        ]  # fmt: skip

    def last_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of trades, newest first; the volume in contracts comes before the one in base."""
        size = sim.contracts[demand_instrument(call)].contract_base
        return [
            [str(at), text(o), text(h), text(lo), text(c), text(v / size), text(v), text(v * c), done]
            for at, (o, h, lo, c, v), done in self._candles(sim, call, "last")
        ]

    def mark_candles(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Bars of the mark price, newest first."""
        return [
            [str(at), text(o), text(h), text(lo), text(c), done]
            for at, (o, h, lo, c, _), done in self._candles(sim, call, "mark")
        ]

    def _candles(self, sim: SimVenue, call: Call, price: str) -> list[tuple[int, tuple[float, ...], str]]:
        params = call.params
        since_ms = str(int(params["before"]) + 1) if "before" in params else None
        until_ms = str(int(params["after"]) - 1) if "after" in params else None
        rows, step_ms = bars.candles(
            sim, demand_instrument(call), price, params.get("bar", "1m"), since_ms=since_ms, until_ms=until_ms,
            limit=int(params.get("limit", "100")),
        )  # fmt: skip
        now_ms = sim.venue_now_ms()
        return [(at, ohlcv, "1" if at + step_ms <= now_ms else "0") for at, ohlcv in reversed(rows)]

    def tiers(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """One tier an underlying."""
        family = call.params.get("instFamily") or call.params.get("uly")
        return [
            {
                "instId": "", "instType": "SWAP", "instFamily": _pair(contract), "uly": _pair(contract), "tier": "1",
                "minSz": "0", "maxSz": "100000", "imr": text(1.0 / bars.MAX_LEVERAGE), "baseMaxLoan": "",
                "mmr": text(bars.MAINTENANCE_FRAC), "maxLever": text(bars.MAX_LEVERAGE), "quoteMaxLoan": "",
                "optMgnFactor": "",
            }
            for contract in sim.contracts.values()
            if contract.is_margined and family in (None, _pair(contract))
        ]  # fmt: skip

    # --------------------------------------------------------------- orders

    def create(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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
        return self._ack(sim, place(sim, ticket, treatment))

    def cancel(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """By either id."""
        order = sim.find(
            demand_instrument(call),
            venue_order_id=call.params.get("ordId", ""),
            client_order_id=call.params.get("clOrdId", ""),
        )
        return self._ack(sim, sim.cancel(order, fill_share_before=treatment.fill_share_before_cancel))

    def _ack(self, sim: SimVenue, order: SimOrder) -> dict[str, str]:
        return {
            "clOrdId": order.ticket.client_order_id, "ordId": order.venue_order_id, "tag": "",
            "ts": str(sim.venue_now_ms()), "sCode": "0", "sMsg": "",
        }  # fmt: skip

    def find(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """By ``ordId`` or ``clOrdId``."""
        order = find_or_refuse(sim, call, treatment, call.params.get("ordId", ""), call.params.get("clOrdId", ""))
        return _order(sim, order, treatment.lens)

    def pending(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Open orders."""
        return self._rows(sim, call, seen_open(sim, call.instrument, treatment.lens), treatment.lens)

    def history(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Orders that are over, newest first."""
        orders = seen_done(sim, call.instrument, treatment.lens)
        return self._rows(sim, call, orders[::-1], treatment.lens)

    def _rows(self, sim: SimVenue, call: Call, orders: list[SimOrder], lens: Lens) -> list[dict[str, str]]:
        kind = call.params.get("instType")
        return [
            _order(sim, order, lens)
            for order in orders
            if kind in (None, _inst_type(sim.contracts[order.ticket.instrument]))
            for _ in range(lens.copies)
        ]

    # -------------------------------------------------------------- account

    def fills(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Trades, newest first; a fee that was paid is negative."""
        params = call.params
        since_us = int(params.get("begin", "0")) * 1000
        until_us = int(params.get("end", "9000000000000")) * 1000 + 999
        rows = []
        for trade in reversed(sim.trades):
            contract = sim.contracts[trade.instrument]
            if (
                params.get("instType") in (None, _inst_type(contract))
                and call.instrument in (None, trade.instrument)
                and params.get("ordId") in (None, trade.venue_order_id)
                and since_us <= trade.ts_us <= until_us
            ):
                row = {
                    "side": "buy" if trade.side > 0 else "sell", "fillPx": text(trade.price),
                    "fillSz": text(trade.quantity_base / contract.contract_base), "fee": text(-trade.fee),
                    "feeCcy": trade.fee_asset, "ordId": trade.venue_order_id, "instType": _inst_type(contract),
                    "instId": _inst_id(contract), "clOrdId": trade.client_order_id, "posSide": "net",
                    "execType": "M" if trade.is_maker else "T", "tradeId": trade.trade_id,
                    "billId": "9" + trade.trade_id, "ts": str(trade.ts_us // 1000),
                    "fillPnl": text(trade.realised_usd), "tag": "",
                }  # fmt: skip
                rows += [row] * treatment.lens.copies
        return rows[: int(params.get("limit", "100"))]

    def balance(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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

    def funding_balance(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """The funding account."""
        return [
            {"ccy": coin, "bal": text(amount), "availBal": text(amount), "frozenBal": "0"}
            for coin, amount in sim.wallets.cash["funding"].items()
        ]

    def positions(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Signed, in contracts; those that are not zero."""
        wanted = call.params.get("instId", "")
        rows = []
        for instrument, position in sim.positions.items():
            updated_us, base, entry = position.seen(treatment.lens.positions_lag)
            contract = sim.contracts[instrument]
            if not base or (wanted and _inst_id(contract) not in wanted.split(",")):
                continue
            mark = sim.mark_price(instrument)
            value = abs(base) * mark
            rows.append(
                {
                    "instType": "SWAP", "instId": _inst_id(contract), "mgnMode": position.margin_mode,
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

    def config(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Position mode, and account level 2 (futures mode)."""
        return {"uid": "1", "acctLv": "2", "posMode": "long_short_mode" if sim.is_hedge_mode else "net_mode"}

    def leverage_info(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Of one perpetual."""
        position = sim.positions[demand_instrument(call)]
        return {
            "instId": call.params["instId"], "mgnMode": call.params.get("mgnMode", "cross"), "posSide": "net",
            "lever": text(position.leverage),
        }  # fmt: skip

    def bills(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Funding, newest first, positive when received."""
        since_us = int(call.params.get("begin", "0")) * 1000
        return [
            {
                "balChg": text(payment.amount), "billId": payment.payment_id, "ccy": payment.asset,
                "instId": _inst_id(sim.contracts[payment.instrument]), "instType": "SWAP", "type": "8",
                "subType": "174" if payment.amount > 0 else "173", "pnl": text(payment.amount),
                "sz": text(abs(payment.position_base) / sim.contracts[payment.instrument].contract_base),
                "ts": str(payment.ts_us // 1000),
            }
            for payment in reversed(sim.funding)
            if payment.ts_us >= since_us and call.params.get("type", "8") == "8"
            for _ in range(treatment.lens.copies)
        ]  # fmt: skip

    def trade_fee(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Negative where the account pays."""
        kind = call.params["instType"]
        family = call.params.get("instFamily") or call.params.get("uly") or call.params.get("instId")
        for contract in sim.contracts.values():
            if _inst_type(contract) == kind and family in (None, _pair(contract), _inst_id(contract)):
                maker, taker = text(-contract.maker_fee_bps * 1e-4), text(-contract.taker_fee_bps * 1e-4)
                return {
                    "instType": kind, "maker": maker, "taker": taker, "makerU": maker if contract.is_margined else "",
                    "takerU": taker if contract.is_margined else "", "level": "Lv1", "ts": str(sim.venue_now_ms()),
                }  # fmt: skip
        raise Refused("bad_request", "no such instrument")

    def set_leverage(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Leverage and margin mode of one perpetual."""
        leverage, mode = float(call.params["lever"]), call.params["mgnMode"]
        if not 1.0 <= leverage <= bars.MAX_LEVERAGE or mode not in ("cross", "isolated"):
            raise Refused("bad_request", "lever or mgnMode")
        position = sim.positions[demand_instrument(call)]
        position.leverage, position.margin_mode = leverage, mode
        return {"instId": call.params["instId"], "lever": text(leverage), "mgnMode": mode, "posSide": ""}

    def set_position_mode(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
        """Account wide; the same again is a success."""
        sim.is_hedge_mode = call.params["posMode"] == "long_short_mode"
        return {"posMode": call.params["posMode"]}

    def transfer(self, sim: SimVenue, call: Call, treatment: Treatment) -> Any:
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


def _pair(contract: Contract) -> str:
    return f"{contract.base}-{contract.quote}"


def _inst_type(contract: Contract) -> str:
    return "SWAP" if contract.is_margined else "SPOT"


def _inst_id(contract: Contract) -> str:
    return _pair(contract) + ("-SWAP" if contract.is_margined else "")


def _market(contract: Contract) -> dict[str, str]:
    size = contract.contract_base
    row = {
        "instType": _inst_type(contract), "instId": _inst_id(contract), "lotSz": text(contract.lot_base / size),
        "minSz": text(contract.min_base / size), "tickSz": text(contract.tick), "maxLmtSz": "100000000",
        "state": "live" if contract.is_trading else "suspend", "expTime": "", "listTime": "1",
    }  # fmt: skip
    if not contract.is_margined:
        return row | {
            "baseCcy": contract.base, "quoteCcy": contract.quote, "uly": "", "instFamily": "", "settleCcy": "",
            "ctVal": "", "ctMult": "", "ctValCcy": "", "ctType": "", "lever": "10",
        }  # fmt: skip
    return row | {
        "uly": _pair(contract), "instFamily": _pair(contract), "settleCcy": contract.quote, "ctVal": text(size),
        "ctMult": "1", "ctValCcy": contract.base, "ctType": "linear", "lever": text(bars.MAX_LEVERAGE),
        "baseCcy": "", "quoteCcy": "",
    }  # fmt: skip


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
        "instType": _inst_type(contract), "instId": _inst_id(contract), "ordId": order.venue_order_id,
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
