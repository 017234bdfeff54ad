"""A CSV or parquet of one's own: columns by well-known names, or by the names the user maps ours to.

Columns are found by name alone, never by place. ``venue``, ``symbol`` and the kind of data come from columns of the
file, from the path of a market folder (``perp/binance/BTC-USDT.parquet``), or from options, which win.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.importers.base import Format, Options, Piece, Source, needs, split_symbol
from basis_bt.market.importers.cells import numbers, read_text, refuse_many, refuse_nulls
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.schemas import SERIES, TS, SeriesKey, key_of_path

ALIASES = {
    "ts": ("ts", "timestamp", "time", "datetime", "date", "open_time", "unix", "funding_timestamp", "funding_time",
           "settlement_time"),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v", "base_volume", "volume_base"),
    "rate": ("rate", "funding_rate"),
    "interval_hours": ("interval_hours", "funding_interval_hours"),
    "venue": ("venue", "source", "exchange"),
    "symbol": ("symbol", "pair", "instrument"),
    "kind": ("data_type", "kind", "type", "market_type"),
}  # fmt: skip
KINDS = {"spot": "spot"} | dict.fromkeys(("perp", "perpetual", "swap", "futures", "linear"), "perp")
VENUES = (
    "binance_cm",
    "binance",
    "bybit",
    "okx",
    "hyperliquid",
    "kraken",
    "gate",
    "kucoin",
    "bitget",
    "deribit",
    "coinbase",
)
_LABELS = ("venue", "symbol", "kind")
_PARQUET = b"PAR1"


def _is_parquet(source: Source) -> bool:
    return source.data.startswith(_PARQUET)


def _is_generic(source: Source) -> bool:
    if _is_parquet(source):
        return True
    names = source.header if "," in source.first_line else source.first_line.split(";")
    found = _named([name.strip(' "') for name in names], {})
    return "ts" in found and ("rate" in found or "close" in found)


def _named(columns: list[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Our column -> theirs: as mapped, else the first well-known name, whatever its case."""
    lower = {name.lower().replace(" ", "_"): name for name in reversed(columns)}
    found = {ours: lower[alias] for ours, aliases in ALIASES.items() for alias in reversed(aliases) if alias in lower}
    for spec in SERIES.values():
        found = {name: lower[name] for name in spec.columns if name in lower} | found
    return found | {ours: theirs for ours, theirs in mapping.items() if ours}


def read(source: Source, options: Options) -> Iterator[Piece]:
    """The series of a file, one piece for each venue, symbol and kind it holds.

    Raises
    ------
    DataError
        If a column, a unit or a label is missing, or a cell is no number.
    ConfigError
        If the mapping or the unit of volume means nothing.
    """
    table = _table(source)
    _check_mapping(options, table.columns, source=source)
    names = _named(table.columns, options.mapping)
    if "ts" not in names:
        raise DataError(
            "no column is known as the time",
            where={"file": source.name, "columns": ", ".join(table.columns[:12])},
            fix="say which one it is: --map ts=COLUMN",
        )
    if table.is_empty():
        raise DataError("the file has no rows", where={"file": source.name}, fix="fetch it again")
    at = stamps(table[names["ts"]], source=source, options=options)
    place = key_of_path(source.name)
    for label, given in (("venue", options.venue), ("symbol", options.symbol)):
        if given and label in names:
            refuse_many(table[names[label]], given, source=source)
    columns = [names[label] for label in _LABELS if label in names]
    table = table.with_columns(at.alias("__ts"))
    groups = table.group_by(columns, maintain_order=True) if columns else [((), table)]
    for values, rows in groups:
        told = dict(zip((label for label in _LABELS if label in names), map(str, values), strict=True))
        key = _key(told, names, source=source, options=options, place=place)
        yield _piece(rows, key, names, source=source, options=options)


def _table(source: Source) -> pl.DataFrame:
    if _is_parquet(source):
        try:
            return pl.read_parquet(io.BytesIO(source.data))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise DataError(
                "the parquet file is cut or damaged", where={"file": source.name}, fix="copy it again"
            ) from error
    first = source.first_line
    if ";" in first and "," not in first:
        raise DataError(
            "cells stand between semicolons, so decimals may be commas",
            where={"file": source.name, "line": 1},
            fix="save the file with commas between cells and decimal points",
        )
    if not source.header:
        raise DataError(
            "the first line is no header, and columns are found by name alone",
            where={"file": source.name, "line": 1},
            fix="write the names of the columns into the first line",
        )
    return read_text(source)


