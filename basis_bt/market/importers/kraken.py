"""Kraken: quarterly OHLCVT files of spot without a header, and funding rates of its futures as JSON.

A bar file is ``unix,open,high,low,close,volume,trades`` in seconds and named ``XBTUSD_60``: pair and minutes; minutes
without a trade are absent. Rates are the relative ones, as a fraction per hour.
"""

import json
import re
from collections.abc import Iterator

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    QUOTES_BUT_TUSD,
    csv_columns,
    glued_pair,
    head_rows,
    instrument_given,
    piece,
)
from basis_bt.market.schemas import PRICES, SeriesKey

_BARS = ["ts", "open", "high", "low", "close", "volume", "trades"]
_COINS = {"XBT": "BTC", "XDG": "DOGE", "XXBT": "BTC", "XETH": "ETH", "XXDG": "DOGE"}
_MORE_QUOTES = ("CHF", "CAD", "AUD", "XBT", "PYUSD")
_RATES = re.compile(rb'^\s*\{\s*("result":\s*"success",\s*)?("serverTime":[^,]*,\s*)?"rates":\s*\[')


def pair(text: str) -> str | None:
    """``BTC-USD`` of ``XBTUSD``, ``XBT/USD`` or ``XXBTZUSD``; None if no known quote ends it."""
    plain = re.sub(r"[/_-]", "", text).upper()
    split = glued_pair(plain, (*QUOTES_BUT_TUSD, *_MORE_QUOTES))
    if split is None:
        return None
    base, quote = split
    base = base[:-1] if len(base) > 4 and base[0] == "X" and base[-1] == "Z" else base
    return f"{_COINS.get(base, base)}-{_COINS.get(quote, quote)}"


def perp(name: str) -> Instrument | None:
    """``PF_XBTUSD`` as a perp of ``kraken``, the coin-margined ``PI_XBTUSD`` as one of ``kraken_cm``."""
    match = re.match(r"^(PF|PI)_([A-Z0-9]+)", name.upper())
    symbol = pair(match[2]) if match else None
    return Instrument("perp", "kraken" if match[1] == "PF" else "kraken_cm", symbol) if match and symbol else None


def _spot_of_name(source: Source) -> Instrument | None:
    match = re.match(r"^([A-Za-z0-9]+)_\d+$", source.stem)
    symbol = pair(match[1]) if match else None
    return Instrument("spot", "kraken", symbol) if symbol else None


def _is_bars(source: Source) -> bool:
    """Seven numbers a row, seconds first, a whole number of trades last, prices that fit, and the name of a pair."""
    if _spot_of_name(source) is None and "kraken" not in source.name.lower():
        return False
    try:
        rows = [[float(cell) for cell in row] for row in head_rows(source)]
    except ValueError:
        return False
    return bool(rows) and all(
        len(row) == len(_BARS)
        and 1e9 <= row[0] < 1e10
        and row[3] <= min(row[1], row[4])
        and max(row[1], row[4]) <= row[2]
        and row[6] >= 0
        and row[6].is_integer()
        for row in rows
    )


def _is_funding(source: Source) -> bool:
    return bool(_RATES.match(source.head)) and b'"relativeFundingRate"' in source.head


def _bars(source: Source, options: Options) -> Iterator[Piece]:
    found = _spot_of_name(source)
    if found is None and options.symbol is not None:
        found = Instrument("spot", "kraken", options.symbol)
    bars = instrument_given(found, source=source, options=options)
    frame = csv_columns(source, names=_BARS, numbers=["ts", *PRICES, "volume"], skip_lines=0)
    ts = stamps(frame["ts"], source=source, options=options)
    yield piece(SeriesKey.of(bars, bars.kind), frame.with_columns(ts=ts))


def _funding(source: Source, options: Options) -> Iterator[Piece]:
    """Hourly relative rates; ``ts`` as the venue stamps them."""
    found = perp(source.stem)
    if found is None and options.symbol is not None:
        found = Instrument("perp", "kraken", options.symbol)
    instrument = instrument_given(found, source=source, options=options)
    try:
        rates = json.loads(source.data)["rates"]
        times = [str(row["timestamp"]) for row in rates]
        values = [float(row["relativeFundingRate"]) for row in rates]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the answer is damaged or cut short: {type(error).__name__} {error}",
            where={"file": source.name},
            fix="get the file again",
        ) from error
    ts = stamps(pl.Series(times, dtype=pl.String), source=source, options=options)
    frame = pl.DataFrame({"ts": ts, "rate": values})
    yield piece(SeriesKey("funding", instrument.venue, instrument.symbol), frame)


FORMATS: tuple[Format, ...] = (
    Format("kraken bars", _is_bars, _bars),
    Format("kraken futures funding", _is_funding, _funding),
)
