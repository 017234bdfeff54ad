"""A venue through ccxt: what the three best-known ones do differently, made one. Thin: ccxt speaks to the venue.

No call that sends an order is ever repeated here, except after a refusal that came before the order was looked at: a
wrong clock is set right once, a pause that the venue asks for is kept, and then the order goes out one more time.
"""

import logging
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from decimal import Decimal
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.live_models import Account
from basis_bt.live.amounts import contracts_of
from basis_bt.live.clock import Clock
from basis_bt.live.orders import (
    CANCELED,
    CLOSED,
    CLOSING,
    OPEN,
    REJECTED,
    FundingPayment,
    LegOrder,
    OrderState,
    VenueTrade,
)
from basis_bt.live.outcomes import is_clock, is_crowded, is_gone, is_unchanged, judge_send
from basis_bt.live.venue import Ack, Balance, Book, Contract, OrderRefused, OrderUnknown, Position, Venue, VenueDown

Answer = TypeVar("Answer")
Question = ParamSpec("Question")
BOOK_LEVELS = 50
RECENT = 100
TRADES_A_PAGE = {"binance": 1000}
MOST_PAGES = 50
DEFAULT_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CLOSING_FIRST_S = 0.25  # after a pause, what closes goes out so much before the rest
CLOCK_HOURS = 1.0
REFRESH_S = 1.0
_STATUS = {"open": OPEN, "closed": CLOSED, "canceled": CANCELED, "expired": CANCELED, "rejected": REJECTED}
_QUERY = re.compile(r"\?[^\s\"']*")
_BY_ORDER = {"binance": "orderId", "bybit": "orderId", "okx": "ordId"}


def ccxt_symbol(instrument: str) -> str:
    """ccxt's name: ``BTC/USDT``, ``BTC/USDT:USDT``, ``BTC/USDT:USDT-241227``.

    Raises
    ------
    ConfigError
        For what cannot be traded through ccxt here: chains of futures, coin-margined contracts, legs on a chain.
    """
    one = Instrument.parse(instrument)
    base, quote, *expiry = one.symbol.split("-")
    if one.kind == "spot":
        return f"{base}/{quote}"
    if not one.is_margined or one.is_chain or quote == "USD":
        raise ConfigError(
            f"{instrument} cannot be traded live",
            fix="spot, linear perpetuals and linear futures with an expiry can; backtest the rest",
        )
    return f"{base}/{quote}:{quote}" + (f"-{expiry[0][2:]}" if expiry else "")


