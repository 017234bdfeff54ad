"""Tardis: normalised CSV of many venues, one file per venue, kind of data, day and symbol.

Every file begins with ``exchange,symbol,timestamp,local_timestamp``, stamps in microseconds: ``ts`` is the venue's.
Amounts stay in the venue's unit.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers import bybit, kucoin, okx
from basis_bt.market.importers.base import QUOTES, Format, Options, Piece, Source
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    QUOTES_BUT_TUSD,
    csv_columns,
    dated_symbol,
    glued_pair,
    instruments_named,
    last_of_each_stamp,
    pieces,
    plain_names,
    with_maker,
)

_LEAD = ["exchange", "symbol", "timestamp", "local_timestamp"]
_QUOTES = ["ask_amount", "ask_price", "bid_price", "bid_amount"]
_TRADES = ["id", "side", "price", "amount"]
_UPDATES = ["is_snapshot", "side", "price", "amount"]
_SPOT = {"binance": "binance", "bybit-spot": "bybit", "okex": "okx", "kraken": "kraken", "gate-io": "gate",
         "kucoin": "kucoin", "bitget": "bitget", "coinbase": "coinbase", "huobi": "htx", "binance-us": "binanceus",
         "bitstamp": "bitstamp", "gemini": "gemini", "crypto-com": "cryptocom"}  # fmt: skip
_COINS = {"XBT": "BTC", "XDG": "DOGE"}


def _pair(text: str, quotes: Sequence[str] = QUOTES_BUT_TUSD) -> str | None:
    """``BTC-USDT`` of ``BTCUSDT``, ``BTC_USDT``, ``BTC-USDT`` or ``XBT/USDT``; None if no known quote ends it."""
    plain = re.sub(r"[/_]", "-", text)
    base, quote = plain.split("-") if plain.count("-") == 1 else glued_pair(plain, quotes) or ("", "")
    return f"{_COINS.get(base, base)}-{quote}" if base.isalnum() and quote.isalnum() else None


def _perp_or_future(venue: str, pair: str | None, expiry: str = "") -> Instrument | None:
    dated = dated_symbol(pair, expiry) if pair and expiry else None
    if dated:
        return Instrument("future", venue, dated)
    return Instrument("perp", venue, pair) if pair and not expiry else None


def _binance(name: str, venue: str) -> Instrument | None:
    pair, _, expiry = name.partition("_")
    return _perp_or_future(venue, _pair(pair), "" if expiry == "PERP" else expiry)


def _deribit(name: str) -> Instrument | None:
    pair, _, expiry = name.partition("-")
    pair = pair.replace("_", "-") if "_" in pair else f"{pair}-USD"
    return _perp_or_future("deribit", pair, "" if expiry == "PERPETUAL" else expiry)


def _bitmex(name: str) -> Instrument | None:
    match = re.fullmatch(r"([A-Z0-9]+?)(USDT|USD)?([FGHJKMNQUVXZ]\d\d)?", name)
    if match is None or not (match[2] or match[3]):
        return None
    base = _COINS.get(match[1], match[1])
    return _perp_or_future("bitmex", f"{base}-{match[2] or 'USD'}", match[3] or "")


def _kraken_futures(name: str) -> Instrument | None:
    match = re.fullmatch(r"(P[FI]|F[FI])_([A-Z0-9]+)(?:_(\d{6}))?", name)
    if match is None:
        return None
    return _perp_or_future("kraken_cm" if match[1][1] == "I" else "kraken", _pair(match[2]), match[3] or "")


_DERIVATIVES: dict[str, Callable[[str], Instrument | None]] = {
    "binance-futures": lambda name: _binance(name, "binance"),
    "binance-delivery": lambda name: _binance(name, "binance_cm"),
    "bybit": bybit.instrument,
    "okex-swap": okx.instrument,
    "okex-futures": okx.instrument,
    "deribit": _deribit,
    "bitmex": _bitmex,
    "hyperliquid": lambda name: _perp_or_future("hyperliquid", f"{name}-USDC" if name.isalnum() else None),
    "cryptofacilities": _kraken_futures,
    "gate-io-futures": lambda name: _perp_or_future("gate", _pair(name)),
    "kucoin-futures": kucoin.contract,
    "bitget-futures": lambda name: _perp_or_future("bitget", _pair(name.partition("_")[0])),
}


def instrument(exchange: str, name: str) -> Instrument | None:
    """The instrument behind an exchange id and a symbol of Tardis; None for options and other things not modelled."""
    if exchange in _SPOT:
        pair = _pair(name.upper(), QUOTES if exchange == "binance" else QUOTES_BUT_TUSD)
        return Instrument("spot", _SPOT[exchange], pair) if pair else None
    parse = _DERIVATIVES.get(exchange)
    return parse(name) if parse else None


def _is(source: Source, rest: list[str]) -> bool:
    return plain_names(source.header)[: 4 + len(rest)] == [*_LEAD, *rest]


def _is_ticker(source: Source) -> bool:
    names = plain_names(source.header)
    return names[:4] == _LEAD and {"funding_timestamp", "funding_rate"} <= {*names}


def _is_book(source: Source) -> bool:
    return _is(source, ["asks[0].price"])


def _columns(
    source: Source, options: Options, *, numbers: Sequence[str], texts: Sequence[str] = (), empty: Sequence[str] = ()
) -> tuple[pl.DataFrame, dict[str, Instrument], list[str]]:
    """Rows with ``ts``, the instruments of their symbols, and a note on symbols that are none of ours.

    Raises
    ------
    DataError
        If the exchange is not known.
    """
    frame = csv_columns(
        source,
        names=plain_names(source.header),
        texts=["exchange", "symbol", *texts],
        numbers=["timestamp", *numbers],
        may_be_empty=empty,
        skip_lines=1,
    )
    exchanges = frame["exchange"].unique().to_list()
    if len(exchanges) != 1 or exchanges[0] not in (_SPOT | _DERIVATIVES):
        raise DataError(
            f"exchange {', '.join(map(str, exchanges))} is not one that is read",
            where={"file": source.name, "known": ", ".join(sorted(_SPOT | _DERIVATIVES))},
            fix="import it as a generic CSV with a mapping",
        )
    frame = frame.with_columns(ts=stamps(frame["timestamp"], source=source, options=options))
    found, notes = instruments_named(
        frame["symbol"], lambda name: instrument(exchanges[0], name), source=source, options=options
    )
    return frame, found, [*notes]


def _ticker(source: Source, options: Options) -> Iterator[Piece]:
    """The estimate of the next settlement, where it or the settlement it is for changes."""
    rates = ["funding_rate", "funding_timestamp"]
    frame, found, notes = _columns(source, options, numbers=rates, empty=rates)
    frame = frame.drop_nulls("funding_rate").sort("ts", maintain_order=True)
    frame, note = last_of_each_stamp(frame, by=["symbol"])
    before = pl.struct(rates).shift(1).over("symbol")
    changed = frame.filter((pl.struct(rates).ne_missing(before)) | (pl.int_range(pl.len()).over("symbol") == 0))
    changed = changed.with_columns(
        rate=pl.col("funding_rate"), settlement_ts=pl.col("funding_timestamp").cast(pl.Int64).cast(frame.schema["ts"])
    )
    notes += ["funding_rate is the running estimate: written as predicted rates, not as settlements", *note]
    found = {name: one for name, one in found.items() if one.is_perp}
    yield from pieces(changed, found, name="symbol", series="predicted", notes=notes)


def _trades(source: Source, options: Options) -> Iterator[Piece]:
    """Trades with a known taker; one without an id is named after its instant and place within it."""
    frame, found, notes = _columns(source, options, texts=["id", "side"], numbers=["price", "amount"], empty=["id"])
    known, unknown = with_maker(frame)
    nameless = pl.concat_str(pl.col("ts").to_physical(), pl.int_range(pl.len()).over("symbol", "ts"), separator="-")
    rows = known.with_columns(trade_id=pl.coalesce("id", nameless), qty=pl.col("amount"))
    yield from pieces(rows, found, name="symbol", series="trades", notes=[*notes, *unknown])


def _quotes(source: Source, options: Options) -> Iterator[Piece]:
    """Best quotes with both sides; the ask comes first in the file."""
    frame, found, notes = _columns(source, options, numbers=_QUOTES, empty=_QUOTES)
    both = frame.drop_nulls(_QUOTES)
    if both.height < frame.height:
        notes.append(f"{frame.height - both.height} quotes left out: one side is empty")
    rows, note = last_of_each_stamp(both, by=["symbol"])
    rows = rows.rename(dict(zip(_QUOTES, ["ask_qty", "ask", "bid", "bid_qty"], strict=True)))
    yield from pieces(rows, found, name="symbol", series="quotes", notes=[*notes, *note])


def _book(source: Source, options: Options) -> Iterator[Piece]:
    """Snapshots, one row a level; levels that the book did not have are left out."""
    names = plain_names(source.header)
    levels = sum(bool(re.fullmatch(r"asks\[\d+\]\.price", name)) for name in names)
    depth = [(side, level) for level in range(levels) for side in ("bids", "asks")]
    cells = [f"{side}[{level}].{what}" for side, level in depth for what in ("price", "amount")]
    frame, found, notes = _columns(source, options, numbers=cells, empty=cells)
    frame, note = last_of_each_stamp(frame, by=["symbol"])
    sides = [
        frame.select(
            "symbol",
            "ts",
            side=pl.lit(side[0]),
            level=pl.lit(level),
            price=pl.col(f"{side}[{level}].price"),
            qty=pl.col(f"{side}[{level}].amount"),
        )
        for side, level in depth
    ]
    rows = pl.concat(sides).drop_nulls(["price", "qty"])
    yield from pieces(rows, found, name="symbol", series="book", notes=[*notes, *note])


def _updates(source: Source, options: Options) -> Iterator[Piece]:
    """Changes in the order they were received; an amount of 0 removes the level."""
    frame, found, notes = _columns(source, options, texts=["is_snapshot", "side"], numbers=["price", "amount"])
    odd = ~(frame["side"].is_in(["bid", "ask"]) & frame["is_snapshot"].is_in(["true", "false"]))
    if odd.any():
        raise DataError(
            f"a side must be bid or ask, is_snapshot true or false ({odd.sum()} rows are otherwise)",
            where={"file": source.name, "row": odd.arg_max()},
            fix="get the file again",
        )
    rows = frame.with_columns(
        is_snapshot=pl.col("is_snapshot") == "true",
        side=pl.col("side").str.slice(0, 1),
        qty=pl.col("amount"),
    )
    yield from pieces(rows, found, name="symbol", series="book_updates", notes=notes)


FORMATS: tuple[Format, ...] = (
    Format("tardis derivative_ticker", _is_ticker, _ticker),
    Format("tardis trades", lambda source: _is(source, _TRADES), _trades),
    Format("tardis quotes", lambda source: _is(source, _QUOTES), _quotes),
    Format("tardis book_snapshot", _is_book, _book),
    Format("tardis incremental_book_L2", lambda source: _is(source, _UPDATES), _updates),
)
