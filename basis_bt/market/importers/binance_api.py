"""Answers of Binance's REST API as people keep them: klines and funding as CSV, three snapshots as JSON.

``fundingInfo`` becomes ``funding_terms`` at its update times, ``premiumIndex`` the ``predicted`` rates, and
``crossMarginData`` the ``borrow`` rates of customers without a VIP level; the last one carries no instant.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.importers.base import Format, Options, Piece, Source, instants, needs
from basis_bt.market.importers.binance_symbols import Contract, contract_of
from basis_bt.market.importers.cells import numbers, read_text, refuse_many
from basis_bt.market.importers.stamps import asof_instant, stamps
from basis_bt.market.schemas import PRICES, TS, SeriesKey

_KLINE_COLUMNS = {"opentime", *PRICES, "volume", "closetime", "takerbuybase"}
_FUNDING_COLUMNS = {"symbol", "fundingtime", "fundingrate", "markprice"}
_PRODUCT = re.compile(r"(?:^|[/_\-. ])(spot|perp|um|cm|futures|swap)(?=[/_\-. ]|$)", re.IGNORECASE)
_NATIVE = re.compile(r"(?:^|[/_\-. ])([A-Z0-9]{4,}(?:_(?:PERP|\d{6}))?)(?=[/_\-. ]|$)")
_COIN = re.compile(r"^[A-Za-z0-9]+$")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").removesuffix("volume") if name.lower() != "volume" else "volume"


def _columns(source: Source) -> dict[str, str]:
    """Names without case and underscores -> as written."""
    return {_plain(name.strip('"')): name.strip('"') for name in source.header}


# --------------------------------------------------------------------------------------------------------------- CSV


def _is_klines(source: Source) -> bool:
    return _columns(source).keys() >= _KLINE_COLUMNS


def _is_funding(source: Source) -> bool:
    return set(_columns(source)) == _FUNDING_COLUMNS


def _read_klines(source: Source, options: Options) -> Iterator[Piece]:
    names, text = _columns(source), read_text(source)
    products = {"spot" if found.lower() == "spot" else "cm" if found.lower() == "cm" else "um"
                for found in _PRODUCT.findall(source.name)}  # fmt: skip
    product = products.pop() if len(products) == 1 else None
    if options.series in ("spot", "perp", "future"):
        product = "spot" if options.series == "spot" else product if product != "spot" else "um"
    if options.symbol:
        if product is None:
            raise needs("whether this is spot or perp", source=source, option="--series spot or --series perp")
        kind = "spot" if product == "spot" else "perp"
        contract: Contract | None = Contract(kind, "binance_cm" if product == "cm" else "binance", options.symbol)
    else:
        native = [name for name in _NATIVE.findall(source.name.rsplit("/", 1)[-1]) if not name.isdigit()]
        if len(native) != 1:
            raise needs("the symbol", source=source, option="--symbol BASE-QUOTE")
        contract = contract_of(native[0], product=product, source=source)
    if contract is None:
        raise needs("whether this is spot or perp", source=source, option="--series spot or --series perp")
    is_cm = contract.venue == "binance_cm"
    columns = {"ts": stamps(text[names["opentime"]], source=source, options=options)}
    for name in (*PRICES, "volume"):
        theirs = names["quote"] if name == "volume" and is_cm else names[name]
        columns[name] = numbers(text[theirs], pl.Float64(), source=source)
    series = options.series or contract.kind
    yield Piece(SeriesKey(series, options.venue or contract.venue, contract.symbol), pl.DataFrame(columns))


def _read_funding(source: Source, options: Options) -> Iterator[Piece]:
    names, text = _columns(source), read_text(source)
    if options.symbol:
        refuse_many(text[names["symbol"]], options.symbol, source=source)
    for (native,), rows in text.group_by(names["symbol"], maintain_order=True):
        contract = contract_of(str(native), product="um", source=source)
        symbol, venue = (contract.symbol, contract.venue) if contract else ("", "")
        frame = pl.DataFrame(
            {
                "ts": stamps(rows[names["fundingtime"]], source=source, options=options),
                "rate": numbers(rows[names["fundingrate"]], pl.Float64(), source=source),
                "mark_price": numbers(rows[names["markprice"]], pl.Float64(), source=source),
            }
        )
        yield Piece(SeriesKey("funding", options.venue or venue, options.symbol or symbol), frame)


# -------------------------------------------------------------------------------------------------------------- JSON


def _has_keys(*keys: str) -> Any:
    quoted = tuple(f'"{key}"'.encode() for key in keys)
    return lambda source: source.head.lstrip()[:1] in (b"[", b"{") and all(key in source.head for key in quoted)


def _objects(source: Source) -> list[dict[str, Any]]:
    try:
        answer = json.loads(source.data)
    except ValueError as error:
        raise DataError(
            f"the JSON cannot be read: {error}", where={"file": source.name}, fix="fetch it again; it may have been cut"
        ) from error
    return answer if isinstance(answer, list) else [answer]


def _perp(native: str, source: Source) -> Contract | None:
    """The perp a symbol names, None for a dated future and for symbols that are none of ours."""
    try:
        contract = contract_of(native, product="um", source=source)
    except DataError:
        return None
    is_ours = contract is not None and contract.kind == "perp" and _COIN.match(contract.symbol.replace("-", ""))
    return contract if is_ours else None


def _read_terms(source: Source, options: Options) -> Iterator[Piece]:
    asof = asof_instant(options)
    left_out: list[str] = []
    undated: list[str] = []
    pieces = []
    for row in _objects(source):
        contract = _perp(row["symbol"], source)
        if contract is None:
            left_out.append(row["symbol"])
            continue
        ts = row.get("updateTime") or (int(asof.timestamp() * 1000) if asof else None)
        if ts is None:
            undated.append(row["symbol"])
            continue
        values = {"interval_hours": int(row["fundingIntervalHours"])} | {
            name: _number(row, f"adjustedFundingRate{name.capitalize()}", source=source) for name in ("cap", "floor")
        }
        pieces.append(_one_row("funding_terms", contract, {"ts": ts} | values, options))
    notes = _notes(left_out) + _note(undated, "without an update time were left out (--asof gives them one)")
    yield from _with_notes(pieces, notes, source=source, option="--asof INSTANT")


def _read_predicted(source: Source, options: Options) -> Iterator[Piece]:
    left_out: list[str] = []
    unsettled: list[str] = []
    pieces = []
    for row in _objects(source):
        if not row["nextFundingTime"]:
            unsettled.append(row["symbol"])
            continue
        contract = _perp(row["symbol"], source)
        if contract is None:
            left_out.append(row["symbol"])
            continue
        values = {"ts": row["time"], "rate": _number(row, "lastFundingRate", source=source)}
        pieces.append(_one_row("predicted", contract, values | {"settlement_ts": row["nextFundingTime"]}, options))
    notes = _notes(left_out) + _note(unsettled, "without a next funding time were left out")
    yield from _with_notes(pieces, notes, source=source, option="a file with a next funding time")


def _read_borrow(source: Source, options: Options) -> Iterator[Piece]:
    asof = asof_instant(options)
    if asof is None:
        raise needs("the instant of the rates", source=source, option="--asof 2026-07-04T15:56:46Z")
    left_out, pieces = [], []
    for row in _objects(source):
        if row["vipLevel"] != 0:
            continue
        if not _COIN.match(row["coin"]):
            left_out.append(row["coin"])
            continue
        rate = _number(row, "yearlyInterest", source=source)
        frame = pl.DataFrame({"ts": [asof], "rate_apr": [rate]}, schema={"ts": TS, "rate_apr": pl.Float64()})
        pieces.append(Piece(SeriesKey("borrow", options.venue or "binance", row["coin"]), frame))
    yield from _with_notes(pieces, _notes(left_out), source=source, option="a file with rates of VIP level 0")


def _number(row: dict[str, Any], name: str, *, source: Source) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError, KeyError):
        raise DataError(
            f"{name} must be a number, found {row.get(name)!r}",
            where={"file": source.name, "symbol": row.get("symbol", row.get("coin"))},
            fix="fetch the snapshot again",
        ) from None


def _one_row(series: str, contract: Contract, values: dict[str, Any], options: Options) -> Piece:
    frame = pl.DataFrame({name: [value] for name, value in values.items()})
    frame = frame.with_columns(instants(pl.col(name), unit="ms") for name in values if name.endswith("ts"))
    return Piece(SeriesKey(series, options.venue or contract.venue, contract.symbol), frame)


def _notes(symbols: list[str]) -> tuple[str, ...]:
    return _note(symbols, "were left out: dated, or no BASE-QUOTE in letters and digits")


def _note(symbols: list[str], text: str) -> tuple[str, ...]:
    if not symbols:
        return ()
    shown = ", ".join(symbols[:5]) + (", ..." if len(symbols) > 5 else "")
    return (f"{len(symbols)} symbols ({shown}) {text}",)


def _with_notes(pieces: list[Piece], notes: tuple[str, ...], *, source: Source, option: str) -> Iterator[Piece]:
    """The pieces, the first one carrying what is to be said about the whole file."""
    if not pieces:
        raise DataError(
            "; ".join(("no row of the file can be used", *notes)), where={"file": source.name}, fix=f"give {option}"
        )
    yield pieces[0]._replace(notes=notes)
    yield from pieces[1:]


FORMATS: tuple[Format, ...] = (
    Format("binance api klines", _is_klines, _read_klines),
    Format("binance api funding", _is_funding, _read_funding),
    Format("binance api fundingInfo", _has_keys("fundingIntervalHours", "adjustedFundingRateCap"), _read_terms),
    Format("binance api premiumIndex", _has_keys("lastFundingRate", "nextFundingTime", "markPrice"), _read_predicted),
    Format("binance api crossMarginData", _has_keys("yearlyInterest", "vipLevel", "coin"), _read_borrow),
)
