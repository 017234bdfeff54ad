"""freqtrade: feather files, one per pair, timeframe and kind of candle, below a folder named after the exchange."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source, needs
from basis_bt.market.importers.tables import dated_symbol, instrument_given, piece, volume_in_base
from basis_bt.market.schemas import PRICES, TS, SeriesKey

_COLUMNS = {"date", *PRICES, "volume"}
_DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, pl.exceptions.PolarsError)  # Arrow's
_LAST_S = 4_102_444_800
_STEM = re.compile(r"^(?P<pair>.+?)-(?P<bar>\d+[smhdwM]o?)(-(?P<kind>[A-Za-z_]+))?$")
_PAIR = re.compile(r"^(?P<base>[A-Za-z0-9]+)_(?P<quote>[A-Za-z0-9]+)(_(?P<settle>[A-Za-z0-9]+)(-(?P<expiry>\d{6}))?)?$")
_SERIES = {"futures": "", "mark": "mark", "index": "index", "premiumIndex": "premium", "funding_rate": "funding"}
_VENUES = {
    **{name: name for name in ("binance", "bybit", "okx", "hyperliquid", "kraken", "gate", "kucoin", "bitget", "htx",
                               "coinbase", "bitmex", "deribit", "bitvavo", "bingx", "bitmart", "mexc")},
    "binanceusdm": "binance", "binancecoinm": "binance_cm", "gateio": "gate", "huobi": "htx", "okex": "okx",
    "krakenfutures": "kraken", "kucoinfutures": "kucoin",
}  # fmt: skip


class _File(NamedTuple):
    """What the name of a file says: the instrument without its venue, and the series."""

    kind: str
    symbol: str
    is_inverse: bool
    series: str


def _of_name(source: Source) -> _File | None:
    stem = _STEM.match(source.stem)
    pair = _PAIR.match(stem["pair"]) if stem else None
    if stem is None or pair is None or stem["kind"] not in (None, *_SERIES):
        return None
    symbol, expiry = f"{pair['base']}-{pair['quote']}", pair["expiry"]
    dated = dated_symbol(symbol, expiry) if expiry else None
    kind = "future" if dated else "perp" if pair["settle"] else "spot"
    return _File(kind, dated or symbol, pair["settle"] == pair["base"], _SERIES.get(stem["kind"] or "futures", ""))


def _venue(source: Source) -> str | None:
    folders = [*reversed(source.name.split("/")[:-1]), *reversed(source.path.parent.parts)]
    return next((_VENUES[name.lower()] for name in folders if name.lower() in _VENUES), None)


def _is_feather(source: Source) -> bool:
    if not source.data.startswith(b"ARROW1"):
        return False
    try:
        return {*_open(source).schema.names} == _COLUMNS
    except _DAMAGED:
        return source.name.endswith(".feather")


def _open(source: Source) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.BufferReader(source.data))


def _table(source: Source) -> pl.DataFrame:
    """The columns of the file; Arrow checks that they hold together.

    Raises
    ------
    DataError
        If they do not, or are of other types.
    """
    import pyarrow as pa

    try:
        table = _open(source).read_all().replace_schema_metadata(None)
        table.validate(full=True)
        types = {field.name: field.type for field in table.schema}
        zoned = pa.types.is_timestamp(types["date"]) and str(types["date"].tz or "") != ""
        fits = zoned and all(pa.types.is_float64(types[name]) for name in (*PRICES, "volume"))
        frame = pl.DataFrame(table) if fits else None
    except _DAMAGED as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(
            f"the feather file is damaged or cut short: {reason}", where={"file": source.name}, fix="get it again"
        ) from error
    if frame is None:
        raise DataError(
            f"a freqtrade file holds date with a time zone and five columns of floats, found {types}",
            where={"file": source.name},
            fix="convert it",
        )
    wild = frame["date"].is_null() | ~frame["date"].dt.epoch("s").is_between(0, _LAST_S)
    if wild.any():
        raise DataError(
            f"date must be between 1970 and 2100 ({wild.sum()} rows)",
            where={"file": source.name, "row": wild.arg_max()},
            fix="get the file again",
        )
    return frame


def _read(source: Source, options: Options) -> Iterator[Piece]:
    """Bars, or settlements whose rate stands in ``open``; ``date`` is the open of a bar, the settlement of a rate."""
    named = _of_name(source)
    if named is None:
        raise DataError(
            "a freqtrade file is named PAIR-TIMEFRAME[-KIND].feather",
            where={"file": source.name, "kinds": ", ".join(_SERIES)},
            fix="give it back its name, e.g. BTC_USDT_USDT-1h-futures.feather",
        )
    venue = options.venue or _venue(source)
    if venue is None:
        raise needs("the venue", source=source, option="--venue NAME")
    if options.venue is None and venue == "binance" and named.is_inverse:
        venue = "binance_cm"
    frame = _table(source)
    instrument = instrument_given(Instrument(named.kind, venue, named.symbol), source=source, options=options)
    rows = frame.with_columns(ts=pl.col("date").cast(TS), rate=pl.col("open"))
    size, note = volume_in_base(source, options, unit="base") if named.series == "" else (None, "")
    rows = rows.drop("volume") if size is None else rows.with_columns(pl.col("volume") * size)
    yield piece(SeriesKey.of(instrument, named.series or instrument.kind), rows, note)


FORMATS: tuple[Format, ...] = (Format("freqtrade feather", _is_feather, _read),)
