"""OKX: funding of all swaps, trades, candles and borrow rates, as the venue publishes them by the day.

A file's day is a day in UTC+8; the stamps inside are epochs and are taken as they are. Sizes of swaps and futures are
contracts. Where a file has two rates per settlement, ``real_funding_rate`` (REST: ``realizedRate``) is the one that was
paid; ``funding_rate`` beside it is the estimate of another moment.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from basis_bt.core.instruments import Instrument
from basis_bt.market.importers.base import Format, Options, Piece, Source
from basis_bt.market.importers.stamps import stamps
from basis_bt.market.importers.tables import (
    csv_columns,
    dated_symbol,
    instruments_named,
    piece,
    pieces,
    plain_names,
    volume_in_base,
    with_maker,
)
from basis_bt.market.schemas import SeriesKey

HOURS_PER_YEAR = 8760
_NAMES = ("instrument_name", "instrument", "instid", "inst_id")
_PAID = ("real_funding_rate", "realized_rate", "realizedrate", "real_rate")
_ESTIMATE = ("funding_rate", "fundingrate")
_SETTLEMENT = ("funding_time", "fundingtime")
_COIN = ("currency_name", "currency", "ccy")
_BORROW = ("borrow_rate", "borrowing_rate", "rate", "interest_rate", "hourly_rate", "annual_rate", "apr")
_IN_COINS = ("vol_ccy", "volccy")
_TIME = ("open_time", "created_time", "borrow_time", "time", "timestamp", "ts")
_NAMED = re.compile(r"^[A-Z0-9]+-[A-Z0-9_]+(-|$)")


def instrument(name: str) -> Instrument | None:
    """``BTC-USDT-SWAP`` as a perp, ``BTC-USDT-241227`` as a future, ``BTC-USDT`` as spot; None for anything else."""
    base, _, rest = name.strip().upper().partition("-")
    quote, _, product = rest.partition("-")
    if not (base.isalnum() and quote.isalnum()):
        return None
    if product == "":
        return Instrument("spot", "okx", f"{base}-{quote}")
    if product == "SWAP":
        return Instrument("perp", "okx", f"{base}-{quote}")
    dated = dated_symbol(f"{base}-{quote}", product)
    return Instrument("future", "okx", dated) if dated else None


def _first_of(names: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _columns(source: Source) -> list[str]:
    return plain_names(source.header)


def _rows_are_okx(source: Source, column: str) -> bool:
    lines = source.head.decode("utf-8", errors="replace").splitlines()
    cells = lines[1].split(",") if len(lines) > 1 else []
    at = _columns(source).index(column)
    return len(cells) > at and bool(_NAMED.match(cells[at].strip().strip('"')))


def _has(source: Source, *groups: tuple[str, ...]) -> bool:
    names = _columns(source)
    if not names or any(_first_of(names, group) is None for group in groups):
        return False
    return _rows_are_okx(source, _first_of(names, _NAMES) or "") if _NAMES in groups else True


def _is_funding(source: Source) -> bool:
    return _has(source, _NAMES, _PAID + _ESTIMATE, _SETTLEMENT)


def _is_trades(source: Source) -> bool:
    return _has(source, _NAMES, ("trade_id",), ("side",), ("price",), ("size",), ("created_time",))


def _is_candles(source: Source) -> bool:
    return _has(source, _NAMES, ("open",), ("high",), ("low",), ("close",), _TIME) and not _is_funding(source)


def _is_borrow(source: Source) -> bool:
    names = _columns(source)
    told = "borrow" in source.name.lower() or any("borrow" in name for name in names)
    return told and len(names) <= 5 and _has(source, _COIN, _BORROW, _TIME)


def _outside_day(ts: pl.Series, source: Source) -> tuple[str, ...]:
    """A note when stamps leave the UTC+8 day that the file is named after."""
    match = re.search(r"(20\d\d-\d\d-\d\d)", source.stem)
    if match is None:
        return ()
    first = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - timedelta(hours=8)
    outside = ((ts < first) | (ts >= first + timedelta(days=1))).sum()
    if not outside:
        return ()
    return (f"{outside} of {len(ts)} stamps lie outside of {match[1]} in UTC+8; they are taken as written",)


def _funding(source: Source, options: Options) -> Iterator[Piece]:
    names = _columns(source)
    name, time = _first_of(names, _NAMES) or "", _first_of(names, _SETTLEMENT) or ""
    paid = _first_of(names, _PAID)
    rate = paid or _first_of(names, _ESTIMATE) or ""
    frame = csv_columns(source, names=names, texts=[name, time], numbers=[rate], skip_lines=1)
    frame = frame.select(
        pl.col(name), stamps(frame[time], source=source, options=options).alias("ts"), pl.col(rate).alias("rate")
    )
    found, odd = instruments_named(frame[name], instrument, source=source, options=options)
    perps = {text: one for text, one in found.items() if one.is_perp}
    guess = () if paid else (f"{rate} taken as what was paid: the file has no other column of rates",)
    notes = [*odd, *guess, *_outside_day(frame["ts"], source)]
    yield from pieces(frame, perps, name=name, series="funding", notes=notes)


def _trades(source: Source, options: Options) -> Iterator[Piece]:
    names = _columns(source)
    name = _first_of(names, _NAMES) or ""
    frame = csv_columns(
        source, names=names, texts=[name, "trade_id", "side"], numbers=["price", "size", "created_time"], skip_lines=1
    )
    ts = stamps(frame["created_time"], source=source, options=options)
    rows, unknown = with_maker(frame.with_columns(ts=ts, qty=pl.col("size")))
    found, odd = instruments_named(frame[name], instrument, source=source, options=options)
    notes = [*odd, *unknown, *_outside_day(ts, source)]
    yield from pieces(rows, found, name=name, series="trades", notes=notes)


def _volume(
    bars: Instrument, names: list[str], source: Source, options: Options
) -> tuple[pl.Expr | None, str]:
    """The volume of bars in base units: ``vol`` of spot, ``vol_ccy`` of the rest, whose ``vol`` is contracts."""
    in_coins = _first_of(names, _IN_COINS)
    if bars.kind != "spot" and in_coins is not None:
        return pl.col(in_coins), ""
    if "vol" not in names:
        return None, "volume left out: the file has none in coins"
    if bars.kind != "spot" and bars.symbol.split("-")[1] == "USD" and options.volume_unit is None:
        return None, "volume left out: a contract of a coin-margined instrument is a sum of dollars"
    size, note = volume_in_base(source, options, unit="base" if bars.kind == "spot" else "contracts")
    return (None, note) if size is None else (pl.col("vol") * size, note)


def _candles(source: Source, options: Options) -> Iterator[Piece]:
    """Bars that were complete when the file was written."""
    names = _columns(source)
    name, time = _first_of(names, _NAMES) or "", _first_of(names, _TIME) or ""
    numbers = ["open", "high", "low", "close", time]
    extra = [column for column in ("vol", *_IN_COINS, "confirm") if column in names]
    frame = csv_columns(
        source, names=names, texts=[name], numbers=[*numbers, *extra], may_be_empty=extra, skip_lines=1
    )
    frame = frame.with_columns(ts=stamps(frame[time], source=source, options=options))
    found, odd = instruments_named(frame[name], instrument, source=source, options=options)
    notes = [*odd, *_outside_day(frame["ts"], source)]
    if "confirm" in names:
        complete = frame.filter(pl.col("confirm") == 1)
        running = frame.height - complete.height
        notes += [f"{running} bars left out: not complete when written"] if running else []
        frame = complete
    for (text,), rows in frame.partition_by(name, as_dict=True, maintain_order=True).items():
        if (bars := found.get(str(text))) is None:
            continue
        volume, note = _volume(bars, names, source, options)
        kept = rows if volume is None else rows.with_columns(volume=volume)
        yield piece(SeriesKey.of(bars, bars.kind), kept, note, *notes)
        notes = []


def _borrow(source: Source, options: Options) -> Iterator[Piece]:
    """Simple annual rates: the dump's are per hour, unless the column is named after the year."""
    names = _columns(source)
    coin, rate = _first_of(names, _COIN) or "", _first_of(names, _BORROW) or ""
    time = _first_of(names, _TIME) or ""
    frame = csv_columns(source, names=names, texts=[coin, time], numbers=[rate], skip_lines=1)
    yearly = rate in ("annual_rate", "apr")
    frame = frame.select(
        pl.col(coin).str.strip_chars().str.to_uppercase(),
        stamps(frame[time], source=source, options=options).alias("ts"),
        (pl.col(rate) * (1 if yearly else HOURS_PER_YEAR)).alias("rate_apr"),
    )
    notes = [*_outside_day(frame["ts"], source)]
    if not yearly:
        notes.append(f"{rate} taken as a rate per hour: rate_apr is {HOURS_PER_YEAR} times it")
    for (text,), rows in frame.partition_by(coin, as_dict=True, maintain_order=True).items():
        yield piece(SeriesKey("borrow", options.venue or "okx", str(text)), rows, *notes)
        notes = []


FORMATS: tuple[Format, ...] = (
    Format("okx funding", _is_funding, _funding),
    Format("okx trades", _is_trades, _trades),
    Format("okx candles", _is_candles, _candles),
    Format("okx borrow rates", _is_borrow, _borrow),
)