def _check_mapping(options: Options, columns: list[str], *, source: Source) -> None:
    known = {name for spec in SERIES.values() for name in spec.columns} | set(_LABELS)
    for ours, theirs in options.mapping.items():
        if ours not in known:
            raise ConfigError(f"no series has a column {ours!r}", fix=f"one of {', '.join(sorted(known))}")
        if theirs not in columns:
            raise DataError(
                f"the file has no column {theirs!r}",
                where={"file": source.name, "columns": ", ".join(columns[:12])},
                fix=f"map {ours} to one of them",
            )


def _key(
    told: dict[str, str], names: dict[str, str], *, source: Source, options: Options, place: SeriesKey | None
) -> SeriesKey:
    series = options.series or (place.series if place else None)
    if series is None:
        series = "funding" if "rate" in names else KINDS.get(told.get("kind", "").lower())
    if series is None:
        raise needs("the kind of series", source=source, option="--series spot (or perp, mark, funding, ...)")
    venue = options.venue or (_venue(told["venue"]) if "venue" in told else place.venue if place else None)
    if venue is None:
        raise needs("the venue", source=source, option="--venue NAME")
    symbol = options.symbol
    if symbol is None and "symbol" in told:
        of_coin = not SERIES[series].of and not SERIES[series].by_kind
        symbol = told["symbol"] if of_coin else _symbol(told["symbol"], source=source)
    symbol = symbol or (place.symbol if place else None)
    if symbol is None:
        raise needs("the symbol", source=source, option="--symbol BASE-QUOTE")
    kind = ""
    if SERIES[series].by_kind:
        kind = KINDS.get(told.get("kind", "").lower()) or (place.kind if place else "")
        if not kind:
            raise needs("whether this is spot or perp", source=source, option="--map kind=COLUMN")
    return SeriesKey(series, venue, symbol, kind)


def _venue(text: str) -> str:
    """``binance_futures`` and the like are the venue itself; the instrument says the product."""
    plain = text.strip().lower().replace("-", "_")
    return next((venue for venue in VENUES if plain == venue or plain.startswith(f"{venue}_")), plain)


def _symbol(text: str, *, source: Source) -> str:
    plain = re.sub(r"[-_](SWAP|PERP|PERPETUAL)$", "", text.strip(), flags=re.IGNORECASE)
    return split_symbol(plain, source=source)


def _piece(rows: pl.DataFrame, key: SeriesKey, names: dict[str, str], *, source: Source, options: Options) -> Piece:
    wanted: dict[str, Any] = {ours: dtype for ours, dtype in key.spec.columns.items() if ours in names and ours != "ts"}
    missing = [ours for ours in key.spec.required if ours not in wanted and ours != "ts"]
    if missing:
        raise DataError(
            f"{key.series} needs the columns {', '.join(missing)}",
            where={"file": source.name, "columns": ", ".join(rows.columns[:12])},
            fix=f"say which they are: --map {missing[0]}=COLUMN",
        )
    columns = {"ts": rows["__ts"].alias("ts")}
    for ours, dtype in wanted.items():
        values = rows[names[ours]]
        if dtype.is_numeric():
            values = numbers(values, dtype, source=source)
        elif dtype == TS:
            values = stamps(values, source=source, options=options)
        elif dtype == pl.Boolean() and values.dtype == pl.String:
            values = values.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
        columns[ours] = values.cast(dtype).alias(ours)
        if ours in key.spec.required:
            refuse_nulls(columns[ours], source=source)
    notes: list[str] = []
    if "volume" in columns:
        volume = _base_volume(columns["volume"], source=source, options=options)
        if volume is None:
            del columns["volume"]
            notes.append("volume was left out: it is counted in quote, and no one price turns it into base units")
        else:
            columns["volume"] = volume
    return Piece(key, pl.DataFrame(columns), tuple(notes))


def _base_volume(volume: pl.Series, *, source: Source, options: Options) -> pl.Series | None:
    """Volume in base units; None where it cannot be had."""
    if options.volume_unit == "quote":
        return None
    if options.volume_unit == "contracts":
        if options.contract_size is None:
            raise needs("the size of a contract", source=source, option="--contract-size BASE_UNITS")
        return volume * options.contract_size
    return volume


FORMATS: tuple[Format, ...] = (Format("by column names", _is_generic, read),)
