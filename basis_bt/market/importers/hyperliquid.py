"""Hyperliquid: recorded websocket lines, and candles and funding as its info endpoint answers them.

Perps are named after their coin and settle in USDC; spot is ``PURR/USDC`` or ``@`` and a number, which needs a symbol.
The side of a trade is the aggressor's: ``B`` bought at the ask, so the buyer is the maker only where it is ``A``.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    instruments_named,
    pieces,
)

_LINE = re.compile(rb'^\d{16,19} \{"channel":')
_BUYER_IS_MAKER = {"A": True, "B": False}
_CANDLE = {"t", "T", "s", "i", "o", "c", "h", "l", "v", "n"}
_FUNDING = {"coin", "fundingRate", "premium", "time"}


def instrument(coin: str) -> Instrument | None:
    """The perp of a coin, or the spot pair ``PURR/USDC``; None for a pair that is a number only."""
    base, _, quote = coin.partition("/")
    if not base.isalnum() or (quote and not quote.isalnum()):
        return None
    return Instrument("spot" if quote else "perp", "hyperliquid", f"{base}-{quote or 'USDC'}")


def _is_lines(source: Source) -> bool:
    return bool(_LINE.match(source.head))


def _first_object(source: Source) -> set[str]:
    """Names in the first object of a JSON list."""
    text = source.head.decode("utf-8", errors="replace").lstrip()
    if not text.startswith("["):
        return set()
    try:
        found, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except ValueError:
        return set()
    return set(found) if isinstance(found, dict) else set()


def _is_candles(source: Source) -> bool:
    return _first_object(source) >= _CANDLE


def _is_funding(source: Source) -> bool:
    return _first_object(source) >= _FUNDING


def _messages(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(source.data.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line.partition(b" ")[2])
            except ValueError as error:
                raise _bad_line(source, number, error) from error


def _bad_line(source: Source, number: int, error: Exception) -> DataError:
    return DataError(
        f"the line is no message of the venue: {type(error).__name__} {error}",
        where={"file": source.name, "line": number},
        fix="take it out; a recording cut short ends in half a line",
    )


def _lines(source: Source, options: Options) -> Iterator[Piece]:
    """Snapshots of the book and trades, stamped by the venue; the stamp of the recorder is left out."""
    book: list[tuple[int, str, int, str, int, float, float]] = []
    trades: list[tuple[str, int, str, float, float, bool]] = []
    other: Counter[str] = Counter()
    for number, message in _messages(source):
        try:
            channel, data = str(message["channel"]), message["data"]
            if channel == "l2Book":
                for side, levels in zip("ba", data["levels"], strict=True):
                    for level, row in enumerate(levels):
                        at = (number, data["coin"], data["time"], side, level)
                        book.append((*at, float(row["px"]), float(row["sz"])))
            elif channel == "trades":
                for row in data:
                    maker, tid = _BUYER_IS_MAKER[row["side"]], str(row["tid"])
                    trades.append((row["coin"], row["time"], tid, float(row["px"]), float(row["sz"]), maker))
            else:
                other[channel] += 1
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_line(source, number, error) from error
    notes = [f"{count} messages of {channel} left out" for channel, count in sorted(other.items())]
    levels = pl.DataFrame(book, schema=["line", "coin", "time", "side", "level", "price", "qty"], orient="row")
    last = levels.filter(pl.col("line") == pl.col("line").max().over("coin", "time"))
    if last.height < levels.height:
        notes.append(f"{levels.height - last.height} levels left out: a later snapshot has the same ts")
    prints = pl.DataFrame(
        trades, schema=["coin", "time", "trade_id", "price", "qty", "buyer_is_maker"], orient="row"
    )
    for series, frame in (("book", last), ("trades", prints)):
        if frame.height:
            yield from _of_coins(frame, series, notes, source, options)
            notes = []


def _of_coins(
    frame: pl.DataFrame, series: str, notes: list[str], source: Source, options: Options
) -> Iterator[Piece]:
    """Rows with ``coin`` and ``time`` in ms as pieces; a pair that is a number takes the symbol given."""

    def named(coin: str) -> Instrument | None:
        numbered = coin.startswith("@") and options.symbol is not None
        return Instrument("spot", "hyperliquid", str(options.symbol)) if numbered else instrument(coin)

    found, odd = instruments_named(frame["coin"], named, source=source, options=options)
    rows = frame.with_columns(ts=stamps(frame["time"], source=source, options=options))
    yield from pieces(rows, found, name="coin", series=series, notes=[*odd, *notes])


def _json_rows(source: Source) -> list[dict[str, Any]]:
    try:
        rows = json.loads(source.data)
    except ValueError as error:
        raise DataError(
            f"the JSON is damaged or cut short: {error}", where={"file": source.name}, fix="get the file again"
        ) from error
    return list(rows)


def _table(source: Source, columns: dict[str, tuple[str, Any]]) -> pl.DataFrame:
    """Columns ``ours: (theirs, type)`` of a list of objects."""
    rows = _json_rows(source)
    try:
        return pl.DataFrame({ours: [kind(row[name]) for row in rows] for ours, (name, kind) in columns.items()})
    except (KeyError, TypeError, ValueError) as error:
        bad = next((n for n, row in enumerate(rows) if not {name for name, _ in columns.values()} <= {*row}), None)
        raise DataError(
            f"a row is not of the venue's form: {type(error).__name__} {error}",
            where={"file": source.name, "row": bad},
            fix="get the file again",
        ) from error


def _candles(source: Source, options: Options) -> Iterator[Piece]:
    """Bars that had ended at ``options.asof``; without it all, and a note that the last may have been running."""
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    columns: dict[str, tuple[str, Any]] = {ours: (theirs, float) for ours, theirs in names.items()}
    frame = _table(source, {"coin": ("s", str), "time": ("t", int), "end": ("T", int), **columns})
    notes = ["the last bar may have been running when it was fetched: say when with --asof"]
    if options.asof is not None:
        asof = stamps(pl.Series([options.asof]), source=source, options=options)
        ended = frame.filter(stamps(frame["end"], source=source, options=options) < asof[0])
        notes = [f"{frame.height - ended.height} bars left out: running at {options.asof}"]
        frame = ended
    yield from _of_coins(frame, "", notes, source, options)


def _funding(source: Source, options: Options) -> Iterator[Piece]:
    """Settlements as stamped, some tens of milliseconds late."""
    frame = _table(source, {"coin": ("coin", str), "time": ("time", int), "rate": ("fundingRate", float)})
    yield from _of_coins(frame, "funding", [], source, options)


FORMATS: tuple[Format, ...] = (
    Format("hyperliquid websocket", _is_lines, _lines),
    Format("hyperliquid candles", _is_candles, _candles),
    Format("hyperliquid funding", _is_funding, _funding),
)
