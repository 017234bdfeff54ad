"""What a symbol of Binance names, over its three products: spot, USD-M and COIN-M futures."""

import re
from typing import NamedTuple

from basis_bt.market.importers.base import Source, split_symbol

CM_SYMBOL = re.compile(r"^(.+)USD_(PERP|\d{6})$")
_UM_QUOTES = ("USDT", "USDC", "BUSD", "USD1")
_UM_CROSSES = ("ETH-BTC",)  # a pair and a perp


class Contract(NamedTuple):
    """What a Binance symbol names: kind of instrument, venue, and our symbol."""

    kind: str
    venue: str
    symbol: str


def contract_of(native: str, *, product: str | None, source: Source) -> Contract | None:
    """The instrument behind a symbol of Binance; None where the product (``spot``, ``um``, ``cm``) is needed to tell.

    ``BTCUSD_PERP`` is coin-margined, ``BTCUSDT_241227`` a dated future; a quote that no contract has means spot.
    """
    coin = CM_SYMBOL.match(native)
    if coin:
        base, suffix = coin.groups()
        symbol = f"{base}-USD"
        dated = suffix != "PERP"
        return Contract("future" if dated else "perp", "binance_cm", f"{symbol}-20{suffix}" if dated else symbol)
    name, _, suffix = native.partition("_")
    symbol = split_symbol(name, source=source)
    if suffix.isdigit() and len(suffix) == 6:
        return Contract("future", "binance", f"{symbol}-20{suffix}")
    if product == "cm":
        return Contract("perp", "binance_cm", symbol)
    if (
        product is None
        and not symbol.endswith(tuple(f"-{quote}" for quote in _UM_QUOTES))
        and symbol not in _UM_CROSSES
    ):
        product = "spot"
    if product is None:
        return None
    return Contract("spot" if product == "spot" else "perp", "binance", symbol)
