"""All importers, in the order they are asked; the first that recognises a source reads it, the general one last."""

from basis_bt.market.importers import (
    binance_api,
    binance_vision,
    bybit,
    cryptodatadownload,
    freqtrade,
    gate,
    generic,
    hyperliquid,
    kraken,
    kucoin,
    okx,
    tardis,
)
from basis_bt.market.importers.base import Format

FORMATS: tuple[Format, ...] = (
    *binance_vision.FORMATS,
    *binance_api.FORMATS,
    *okx.FORMATS,
    *bybit.FORMATS,
    *tardis.FORMATS,
    *cryptodatadownload.FORMATS,
    *freqtrade.FORMATS,
    *hyperliquid.FORMATS,
    *kucoin.FORMATS,
    *gate.FORMATS,
    *kraken.FORMATS,
    *generic.FORMATS,
)
