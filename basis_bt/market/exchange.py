"""Public market data of the venues, one page a call, through ccxt.

ccxt's own retries and its ``paginate`` are off: the first sends requests again that it should not, the second drops
history without a word. Pages are asked for here and put together in ``paging.py``.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.venue_history import Row, frame_minutes, nearest, venue_named

TRIES = 8
UNMAPPED_TRIES = 5
LONGEST_PAUSE_S = 60.0
LONGEST_BAN_S = 600.0
Sleep = Callable[[float], Awaitable[None]]
PRICE_PARAM = {"mark": "mark", "index": "index", "premium": "premiumIndex"}


def open_client(venue: str, *, base_url: str | None = None, config: Mapping[str, Any] | None = None) -> Any:
    """A public ccxt client, asynchronous, with ccxt's rate limiter on and its retries off.

    Parameters
    ----------
    base_url : where every REST call goes instead of the venue's own hosts (a mirror, a proxy, a fake)
    config : options of the client that override ours
    """
    import ccxt.async_support as ccxt

    facts = venue_named(venue)
    kind = _okx_class() if facts.ccxt_id == "okx" else getattr(ccxt, facts.ccxt_id)
    options = {"fetchMarkets": {"types": list(facts.types)}, "maxRetriesOnFailure": 0, "fetchCurrencies": False}
    given = dict(config or {})
    options |= given.pop("options", {})
    client = kind({"enableRateLimit": True, "timeout": 20_000, "options": options, **given})
    client.has = {**client.has, "fetchCurrencies": False}
    if base_url is not None:
        base = base_url.rstrip("/")
        urls = {name: url for name, url in client.urls["api"].items() if isinstance(url, str)}
        tails = {name: "/" + url.split("/", 3)[3] if url.count("/") > 2 else "" for name, url in urls.items()}
        client.urls["api"] = {name: base + tail for name, tail in tails.items()}
    return client


def _okx_class() -> Any:
    import ccxt.async_support as ccxt

    class Okx(ccxt.okx):
        """OKX with the flag that a candle is complete as a seventh value."""

        def parse_ohlcv(self, ohlcv: Any, market: Any = None) -> list[Any]:
            return [*super().parse_ohlcv(ohlcv, market), str(ohlcv[-1]) != "0"]

    return Okx


class Exchange:
    """One venue's public history behind one client, whose rate limiter and pauses all series share.

    ``sleep`` takes seconds; a refusal for too many calls holds back every series until its pause is over.
    """

    def __init__(self, venue: str, client: Any, *, sleep: Sleep = asyncio.sleep, seed: int | None = None) -> None:
        self.venue = venue
        self.facts = venue_named(venue)
        self._client = client
        self._sleep = sleep
        self._random = random.Random(seed)
        self._gate = asyncio.Lock()
        self._asked_s: float | None = None
        self._asking: set[asyncio.Task[Any]] = set()
        self._send = client.request
        client.request, client.on_rest_response = self._request, self._listen

    async def load(self) -> None:
        """Read the venue's instruments."""
        await self._client.load_markets()

    async def close(self) -> None:
        """Give up requests that are under way, e.g. beside one that failed, and release the connections."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._client.close()

    def market(self, kind: str, symbol: str) -> dict[str, Any]:
        """ccxt's market of ``BASE-QUOTE`` for a kind of series; a perp is linear where both exist.

        Raises
        ------
        DataError
            If the venue lists none; the nearest symbols are named.
        """
        base, _, quote = symbol.partition("-")
        names = [f"{base}/{quote}"] if kind == "spot" else [f"{base}/{quote}:{quote}", f"{base}/{quote}:{base}"]
        markets = self._client.markets or {}
        found = next((markets[name] for name in names if name in markets), None)
        if found is None:
            wanted = "spot" if kind == "spot" else "swap"
            listed = {f"{m['base']}-{m['quote']}" for m in markets.values() if m["type"] == wanted}
            raise DataError(
                f"{self.venue} lists no {'spot market' if kind == 'spot' else 'perpetual'} {symbol}",
                where={"venue": self.venue, "listed": len(listed)},
                fix=nearest(symbol, listed, what="listed are"),
            )
        return found

    def timeframe(self, bar_hours: float) -> str:
        """The venue's name of a bar length, e.g. ``"1h"``.

        Raises
        ------
        ConfigError
            If the venue serves no such bars.
        """
        minutes = round(bar_hours * 60)
        name = f"{minutes}m" if minutes < 60 else f"{minutes // 60}h" if minutes < 1440 else f"{minutes // 1440}d"
        frames = self._client.timeframes or {}
        if abs(minutes - bar_hours * 60) > 1e-9 or frame_minutes(name) != minutes or name not in frames:
            raise ConfigError(
                f"{self.venue} serves no bars of {bar_hours:g} hours", fix=f"one of {', '.join(frames)}"
            )
        return name

    async def bars(
        self, market: Mapping[str, Any], kind: str, *, timeframe: str, from_ms: int, to_ms: int, recent: bool = False
    ) -> list[Row]:
        """One page of bars by their opens, at the near end of ``[from_ms, to_ms)`` by the venue's direction.

        ``values`` are open, high, low, close and the volume in base units (None for mark, index and premium).
        ``recent``: the page reaches up to now, which OKX serves from another endpoint than older ones.
        """
        facts, name = self.facts, market["symbol"]
        limit = facts.per_page(kind)
        params: dict[str, Any] = {"price": PRICE_PARAM[kind]} if kind in PRICE_PARAM else {}
        since: int | None = None if facts.newest_first else from_ms
        if facts.ccxt_id == "okx":
            params |= {"until": to_ms, "type": "Candles" if recent else "HistoryCandles"}
        else:
            bar_ms = frame_minutes(timeframe) * 60_000
            reach_ms = from_ms + facts.window_ms(kind, bar_ms) if facts.window_days else to_ms
            params["until"] = min(to_ms, reach_ms) - 1
        asked: int | None = None if facts.bars_kept else limit
        return await self._rows(
            self._client.fetch_ohlcv(name, timeframe, since, asked, params),
            lambda row: Row(int(row[0]), tuple(row[1:6]), complete=row[6] if len(row) > 6 else None),
        )

    async def funding(self, market: Mapping[str, Any], *, from_ms: int, to_ms: int) -> list[Row]:
        """One page of settlements at the near end of ``[from_ms, to_ms)``; ``values`` are rate and mark price."""
        facts, name, limit = self.facts, market["symbol"], self.facts.funding_per_page
        since: int | None = None if facts.newest_first else from_ms
        params: dict[str, Any] = {"after": to_ms} if facts.ccxt_id == "okx" else {"until": to_ms - 1}
        asked: int | None = None if facts.bars_kept else limit
        return await self._rows(
            self._client.fetch_funding_rate_history(name, since, asked, params),
            lambda rate: Row(int(rate["timestamp"]), (rate["fundingRate"], _number(rate["info"].get("markPrice")))),
        )

    async def _rows(self, asked: Awaitable[Iterable[Any]], row_of: Callable[[Any], Row]) -> list[Row]:
        import ccxt.async_support as ccxt

        try:
            return [row_of(row) for row in await asked]
        except (ccxt.BaseError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise self._failure(error, "with rows that can be read", 1) from error

    async def _request(self, *args: Any, **options: Any) -> Any:
        """One request in place of ccxt's own, remembered as long as it is under way."""
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            return await self._answered(*args, **options)
        finally:
            self._asking.discard(task)

    async def _answered(self, path: str, *args: Any, **options: Any) -> Any:
        """The answer to one request, asked again after what may pass, an answer that holds no rows included.

        ccxt takes an answer of another shape for an empty page, which would look like the end of history.
        """
        import ccxt.async_support as ccxt

        for attempt in range(1, TRIES + 1):
            async with self._gate:
                pass
            try:
                answer = await self._send(path, *args, **options)
                if not _holds_rows(answer):
                    raise ccxt.BadResponse(f"an answer without rows: {str(answer)[:100]}")
                return answer
            except ccxt.BaseError as error:
                unmapped = type(error) is ccxt.ExchangeError  # a code that ccxt does not know, or half a body
                if not unmapped and not isinstance(error, ccxt.OperationFailed):
                    raise self._failure(error, path, attempt) from error
                crowded = isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded)
                asked_s, self._asked_s = self._asked_s, None
                if attempt == (UNMAPPED_TRIES if unmapped else TRIES) or (asked_s or 0) > LONGEST_BAN_S:
                    raise self._failure(error, path, attempt, ban_s=asked_s) from error
                backoff_s = min(0.5 * 2.0 ** (attempt - 1), LONGEST_PAUSE_S) * self._random.uniform(0.75, 1.25)
                await self._pause(max(asked_s or 0.0, backoff_s), everyone=crowded)
        raise AssertionError("the loop returns or raises")

    async def _pause(self, seconds: float, *, everyone: bool) -> None:
        if not everyone:
            await self._sleep(seconds)
        elif not self._gate.locked():  # who is refused during a pause waits for its end only
            async with self._gate:
                await self._sleep(seconds)

    def _listen(
        self, code: int, reason: str, url: str, method: str, headers: Mapping[str, str], body: str, *_: Any
    ) -> str:
        """ccxt's hook on every answer: how long the venue asks to wait, which no error of ccxt tells."""
        for name, text in headers.items():
            if name.lower() == "retry-after" and text.strip().isdigit():
                self._asked_s = float(text)
        return body.strip()

    def _failure(self, error: Exception, path: str, tries: int, *, ban_s: float | None = None) -> DataError:
        said = " ".join(str(error).split())[:300]
        fix = "see what the venue says; try fewer series at once, or later"
        if ban_s:
            fix = f"the venue asks to wait {ban_s:.0f} s: run again then, it goes on where it stopped"
        elif any(code in said for code in (" 403 ", " 451 ")):
            fix = "the venue refuses this address (country or firewall); use --base-url with a mirror, or its dumps"
        return DataError(
            f"{self.venue} did not answer {path}: {type(error).__name__}: {said}",
            where={"venue": self.venue, "tries": tries},
            fix=fix,
        )


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _holds_rows(answer: Any) -> bool:
    """Whether an answer is what one of the venues sends: a list, or one inside its envelope."""
    if isinstance(answer, dict):
        inner = answer.get("symbols", answer.get("data", answer.get("result")))
        answer = inner.get("list") if isinstance(inner, dict) else inner
    return isinstance(answer, list)
