"""Bybit: public trades, bars exported for MetaTrader, and dumps of the order book.

``BTCUSDT`` names spot and perp alike. Trades tell by their columns; a dump of the book by its folder (``spot``,
``linear``, ``inverse``) or else by its depth: 200 levels are published for spot, 500 for derivatives.
"""

import json
import re
from collections.abc import Iterator

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source, needs, split_symbol
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    csv_columns,
    dated_symbol,
    glued_pair,
    instrument_given,
    instruments_named,
    piece,
    pieces,
    plain_names,
    with_maker,
)
from basis_bt.market.schemas import TS, SeriesKey

_DERIVATIVES = ["timestamp", "symbol", "side", "size", "price", "tickdirection", "trdmatchid"]
_SPOT = ["id", "timestamp", "price", "volume", "side"]
_IS_SNAPSHOT = {"snapshot": True, "delta": False}
_BAR = ["time", "open", "high", "low", "close", "volume"]
_BAR_LINE = re.compile(rb"^\d{4}\.\d\d\.\d\d[ ,]\d\d:\d\d,")
_BOOK_LINE = re.compile(rb'^\{"topic":\s*"orderbook\.(\d+)\.([^"]+)"')


def instrument(name: str) -> Instrument | None:
    """A derivative: ``BTCUSDT``, ``BTCPERP`` (USDC), ``BTCUSD`` (coin-margined), ``BTC-27DEC24``, ``BTCUSDZ24``."""
    text = name.strip().upper()
    dashed = re.fullmatch(r"([A-Z0-9]+?)(USDT)?-(\d{1,2}[A-Z]{3}\d\d)", text)
    quarter = re.fullmatch(r"([A-Z0-9]+)(USD[T]?)([HMUZ]\d\d)", text)
    if dashed:
        dated = dated_symbol(f"{dashed[1]}-{dashed[2] or 'USDC'}", dashed[3])
    elif quarter:
        dated = dated_symbol(f"{quarter[1]}-{quarter[2]}", quarter[3])
    elif text.endswith("PERP") and text != "PERP":
        return Instrument("perp", "bybit", f"{text.removesuffix('PERP')}-USDC")
    else:
        split = glued_pair(text, ("USDT", "USDC", "USD")) if text.isalnum() else None
        return Instrument("perp", "bybit", "-".join(split)) if split else None
    return Instrument("future", "bybit", dated) if dated else None


def _is_derivative_trades(source: Source) -> bool:
    return plain_names(source.header)[: len(_DERIVATIVES)] == _DERIVATIVES


def _is_spot_trades(source: Source) -> bool:
    return plain_names(source.header)[: len(_SPOT)] == _SPOT


def _is_bars(source: Source) -> bool:
    return bool(_BAR_LINE.match(source.head))


def _is_book(source: Source) -> bool:
    return bool(_BOOK_LINE.match(source.head))


def _derivative_trades(source: Source, options: Options) -> Iterator[Piece]:
    """Sizes are in coins, of coin-margined contracts in dollars."""
    frame = csv_columns(
        source,
        names=plain_names(source.header),
        texts=["symbol", "side", "trdmatchid"],
        numbers=["timestamp", "size", "price"],
        skip_lines=1,
    )
    found, odd = instruments_named(frame["symbol"], instrument, source=source, options=options)
    ts = stamps(frame["timestamp"], source=source, options=options)
    rows, unknown = with_maker(frame.with_columns(ts=ts, trade_id=pl.col("trdmatchid"), qty=pl.col("size")))
    yield from pieces(rows, found, name="symbol", series="trades", notes=[*odd, *unknown])


def _pair_of_name(source: Source) -> str:
    """``BTCUSDT`` of ``BTCUSDT_2024-01-01``, ``BTCUSDT-2022-11`` and ``BTCUSDT_15_2023-01-01_2023-01-31``."""
    return re.split(r"[_-](?=\d)", source.stem)[0]


def _spot_trades(source: Source, options: Options) -> Iterator[Piece]:
    frame = csv_columns(
        source,
        names=plain_names(source.header),
        texts=["id", "side"],
        numbers=["timestamp", "price", "volume"],
        skip_lines=1,
    )
    symbol = options.symbol or split_symbol(_pair_of_name(source), source=source)
    ts = stamps(frame["timestamp"], source=source, options=options)
    rows, unknown = with_maker(frame.with_columns(ts=ts, trade_id=pl.col("id"), qty=pl.col("volume")))
    yield piece(SeriesKey("trades", options.venue or "bybit", symbol, "spot"), rows, *unknown)


def _bars(source: Source, options: Options) -> Iterator[Piece]:
    """Bars of a derivative whose stamps are text without a zone, in one cell or with date and clock apart."""
    apart = source.first_line.split(",")[1].count(":") == 1
    texts = ["day", "clock"] if apart else ["time"]
    frame = csv_columns(source, names=[*texts, *_BAR[1:]], texts=texts, numbers=_BAR[1:], skip_lines=0)
    text = frame.select(ts=pl.concat_str(texts, separator=" ").str.replace_all(".", "-", literal=True))["ts"]
    if options.time_zone is None:
        raise needs(
            "the time zone of the stamps (MetaTrader exports of Bybit have been seen at UTC+3)",
            source=source,
            option="--time-zone Etc/GMT-3 or --time-zone UTC, after comparing a bar with another source",
        )
    ts = stamps(text, source=source, options=options)
    bars = instrument_given(instrument(_pair_of_name(source)), source=source, options=options)
    yield piece(SeriesKey.of(bars, bars.kind), frame.with_columns(ts=ts))


def _book_instrument(source: Source, options: Options) -> Instrument:
    match = _BOOK_LINE.match(source.head)
    depth, name = (match[1].decode(), match[2].decode()) if match else ("", "")
    folders = source.name.lower().split("/")
    derivative = "linear" in folders or "inverse" in folders
    if "spot" in folders or (depth == "200" and not derivative):
        spot = Instrument("spot", "bybit", options.symbol or split_symbol(name, source=source))
        return instrument_given(spot, source=source, options=options)
    return instrument_given(instrument(name), source=source, options=options)


def _book(source: Source, options: Options) -> Iterator[Piece]:
    """Snapshots and changes in the order written; quantities of 0 remove a level."""
    columns: dict[str, list[object]] = {name: [] for name in ("ts", "is_snapshot", "side", "price", "qty")}
    for number, line in enumerate(source.data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            message = json.loads(line)
            ts, whole, data = int(message["ts"]), _IS_SNAPSHOT[message["type"]], message["data"]
            rows = [(side, float(price), float(qty)) for side in "ba" for price, qty in data[side]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the line is no message of an order book: {error}",
                where={"file": source.name, "line": number},
                fix="get the file again; a dump cut short ends in half a line",
            ) from error
        for side, price, qty in rows:
            for name, value in zip(columns, (ts, whole, side, price, qty), strict=True):
                columns[name].append(value)
    frame = pl.DataFrame(columns).with_columns(ts=(pl.col("ts").cast(pl.Int64) * 1000).cast(TS))
    yield piece(SeriesKey.of(_book_instrument(source, options), "book_updates"), frame)


FORMATS: tuple[Format, ...] = (
    Format("bybit trades", _is_derivative_trades, _derivative_trades),
    Format("bybit spot trades", _is_spot_trades, _spot_trades),
    Format("bybit metatrader bars", _is_bars, _bars),
    Format("bybit order book", _is_book, _book),
)
