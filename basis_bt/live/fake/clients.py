"""Ready ccxt clients that are pointed at the loopback server."""

from typing import Any

import ccxt.async_support as ccxt

from basis_bt.live.clock import Clock

_KEYS = {"apiKey": "loopback", "secret": "loopback"}
_TABLES = {"api": "spot", "sapi": "spot", "fapi": "linear", "dapi": "inverse"}


class LoopbackBinance(ccxt.binance):
    """Binance whose error table is picked by the path: ccxt picks it by the host, which is always the same here."""

    def get_exceptions_by_url(self, url: str, exactOrBroad: str) -> Any:  # noqa: N803
        """The table of spot, linear or inverse."""
        for part in url.split("?")[0].split("/")[3:]:
            if part in _TABLES:
                return self.safe_dict(self.safe_dict(self.exceptions, _TABLES[part], {}), exactOrBroad, {})
        return {}


def loopback_client(venue: str, base_url: str, clock: Clock, *, timeout_ms: int = 1000, **options: Any) -> Any:
    """A ccxt async client of ``binance``, ``bybit`` or ``okx`` that talks to ``base_url`` and lives by ``clock``.

    It loads spot and linear markets in as few requests as ccxt allows; ``options`` are added to ccxt's own.
    """
    settings: dict[str, Any] = {**_KEYS, "enableRateLimit": False, "timeout": timeout_ms}
    if venue == "binance":
        markets = {"fetchMarkets": {"types": ["spot", "linear"]}, "fetchMargins": False}
        client = LoopbackBinance({**settings, "options": {**markets, **options}})
        client.urls["api"] = {
            name: f"{base_url}/{url.split('/', 3)[3]}" for name, url in client.urls["api"].items() if url.count("/") > 2
        }
    elif venue == "bybit":
        markets = {"fetchMarkets": {"types": ["spot", "linear"]}}
        unified = {"enableUnifiedMargin": False, "enableUnifiedAccount": True}
        client = ccxt.bybit({**settings, "options": {**markets, **unified, **options}})
        client.urls["api"] = dict.fromkeys(client.urls["api"], base_url)
    elif venue == "okx":
        markets = {"fetchMarkets": {"types": ["spot", "swap"]}}
        client = ccxt.okx({**settings, "password": "loopback", "options": {**markets, **options}})
        client.urls["api"] = dict.fromkeys(client.urls["api"], base_url)
    else:
        raise ValueError(f"no loopback client for {venue!r}; there are binance, bybit and okx")
    client.milliseconds = lambda: clock.now_us() // 1000
    client.seconds = lambda: clock.now_us() // 1_000_000
    client.microseconds = clock.now_us
    return client
