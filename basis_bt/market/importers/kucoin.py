"""KuCoin: settled funding and bars of spot and futures, with a header and stamps in milliseconds.

Spot files write ``open,close,high,low``, futures files ``open,high,low,close``: columns are read by name. Volume of
futures is in contracts, whose size the file does not tell.
"""

import re
from collections.abc import Iterator

import polars as pl

from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import QUOTES, Format, Options, Piece, Source, split_symbol
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    csv_columns,
    dated_symbol,
    instrument_given,
    instruments_named,
    piece,
    pieces,
    plain_names,
    volume_in_base,
)
from basis_bt.market.schemas import PRICES, SeriesKey

_FUNDING = ["symbol", "time", "fundingrate"]
_SPOT = ["time", "open", "close", "high", "low", "volume", "turnover"]
_FUTURES = ["time", "open", "high", "low", "close", "volume"]
_CONTRACT = re.compile(rf"^([A-Z0-9]+?)({'|'.join(QUOTES)})M(?:([FGHJKMNQUVXZ]\d\d))?$")


def contract(name: str) -> Instrument | None:
    """``XBTUSDTM`` as a perp BTC-USDT, ``XBTUSDM`` as BTC-USD (coin-margined), ``XBTMH25`` as a dated future."""
    text = name.strip().upper()
    match = _CONTRACT.match(text)
    dated = re.fullmatch(r"([A-Z0-9]+?)M([FGHJKMNQUVXZ]\d\d)", text)
    base, quote, expiry = match.groups() if match else (dated[1], "USD", dated[2]) if dated else ("", "", None)
    if not base:
        return None
    pair = f"{'BTC' if base == 'XBT' else base}-{quote}"
    symbol = dated_symbol(pair, expiry) if expiry else pair
    return Instrument("future" if expiry else "perp", "kucoin", symbol) if symbol else None


def _contract_of_name(source: Source) -> Instrument | None:
    return contract(re.split(r"[_-](?=\d)", source.stem)[0])


def _is_funding(source: Source) -> bool:
    return plain_names(source.header) == _FUNDING


def _is_spot(source: Source) -> bool:
    return plain_names(source.header) == _SPOT


def _is_futures(source: Source) -> bool:
    return plain_names(source.header) == _FUTURES and (
        "kucoin" in source.name.lower() or _contract_of_name(source) is not None
    )


def _funding(source: Source, options: Options) -> Iterator[Piece]:
    frame = csv_columns(source, names=_FUNDING, texts=["symbol"], numbers=["time", "fundingrate"], skip_lines=1)
    ts = stamps(frame["time"], source=source, options=options)
    found, notes = instruments_named(frame["symbol"], contract, source=source, options=options)
    found = {name: one for name, one in found.items() if one.is_perp}
    rows = frame.with_columns(ts=ts, rate=pl.col("fundingrate"))
    yield from pieces(rows, found, name="symbol", series="funding", notes=notes)


def _spot(source: Source, options: Options) -> Iterator[Piece]:
    frame = csv_columns(source, names=_SPOT, numbers=["time", *PRICES, "volume"], skip_lines=1)
    symbol = options.symbol or split_symbol(re.split(r"[_-](?=\d)", source.stem)[0], source=source)
    ts = stamps(frame["time"], source=source, options=options)
    yield piece(SeriesKey("spot", options.venue or "kucoin", symbol), frame.with_columns(ts=ts))


def _futures(source: Source, options: Options) -> Iterator[Piece]:
    frame = csv_columns(source, names=_FUTURES, numbers=["time", *PRICES, "volume"], skip_lines=1)
    bars = instrument_given(_contract_of_name(source), source=source, options=options)
    size, note = volume_in_base(source, options, unit="contracts")
    frame = frame.with_columns(ts=stamps(frame["time"], source=source, options=options))
    frame = frame.drop("volume") if size is None else frame.with_columns(pl.col("volume") * size)
    yield piece(SeriesKey.of(bars, bars.kind), frame, note)


FORMATS: tuple[Format, ...] = (
    Format("kucoin funding", _is_funding, _funding),
    Format("kucoin spot bars", _is_spot, _spot),
    Format("kucoin futures bars", _is_futures, _futures),
)
