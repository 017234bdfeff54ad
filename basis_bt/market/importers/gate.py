"""Gate: bars and funding without a header, stamps in seconds; bars are ``ts, volume, close, high, low, open``.

Six columns and two columns are common, so a file must fit inside (the high above open and close, the low below them)
and be named as the venue does: ``futures_usdt/candlesticks_1h/202601/BTC_USDT-202601.csv``.
"""

import re
from collections.abc import Iterator

import polars as pl

from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    csv_columns,
    head_rows,
    instrument_given,
    piece,
    volume_in_base,
)
from basis_bt.market.schemas import PRICES, SeriesKey

_BARS = ["ts", "volume", "close", "high", "low", "open"]
_NAME = re.compile(r"^(?P<base>[A-Za-z0-9]+)_(?P<quote>[A-Za-z0-9]+)-20\d{4}$")


def _numbers(source: Source, columns: int) -> list[list[float]]:
    """Rows at the head as numbers, stamped in seconds; none where a row is of another form."""
    try:
        rows = [[float(cell) for cell in row] for row in head_rows(source)]
    except ValueError:
        return []
    return rows if rows and all(len(row) == columns and 1e9 <= row[0] < 1e10 for row in rows) else []


def _path_says(source: Source, kind: str) -> bool:
    return kind in source.name or _NAME.match(source.stem) is not None


def _is_bars(source: Source) -> bool:
    rows = _numbers(source, len(_BARS))
    fit = all(low <= min(close, open_) and max(close, open_) <= high for _, _, close, high, low, open_ in rows)
    return bool(rows) and fit and _path_says(source, "candlesticks_")


def _is_funding(source: Source) -> bool:
    rows = _numbers(source, 2)
    return bool(rows) and all(abs(rate) < 0.2 for _, rate in rows) and _path_says(source, "funding_applies")


def _instrument(source: Source, options: Options) -> Instrument:
    match = _NAME.match(source.stem) or re.match(r"^(?P<base>[A-Za-z0-9]+)_(?P<quote>[A-Za-z0-9]+)", source.stem)
    kind = options.series if options.series in ("spot", "perp") else None
    kind = kind or ("spot" if "spot" in source.name.split("/") else "perp")
    symbol = f"{match['base']}-{match['quote']}".upper() if match else options.symbol
    found = Instrument(kind, "gate", symbol) if symbol else None
    return instrument_given(found, source=source, options=options)


def _bars(source: Source, options: Options) -> Iterator[Piece]:
    """Volume of perps is in contracts; of spot the unit must be given."""
    bars = _instrument(source, options)
    size, note = volume_in_base(source, options, unit="contracts" if bars.is_perp else None)
    frame = csv_columns(source, names=_BARS, numbers=_BARS, skip_lines=0)
    frame = frame.with_columns(ts=stamps(frame["ts"], source=source, options=options)).select(
        "ts", *PRICES, *([] if size is None else [pl.col("volume") * size])
    )
    yield piece(SeriesKey.of(bars, bars.kind), frame, note)


def _funding(source: Source, options: Options) -> Iterator[Piece]:
    perp = _instrument(source, options)
    frame = csv_columns(source, names=["ts", "rate"], numbers=["ts", "rate"], skip_lines=0)
    ts = stamps(frame["ts"], source=source, options=options)
    yield piece(SeriesKey("funding", perp.venue, perp.symbol), frame.with_columns(ts=ts))


FORMATS: tuple[Format, ...] = (
    Format("gate bars", _is_bars, _bars),
    Format("gate funding", _is_funding, _funding),
)
