"""Binance Vision (data.binance.vision): klines of trades, mark, index and premium, funding, book tickers and trades.

The kind of file is told from its cells, the unit of its stamps from their size, its product (spot, USD-M, COIN-M), the
kind of kline and the symbol from the path, as far as the cells leave them open. Futures stamps are always milliseconds,
so klines in microseconds are spot; and only futures files have a header.
"""

import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.importers.base import (
    Format,
    Options,
    Piece,
    Source,
    instants,
    needs,
    unit_of_epochs,
)
from basis_bt.market.importers.binance_symbols import CM_SYMBOL, Contract, contract_of
from basis_bt.market.importers.cells import read_columns
from basis_bt.market.schemas import PRICES, SERIES, SeriesKey

KLINE_CELLS = 12
SERIES_OF_TYPE = {"markpriceklines": "mark", "indexpriceklines": "index", "premiumindexklines": "premium"}
_TYPES = "klines|markPriceKlines|indexPriceKlines|premiumIndexKlines|fundingRate|bookTicker|aggTrades|trades"
_LAYOUT = re.compile(rf"(?:^|/)(spot|futures/um|futures/cm)/(?:daily|monthly)/({_TYPES})/", re.IGNORECASE)
_LOOSE_PRODUCT = re.compile(r"(?:^|[/_\-. ])(spot|um|cm)(?=[/_\-. ]|$)", re.IGNORECASE)
_LOOSE_TYPE = re.compile(rf"(?:^|[/_\-. ])({_TYPES})(?=[/_\-. ]|$)", re.IGNORECASE)
_STEM = re.compile(r"^([A-Z0-9]+(?:_(?:PERP|\d{6}))?)-")

FUNDING_HEADER = ["calc_time", "funding_interval_hours", "last_funding_rate"]
TICKER_HEADER = ["update_id", "best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty", "transaction_time",
                 "event_time"]  # fmt: skip
_INTEGER = re.compile(r"^\d+$")
_NUMBER = re.compile(r"^-?\d+(\.\d*)?([eE][-+]?\d+)?$")
_EPOCH = re.compile(r"^[1-9]\d{12}(\d{3})?$")
_TRUTH = re.compile(r"^(true|false)$", re.IGNORECASE)


# ------------------------------------------------------------------------------------------------------- recognising


def _row(source: Source) -> list[str]:
    """Cells of the first line of data."""
    lines = source.head.split(b"\n", 2)
    line = lines[1] if source.header and len(lines) > 1 else lines[0]
    return [cell.strip() for cell in line.decode("utf-8", errors="replace").split(",")]


def _is_kline(source: Source) -> bool:
    cells, header = _row(source), source.header
    if header and (len(header) != KLINE_CELLS or header[0] != "open_time" or header[-1] != "ignore"):
        return False
    if len(cells) != KLINE_CELLS or not (_EPOCH.match(cells[0]) and _EPOCH.match(cells[6])):
        return False
    step = int(cells[6]) - int(cells[0]) + 1
    return step > 0 and step % (1000 if len(cells[0]) == 13 else 1_000_000) == 0


def _is_funding(source: Source) -> bool:
    if source.header:
        return source.header == FUNDING_HEADER
    cells = _row(source)
    return len(cells) == 3 and bool(_EPOCH.match(cells[0])) and cells[1] in ("1", "2", "4", "8") and "." in cells[2]


def _is_ticker(source: Source) -> bool:
    if source.header:
        return source.header == TICKER_HEADER
    cells = _row(source)
    return len(cells) == 7 and all(map(_NUMBER.match, cells)) and all(_EPOCH.match(cell) for cell in cells[5:])


def _is_trades(source: Source) -> bool:
    cells = _row(source)
    numbers = len(cells) >= 6 and _INTEGER.match(cells[0]) and all(map(_NUMBER.match, cells[1:3]))
    return bool(numbers) and _trade_columns(source) is not None


def _trade_columns(source: Source) -> tuple[int, int, bool] | None:
    """Positions of the time and of the maker flag, and whether trades are aggregated."""
    cells = _row(source)
    for time, is_aggregated in ((5, True), (4, False)):
        flags = cells[time + 1 :]
        if len(flags) in (1, 2) and _EPOCH.match(cells[time]) and all(map(_TRUTH.match, flags)):
            return time, time + 1, is_aggregated
    return None


# ------------------------------------------------------------------------------------------------------------ path


def _product_and_type(source: Source) -> tuple[str | None, str | None]:
    """Product and kind of file by the folders; the path on disk counts where it is Vision's own layout."""
    layout = _LAYOUT.search(f"{source.path.absolute().as_posix()}/{source.name}")
    if layout:
        return layout[1].lower().removeprefix("futures/"), layout[2].lower()
    products = {found.lower() for found in _LOOSE_PRODUCT.findall(source.name)}
    types = {found.lower() for found in _LOOSE_TYPE.findall(source.name)}
    return products.pop() if len(products) == 1 else None, types.pop() if len(types) == 1 else None


