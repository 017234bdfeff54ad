"""CryptoDataDownload: bars below a line with the site's address, newest first, volumes named after their coins."""

import re
from collections.abc import Iterator
from itertools import permutations

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source, needs, split_symbol
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import csv_columns, head_rows, piece, plain_names
from basis_bt.market.schemas import PRICES, SeriesKey

_VENUES = {"okex": "okx", "gateio": "gate", "huobi": "htx"}
_VOLUME = "volume "


def _header_line(source: Source) -> int:
    """Number of the line with the names, counted from 0."""
    return int("://" in source.first_line or "cryptodatadownload" in source.first_line.lower())


def _names(source: Source) -> list[str]:
    rows = head_rows(source, skip_lines=_header_line(source))
    return plain_names(rows[0]) if rows else []


def _is_bars(source: Source) -> bool:
    names = _names(source)
    return {"unix", "symbol", *PRICES} <= {*names} and any(name.startswith(_VOLUME) for name in names)


def _symbol(text: str, coins: list[str], source: Source) -> str:
    """``BTC-USDT`` of ``BTCUSDT``, ``BTC/USDT`` or ``BTC/USDT:USDT``, cut where the coins of the volumes meet."""
    plain = text.partition(":")[0]
    glued = plain.replace("/", "").upper()
    cut = next((f"{base}-{quote}" for base, quote in permutations(coins, 2) if base + quote == glued), None)
    return cut or split_symbol(plain, source=source)


def _instrument(source: Source, options: Options, symbols: list[str], coins: list[str]) -> Instrument:
    """Venue and pair; ``Binance_BTCUSDT_1h`` is named after both, the column ``Symbol`` after the pair alone."""
    if len(symbols) != 1 and options.symbol is None:
        raise DataError(
            f"bars of {len(symbols)} symbols in one file: {', '.join(symbols[:5])}",
            where={"file": source.name},
            fix="split the file by symbol",
        )
    match = re.match(r"([A-Za-z]+)_[A-Za-z0-9]+_", source.stem)
    venue = options.venue or (_VENUES.get(match[1].lower(), match[1].lower()) if match else None)
    if venue is None:
        raise needs("the venue", source=source, option="--venue NAME")
    is_perp = options.series == "perp" or re.search(r"perp|futures|swap", source.name, re.IGNORECASE) is not None
    symbol = options.symbol or _symbol(symbols[0], coins, source)
    return Instrument("perp" if is_perp and options.series != "spot" else "spot", venue, symbol)


def _bars(source: Source, options: Options) -> Iterator[Piece]:
    """Volume is the column named after the base coin, or else the first of the two."""
    names = _names(source)
    volumes = [name for name in names if name.startswith(_VOLUME)]
    skip = _header_line(source) + 1
    numbers = ["unix", *PRICES, *volumes]
    frame = csv_columns(source, names=names, texts=["symbol"], numbers=numbers, may_be_empty=volumes, skip_lines=skip)
    coins = [name.removeprefix(_VOLUME).upper() for name in volumes]
    bars = _instrument(source, options, frame["symbol"].unique().sort().to_list(), coins)
    own = f"{_VOLUME}{bars.base.lower()}"
    volume = own if own in volumes else volumes[0]
    note = "" if own in volumes else f"{volume!r} taken as base units: it is the first column of volume"
    ts = stamps(frame["unix"], source=source, options=options)
    yield piece(SeriesKey.of(bars, bars.kind), frame.with_columns(pl.col(volume).alias("volume"), ts=ts), note)


FORMATS: tuple[Format, ...] = (Format("cryptodatadownload", _is_bars, _bars),)