def _sensible(
    method: Callable[Concatenate["CcxtVenue", Question], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate["CcxtVenue", Question], Coroutine[Any, Any, Answer]]:
    """An answer that cannot be read, because a field is missing or is no number, is no answer."""

    @wraps(method)
    async def asked(self: "CcxtVenue", *args: Question.args, **options: Question.kwargs) -> Answer:
        try:
            return await method(self, *args, **options)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise VenueDown(f"{self.name}: {method.__name__}: cannot be read: {type(error).__name__}") from None

    return asked


class CcxtVenue(Venue):
    """One account at one venue.

    Parameters
    ----------
    client : of ``ccxt.async_support``, ready to use; its own retries must be off
    account, leverage : how margined contracts are to be held
    is_public : without keys, for market data alone
    with_settings : set margin mode and leverage on opening; False only looks
    """

    def __init__(
        self,
        name: str,
        client: Any,
        *,
        clock: Clock,
        account: Account | None = None,
        leverage: float = 1.0,
        is_public: bool = False,
        with_settings: bool = True,
    ) -> None:
        self.name, self._client, self._clock = name, client, clock
        self._account, self._leverage, self._is_public = account or Account(), leverage, is_public
        self._with_settings = with_settings
        self._symbols: dict[str, str] = {}
        self._instruments: dict[str, str] = {}
        self._contracts: dict[str, Contract] = {}
        self._quiet_until_s = 0.0
        self._posts = 0
        self._seen_books: dict[str, tuple[Any, int]] = {}
        self._clock_set_s = self._refreshed_s = -math.inf
        if client.options.get("maxRetriesOnFailure", 0) != 0:
            raise ConfigError(
                "ccxt's maxRetriesOnFailure must be 0: it sends orders a second time",
                where={"venue": name},
                fix="take it out of the options",
            )
        self._fetch = client.fetch
        client.fetch = self._checked_fetch
        # ccxt writes every request with its key and signature into its log at this level
        logging.getLogger("ccxt").setLevel(max(logging.getLogger("ccxt").level, logging.INFO))

    async def _checked_fetch(self, url: str, method: str = "GET", *args: Any, **options: Any) -> Any:
        """Counts what may have been an order; a page or an empty text is no answer, least of all an empty list."""
        import ccxt.async_support as ccxt

        if method == "POST":
            self._posts += 1
        reply = await self._fetch(url, method, *args, **options)
        if not isinstance(reply, dict | list):
            raise ccxt.BadResponse(f"{self.name}: the reply is no JSON")
        return reply

    # -- the account ---------------------------------------------------------------------------------------------------

    async def open(self, instruments: Sequence[str]) -> None:
        """Learn the contracts; check position mode, margin mode and leverage of the margined ones.

        Raises
        ------
        ConfigError
            If the account is in hedge mode or an instrument is unknown to the venue.
        VenueDown
            If the venue does not answer.
        """
        self._symbols = {one: ccxt_symbol(one) for one in instruments}
        self._instruments = {symbol: one for one, symbol in self._symbols.items()}
        await self._ask(lambda: self._client.load_markets())
        await self._set_clock()
        for instrument, symbol in self._symbols.items():
            if symbol not in (self._client.markets or {}):
                raise ConfigError(
                    f"{self.name} lists no {symbol}", where={"instrument": instrument}, fix="check the name"
                )
            fees = await self._fees(symbol)
            self._contracts[instrument] = self._contract(instrument, fees)
            if self._contracts[instrument].is_margined and not self._is_public:
                await self._set_up(instrument, symbol)

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()

    def contract(self, instrument: str) -> Contract:
        """How an instrument is traded here."""
        return self._contracts[instrument]

    @_sensible
    async def refresh(self, instrument: str) -> Contract:
        """The same, the state of all asked again, at most once a second."""
        now_s = self._clock.monotonic_s()
        if now_s - self._refreshed_s >= REFRESH_S:
            before, currencies = dict(self._client.markets), self._client.currencies
            try:
                await self._ask(lambda: self._client.load_markets(True))
            finally:
                missing = [symbol for symbol in self._symbols.values() if symbol not in (self._client.markets or {})]
                if missing:  # what is held there must still be looked up and closed
                    self._client.currencies = currencies
                    self._client.set_markets(before)
            if missing:
                raise VenueDown(f"{self.name}: {', '.join(missing)} is not among the markets")
            self._refreshed_s = now_s
            for one, known in self._contracts.items():
                self._contracts[one] = self._contract(one, (known.taker_fee_bps, known.maker_fee_bps))
        return self._contracts[instrument]

    def _contract(self, instrument: str, fees: tuple[float, float]) -> Contract:
        market = self._client.markets[self._symbols[instrument]]
        size = float(market.get("contractSize") or 1.0) if market["contract"] else 1.0
        step = float(market["precision"]["amount"] or 0.0)
        limits = market["limits"]
        least = float(limits["amount"].get("min") or 0.0)
        return Contract(
            instrument=instrument,
            venue=self.name,
            symbol=market["symbol"],
            base=market["base"],
            quote=market["quote"],
            is_margined=bool(market["contract"]),
            lot_base=float(Decimal(str(step)) * Decimal(str(size))),
            tick=float(market["precision"]["price"] or 0.0),
            min_base=float(Decimal(str(least)) * Decimal(str(size))),
            min_notional_usd=float(limits["cost"].get("min") or 0.0),
            contract_base=size,
            taker_fee_bps=fees[0],
            maker_fee_bps=fees[1],
            is_fee_in_base=not market["contract"],
            is_trading=market.get("active") is not False,
        )

    async def _fees(self, symbol: str) -> tuple[float, float]:
        """The account's taker and maker fee in bps; ccxt's static ones, which are stale, only without keys."""
        market = self._client.markets[symbol]
        if not self._is_public and self._client.has.get("fetchTradingFee"):
            told = await self._ask(lambda: self._client.fetch_trading_fee(symbol))
            if told.get("taker") is not None and told.get("maker") is not None:
                return 1e4 * float(told["taker"]), 1e4 * float(told["maker"])
        return 1e4 * float(market.get("taker") or 0.0), 1e4 * float(market.get("maker") or 0.0)

    async def _set_up(self, instrument: str, symbol: str) -> None:
        has = self._client.has
        if has.get("fetchPositionMode"):
            mode = await self._ask(lambda: self._client.fetch_position_mode(symbol))
            if mode.get("hedged"):
                raise ConfigError(
                    f"the account at {self.name} is in hedge mode, in which a sale can open instead of close",
                    where={"instrument": instrument},
                    fix="switch it to one-way mode at the venue, with nothing open",
                )
        if not self._with_settings:
            return
        if has.get("setMarginMode"):
            params = {"lever": f"{self._leverage:g}"} if self.name == "okx" else {}
            await self._unless_set(lambda: self._client.set_margin_mode(self._account.margin_mode, symbol, params))
        if has.get("setLeverage"):
            leverage = int(self._leverage) if float(self._leverage).is_integer() else self._leverage
            params = {"mgnMode": self._account.margin_mode} if self.name == "okx" else {}
            await self._unless_set(lambda: self._client.set_leverage(leverage, symbol, params))

    async def _unless_set(self, call: Callable[[], Awaitable[Any]]) -> None:
        """A setting; that it is so already is no error."""
        try:
            await self._ask(call)
        except VenueDown as error:
            if error.kind != "unchanged":
                raise

    # -- questions -----------------------------------------------------------------------------------------------------

    async def _ask(self, call: Callable[[], Awaitable[Any]], *, closing: bool = False) -> Any:
        """The answer to a question. A clock that is wrong is set once; a pause that the venue asks for is kept."""
        is_clock_set = False
        if self._clock.monotonic_s() - self._clock_set_s > CLOCK_HOURS * 3600.0 > 0.0 and self._contracts:
            await self._set_clock()
        for attempt in range(3):
            await self._keep_quiet(closing)
            try:
                return await call()
            except Exception as error:
                self._listen(error)
                if is_clock(error, venue=self.name) and not is_clock_set:
                    is_clock_set = True
                    await self._set_clock(force=True)
                elif not is_crowded(error, venue=self.name) or attempt == 2:
                    raise self._down(error) from None
        raise VenueDown(f"{self.name} did not answer")

    def _listen(self, error: Exception) -> None:
        """Hear how long a venue that is crowded wants to be left alone."""
        if not is_crowded(error, venue=self.name):
            return
        headers = {str(key).lower(): value for key, value in (self._client.last_response_headers or {}).items()}
        said = str(headers.get("retry-after", "")).strip()
        pause_s = min(float(said), LONGEST_PAUSE_S) if said.replace(".", "", 1).isdigit() else DEFAULT_PAUSE_S
        self._quiet_until_s = max(self._quiet_until_s, self._clock.monotonic_s() + pause_s)

    async def _keep_quiet(self, closing: bool) -> None:
        while True:
            wait_s = self._quiet_until_s + (0.0 if closing else CLOSING_FIRST_S) - self._clock.monotonic_s()
            if self._quiet_until_s <= 0.0 or wait_s <= 0.0:
                return
            await self._clock.sleep(wait_s)

    async def _set_clock(self, *, force: bool = False) -> None:
        """Measure how far the venue's clock is from ours; again every hour."""
        now_s = self._clock.monotonic_s()
        if self._client.has.get("fetchTime") and (force or now_s - self._clock_set_s > CLOCK_HOURS * 3600.0):
            self._clock_set_s = now_s
            await self._keep_quiet(closing=True)
            try:
                await self._client.load_time_difference()
            except Exception as error:
                self._listen(error)
                raise self._down(error) from None

    def _down(self, error: Exception) -> VenueDown:
        """What to raise instead of an error of ccxt, whose text and chain can hold a signed address."""
        kind = "gone" if is_gone(error, venue=self.name) else "unchanged" if is_unchanged(error) else "down"
        return VenueDown(self._told(error), kind=kind)

    def _told(self, error: BaseException) -> str:
        text = _QUERY.sub("?...", " ".join(str(error).split()))
        return f"{self.name}: {type(error).__name__}: {text[:300]}"

    @_sensible
    async def book(self, instrument: str) -> Book:
        """The order book. Where it carries no time, it is as old as the ticker, or as its number if that is older."""
        symbol, size = self._symbols[instrument], self._contracts[instrument].contract_base
        told = await self._ask(lambda: self._client.fetch_order_book(symbol, BOOK_LEVELS))
        now_us = self._clock.now_us()
        at_us = int(told["timestamp"]) * 1000 if told.get("timestamp") else None
        if at_us is None:
            number, since_us = self._seen_books.get(instrument, (None, now_us))
            since_us = since_us if told.get("nonce") is not None and told["nonce"] == number else now_us
            self._seen_books[instrument] = (told.get("nonce"), since_us)
            ticker = await self._ask(lambda: self._client.fetch_ticker(symbol))
            at_us = min(since_us, int(ticker["timestamp"]) * 1000 if ticker.get("timestamp") else now_us)
        bids, asks = ([(float(row[0]), float(row[1]) * size) for row in told[side]] for side in ("bids", "asks"))
        return Book(instrument=instrument, bids=bids, asks=asks, at_us=at_us)

    # -- orders --------------------------------------------------------------------------------------------------------

    async def send(self, order: LegOrder) -> Ack:
        """Send an order; see ``Venue.send``."""
        contract = self._contracts[order.instrument]
        kind, price, params = "market", None, {"clientOrderId": order.client_order_id}
        extra: dict[str, Any] = {}
        if order.limit_price is not None:
            kind, price = "limit", order.limit_price
            if order.kind == "market":
                extra["timeInForce"] = "IOC"
        if order.post_only:
            extra["postOnly"] = True
        if order.reduce_only and contract.is_margined:
            extra["reduceOnly"] = True
        if contract.is_margined and self.name == "okx":  # there it is said with each order
            extra["marginMode"] = self._account.margin_mode
        side = "buy" if order.side > 0 else "sell"
        amount = contracts_of(order.quantity_base, contract)
        is_clock_set = False
        for attempt in range(3):
            await self._keep_quiet(order.purpose in CLOSING)
            before = self._posts
            try:
                reply = await self._client.create_order(
                    contract.symbol, kind, side, amount, price, {**params, **extra}
                )
                break
            except Exception as error:
                self._listen(error)
                verdict = judge_send(error, venue=self.name, was_sent=self._posts > before)
                if verdict.outcome == "unknown":
                    raise OrderUnknown(self._told(error)) from None
                if verdict.outcome == "refused" or attempt == 2 or (verdict.kind == "clock" and is_clock_set):
                    raise OrderRefused(self._told(error), kind=verdict.kind) from None
                if verdict.kind == "clock":
                    is_clock_set = True
                    try:
                        await self._set_clock(force=True)
                    except VenueDown:
                        raise OrderRefused(self._told(error), kind="clock") from None
        if reply.get("status") == "rejected" and not reply.get("id"):
            raise OrderUnknown(f"{self.name}: a rejection without a code")
        if not reply.get("id"):
            raise OrderUnknown(f"{self.name}: the reply to an order has no id")
        return Ack(venue_order_id=str(reply["id"]))

    @_sensible
    async def find(self, order: LegOrder) -> OrderState | None:
        """The order by its client id, in the way of each venue."""
        symbol, cid = self._symbols[order.instrument], order.client_order_id
        if self.name == "bybit":
            by_link = {"orderLinkId": cid}
            for question in (self._client.fetch_open_orders, self._client.fetch_canceled_and_closed_orders):
                rows = await self._ask(partial(question, symbol, None, None, by_link))
                mine = [row for row in rows if row.get("clientOrderId") == cid]
                if mine:
                    return self._state(mine[-1], order.instrument)
            return None
        try:
            if self.name in ("binance", "okx"):
                row = await self._client_order(symbol, {"clientOrderId": cid})
            else:
                return await self._search(symbol, order)
        except VenueDown as error:
            if error.kind == "gone":
                return None
            raise
        if not row.get("id") and self.name == "binance":  # OKX alone says "none" in this way
            raise VenueDown("binance: the reply to a look-up has no id")
        return self._state(row, order.instrument) if row.get("id") else None

    async def _client_order(self, symbol: str, params: dict[str, Any]) -> Any:
        return await self._ask(lambda: self._client.fetch_order(None, symbol, params))

    async def _search(self, symbol: str, order: LegOrder) -> OrderState | None:
        """At a venue nobody wrote down: among the open and the closed orders since the send."""
        since_ms = order.sent_us // 1000 - 60_000
        for method in ("fetch_open_orders", "fetch_closed_orders", "fetch_canceled_orders"):
            name = "".join(part.title() if part != "fetch" else part for part in method.split("_"))
            if not self._client.has.get(name):
                continue
            rows = await self._ask(partial(getattr(self._client, method), symbol, since_ms))
            mine = [row for row in rows if row.get("clientOrderId") == order.client_order_id]
            if mine:
                return self._state(mine[-1], order.instrument)
        return None

    def _state(self, row: Any, instrument: str) -> OrderState:
        size = self._contracts[instrument].contract_base
        filled = row.get("filled")
        updated = row.get("lastUpdateTimestamp") or row.get("lastTradeTimestamp") or row.get("timestamp")
        return OrderState(
            client_order_id=str(row.get("clientOrderId") or ""),
            venue_order_id=str(row["id"]),
            instrument=instrument,
            side=1 if row.get("side") == "buy" else -1,
            status=_STATUS.get(row.get("status") or "open", OPEN),
            quantity_base=float(row.get("amount") or 0.0) * size,
            filled_base=float(filled or 0.0) * size,
            average_price=float(row["average"]) if row.get("average") else None,
            updated_us=int(updated) * 1000 if updated else None,
        )

    async def cancel(self, order: LegOrder, venue_order_id: str | None) -> bool:
        """Ask to cancel. False: no such open order any more; raises VenueDown where nobody knows."""
        return await self._cancel(self._symbols[order.instrument], venue_order_id, order.client_order_id)

    async def cancel_found(self, state: OrderState) -> bool:
        """The same of an order that was met at the venue."""
        return await self._cancel(self._symbols[state.instrument], state.venue_order_id, state.client_order_id)

    async def _cancel(self, symbol: str, venue_order_id: str | None, client_order_id: str) -> bool:
        name = "orderLinkId" if self.name == "bybit" else "clientOrderId"
        params = {} if venue_order_id else {name: client_order_id}
        try:
            await self._ask(lambda: self._client.cancel_order(venue_order_id, symbol, params), closing=True)
        except VenueDown as error:
            if error.kind == "gone":
                return False
            raise
        return True

    @_sensible
    async def open_orders(self) -> list[OrderState]:
        """All open orders of the instruments."""
        out = []
        for instrument, symbol in self._symbols.items():
            rows = await self._ask(partial(self._client.fetch_open_orders, symbol))
            out += [self._state(row, instrument) for row in rows]
        return out

    @_sensible
    async def trades(self, instrument: str, *, since_us: int, venue_order_id: str | None = None) -> list[VenueTrade]:
        """Own fills, each once."""
        symbol, contract = self._symbols[instrument], self._contracts[instrument]
        key = _BY_ORDER.get(self.name)
        params = {key: venue_order_id} if key and venue_order_id else {}
        since_ms = None if params and self.name == "binance" else since_us // 1000
        found: dict[str, VenueTrade] = {}
        for row in await self._trade_rows(symbol, since_ms, params):
            if venue_order_id is not None and str(row.get("order")) != venue_order_id:
                continue
            fee, asset = self._fee(row, contract)
            found[str(row["id"])] = VenueTrade(
                trade_id=str(row["id"]),
                venue_order_id=str(row.get("order") or ""),
                instrument=instrument,
                side=1 if row["side"] == "buy" else -1,
                quantity_base=float(row["amount"]) * contract.contract_base,
                price=float(row["price"]),
                fee=fee,
                fee_asset=asset,
                is_maker=row.get("takerOrMaker") == "maker",
                ts_us=int(row["timestamp"]) * 1000,
            )
        return sorted(found.values(), key=lambda trade: trade.ts_us)

    async def _trade_rows(self, symbol: str, since_ms: int | None, params: dict[str, Any]) -> list[Any]:
        """All pages; an order that walks a book can have more fills than a venue tells at once."""
        limit = TRADES_A_PAGE.get(self.name, RECENT)
        rows = await self._ask(lambda: self._client.fetch_my_trades(symbol, since_ms, limit, params))
        known = {str(row["id"]) for row in rows}
        page = rows
        for _ in range(MOST_PAGES):
            if len(page) < limit:
                break
            further = dict(params)
            newest, oldest = page[-1], page[0]
            if self.name == "binance":
                further["fromId"] = int(newest["id"]) + 1
            elif self.name == "okx":
                further["after"] = oldest["info"].get("billId")
            elif cursor := next((one["info"]["nextPageCursor"] for one in (oldest, newest)
                                 if one["info"].get("nextPageCursor")), None):  # fmt: skip
                further["cursor"] = cursor
            start_ms = since_ms if self.name in ("okx", "bybit") else None
            if self.name not in _BY_ORDER:
                start_ms = int(newest["timestamp"])
            asked = partial(self._client.fetch_my_trades, symbol, start_ms, limit, further)
            page = await self._ask(asked)
            fresh = [row for row in page if str(row["id"]) not in known]
            if not fresh:
                break
            known |= {str(row["id"]) for row in fresh}
            rows = rows + fresh
        return rows

    def _fee(self, row: Any, contract: Contract) -> tuple[float, str]:
        """What a fill paid. Bybit names the currency itself where ccxt would guess it from the side."""
        fee = row.get("fee") or {}
        asset = (row.get("info") or {}).get("feeCurrency") or fee.get("currency")
        own = contract.base if contract.is_fee_in_base and row["side"] == "buy" else contract.quote
        return float(fee.get("cost") or 0.0), str(asset or own)

    # -- holdings ------------------------------------------------------------------------------------------------------

    async def balances(self) -> dict[str, Balance]:
        """By asset, the sum of the wallets that these instruments use."""
        kinds = {contract.is_margined for contract in self._contracts.values()}
        questions: list[dict[str, str]] = [{}]
        if self.name == "binance":
            questions = [{"type": "swap" if is_margined else "spot"} for is_margined in sorted(kinds)]
        return await self._sums(questions)

    async def spot_balance(self, asset: str) -> Balance:
        """What the wallet that spot is sold from has of an asset."""
        found = await self._sums([{"type": "spot"} if self.name == "binance" else {}])
        return found.get(asset, Balance(total=0.0, free=0.0))

    @_sensible
    async def margin_balance(self, asset: str) -> Balance:
        """What the wallet that margins contracts has of an asset."""
        found = await self._sums([{"type": "swap"} if self.name == "binance" else {}])
        return found.get(asset, Balance(total=0.0, free=0.0))

    @_sensible
    async def _sums(self, questions: Sequence[dict[str, str]]) -> dict[str, Balance]:
        sums: dict[str, tuple[float, float]] = {}
        for params in questions:
            told = await self._ask(partial(self._client.fetch_balance, params))
            for asset, total in (told.get("total") or {}).items():
                free = (told.get("free") or {}).get(asset)
                have = sums.get(asset, (0.0, 0.0))
                whole = float(total or 0.0)
                sums[asset] = (have[0] + whole, have[1] + (whole if free is None else float(free)))
        return {asset: Balance(total=total, free=free) for asset, (total, free) in sums.items()}

    @_sensible
    async def positions(self) -> dict[str, Position]:
        """The margined positions that are not zero."""
        symbols = [self._symbols[one] for one, contract in self._contracts.items() if contract.is_margined]
        if not symbols:
            return {}
        rows = await self._ask(lambda: self._client.fetch_positions(symbols))
        found = {}
        for row in rows:
            instrument = self._instruments.get(row["symbol"])
            contracts = float(row.get("contracts") or 0.0)
            if instrument is None or contracts == 0.0:
                continue
            sign = -1.0 if row.get("side") == "short" else 1.0
            found[instrument] = Position(
                instrument=instrument,
                position_base=sign * abs(contracts) * self._contracts[instrument].contract_base,
                entry_price=_number(row.get("entryPrice")),
                mark_price=_number(row.get("markPrice")),
                liquidation_price=_number(row.get("liquidationPrice")),
                margin_ratio=_number(row.get("marginRatio")),
                updated_us=int(row["timestamp"]) * 1000 if row.get("timestamp") else None,
            )
        return found

    @_sensible
    async def funding_payments(self, instrument: str, *, since_us: int) -> list[FundingPayment]:
        """Settlements booked; ccxt passes Bybit's sign on, which is the other way round."""
        symbol, sign = self._symbols[instrument], -1.0 if self.name == "bybit" else 1.0
        rows = await self._ask(lambda: self._client.fetch_funding_history(symbol, since_us // 1000, RECENT))
        found = {
            str(row["id"]): FundingPayment(
                payment_id=str(row["id"]),
                instrument=instrument,
                amount=sign * float(row["amount"]),
                asset=str(row.get("code") or self._contracts[instrument].quote),
                ts_us=int(row["timestamp"]) * 1000,
            )
            for row in rows
            if int(row["timestamp"]) * 1000 >= since_us
        }
        return sorted(found.values(), key=lambda payment: payment.ts_us)

    @_sensible
    async def worth(self, asset: str, *, quote: str) -> float:
        """The last price of an asset."""
        if asset == quote:
            return 1.0
        told = await self._ask(lambda: self._client.fetch_ticker(f"{asset}/{quote}"))
        if not told.get("last"):
            raise VenueDown(f"{self.name} has no price of {asset}")
        return float(told["last"])

    async def transfer(self, asset: str, amount: float, *, source: str, target: str) -> str:
        """Move cash between wallets of the account."""
        reply = await self._ask(lambda: self._client.transfer(asset, amount, source, target), closing=True)
        return str(reply.get("id") or "")


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