def _key(source: Source, options: Options, *, series: str, product: str | None) -> SeriesKey:
    """The series of a file; ``series`` is empty for klines of trades, which are named after their instrument."""
    of_perps = bool(series) and SERIES[series].of == "perp"
    if of_perps or options.series in ("perp", "future"):
        product = "cm" if product == "cm" else "um"
    elif options.series == "spot":
        product = "spot"
    native = _STEM.match(source.stem)
    if options.symbol:
        venue = "binance_cm" if product == "cm" else "binance"
        contract: Contract | None = Contract(_kind(options, series=series, product=product), venue, options.symbol)
    elif native is None:
        raise needs("the symbol", source=source, option="--symbol BASE-QUOTE")
    else:
        contract = contract_of(native[1], product=product, source=source)
    if contract is None or not contract.kind:
        raise needs("whether this is spot or perp", source=source, option="--series spot or --series perp")
    if of_perps and contract.kind == "future":
        raise DataError(
            f"{series} of a dated future is no series of this program",
            where={"file": source.name},
            fix="leave the file out; klines of trades of dated futures can be imported",
        )
    venue = options.venue or contract.venue
    if not series:
        return SeriesKey(options.series or contract.kind, venue, contract.symbol)
    return SeriesKey(series, venue, contract.symbol, contract.kind if SERIES[series].by_kind else "")


def _kind(options: Options, *, series: str, product: str | None) -> str:
    """Kind of the instrument whose symbol the user gave; empty where nothing tells."""
    if options.series in ("spot", "perp", "future"):
        return options.series
    if (options.symbol or "").count("-") == 2:
        return "future"
    return "spot" if product == "spot" else "perp" if product or (series and SERIES[series].of == "perp") else ""


# ----------------------------------------------------------------------------------------------------------- reading


def _read_klines(source: Source, options: Options) -> Iterator[Piece]:
    product, kind = _product_and_type(source)
    if product is None:  # futures stamps are never in microseconds, and spot files never have a header
        unit_digits = len(_row(source)[0])
        product = "spot" if unit_digits == 16 else "um" if source.header else None
    series = SERIES_OF_TYPE.get(kind or "", "")
    if options.series in ("mark", "index", "premium"):
        series = options.series
    key = _key(source, options, series=series, product=product)
    columns: dict[str, tuple[int, Any]] = {"ts": (0, pl.Int64())}
    columns |= {name: (i, pl.Float64()) for i, name in enumerate(PRICES, start=1)}
    if not series:
        is_cm = product == "cm" or CM_SYMBOL.match(source.stem.partition("-")[0])
        columns["volume"] = (7 if is_cm else 5, pl.Float64())  # COIN-M counts contracts, and the coins further on
    frame = read_columns(source, columns, n_cells=KLINE_CELLS, header=bool(source.header))
    if not series and kind is None and options.series is None and (frame["volume"] == 0).all() and len(frame) > 1:
        raise needs("whether these are bars of trades, mark, index or premium", source=source, option="--series")
    yield Piece(key, _with_instants(frame, source=source, options=options))


def _read_funding(source: Source, options: Options) -> Iterator[Piece]:
    product, _ = _product_and_type(source)
    key = _key(source, options, series="funding", product=product)
    columns: dict[str, tuple[int, Any]] = {
        "ts": (0, pl.Int64()),
        "interval_hours": (1, pl.Int32()),
        "rate": (2, pl.Float64()),
    }
    frame = read_columns(source, columns, n_cells=3, header=bool(source.header))
    yield Piece(key, _with_instants(frame, source=source, options=options))


def _read_ticker(source: Source, options: Options) -> Iterator[Piece]:
    product, _ = _product_and_type(source)
    key = _key(source, options, series="quotes", product=product or "um")  # the archive has none of spot
    columns: dict[str, tuple[int, Any]] = {"id": (0, pl.Int64()), "ts": (5, pl.Int64())}
    columns |= {name: (i, pl.Float64()) for i, name in enumerate(("bid", "bid_qty", "ask", "ask_qty"), start=1)}
    frame = read_columns(source, columns, n_cells=7, header=bool(source.header)).sort("ts", "id")
    last = frame.unique("ts", keep="last", maintain_order=True).drop("id")
    dropped = len(frame) - len(last)
    notes = (f"{dropped:,} earlier updates of a stamp were left out: the last one stands",) if dropped else ()
    yield Piece(key, _with_instants(last, source=source, options=options), notes)


def _read_trades(source: Source, options: Options) -> Iterator[Piece]:
    product, _ = _product_and_type(source)
    found = _trade_columns(source)
    if found is None:
        raise DataError("no line of trades", where={"file": source.name}, fix="fetch the file again")
    time, maker, is_aggregated = found
    key = _key(source, options, series="trades", product=product)
    columns: dict[str, tuple[int, Any]] = {
        "trade_id": (0, pl.String()),
        "price": (1, pl.Float64()),
        "qty": (2, pl.Float64()),
    }
    columns |= {"ts": (time, pl.Int64()), "buyer_is_maker": (maker, pl.String())}
    frame = read_columns(source, columns, n_cells=len(_row(source)), header=bool(source.header))
    flag = pl.col("buyer_is_maker").str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    frame = frame.with_columns(buyer_is_maker=flag, trade_id=pl.lit("a" if is_aggregated else "") + pl.col("trade_id"))
    yield Piece(
        key,
        _with_instants(frame, source=source, options=options),
        ("aggregated trades; their ids begin with a",) if is_aggregated else (),
    )


def _with_instants(frame: pl.DataFrame, *, source: Source, options: Options) -> pl.DataFrame:
    if frame.is_empty():
        raise DataError("the file has no rows", where={"file": source.name}, fix="fetch it again")
    unit = options.time_unit or unit_of_epochs(frame["ts"], source=source)
    return frame.with_columns(instants(pl.col("ts"), unit=unit))


FORMATS: tuple[Format, ...] = (
    Format("binance vision klines", _is_kline, _read_klines),
    Format("binance vision funding", _is_funding, _read_funding),
    Format("binance vision book ticker", _is_ticker, _read_ticker),
    Format("binance vision trades", _is_trades, _read_trades),
)
