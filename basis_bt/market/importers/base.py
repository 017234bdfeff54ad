"""What every importer takes and gives: a source, the options, and pieces of series.

An importer is one small module with one ``FORMAT``: a name, a test that looks at content, and a reader. The list in
``formats.py`` is asked from the top; the first that recognises a source reads it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from basis_bt.core.errors import DataError
from basis_bt.market.schemas import TS, SeriesKey

HEAD_BYTES = 4096
QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD1", "USDD", "DAI", "USD", "EUR", "GBP", "TRY", "BRL", "JPY",
          "BTC", "ETH", "BNB", "SOL")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The bytes of one file, unpacked if it came in an archive.

    ``path`` is the file on disk; ``name`` the path of the data below what the user gave, with ``/`` between, and
    with the member's name appended when it came out of an archive (``.../BTCUSDT-1h.zip/BTCUSDT-1h.csv``).
    """

    path: Path
    name: str
    data: bytes

    @property
    def head(self) -> bytes:
        """The first bytes, without a UTF-8 byte order mark."""
        return self.data[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")

    @property
    def first_line(self) -> str:
        """The first line as text, stripped."""
        return self.head.split(b"\n", 1)[0].decode("utf-8", errors="replace").strip()

    @property
    def header(self) -> list[str]:
        """Cells of the first line of a CSV, as written; empty where the first line is no header.

        A header begins with neither a digit nor a minus sign (rule 1 of a loader).
        """
        first = self.first_line
        is_header = first and not first[0].isdigit() and first[0] not in '-{["'
        return [cell.strip() for cell in first.split(",")] if is_header else []

    @property
    def stem(self) -> str:
        """Name of the innermost file without folders and suffixes."""
        return self.name.rsplit("/", 1)[-1].split(".", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user said about the sources; each value overrides what content and path tell.

    ``symbol`` is ``BASE-QUOTE``; ``mapping`` our column -> theirs; ``time_unit`` one of ``s, ms, us, ns``;
    ``time_zone`` of stamps written without one; ``volume_unit`` one of ``base, quote, contracts``;
    ``contract_size`` in base units per contract; ``asof`` the instant of snapshots that carry none (ISO 8601, zoned).
    """

    venue: str | None = None
    series: str | None = None
    symbol: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    time_zone: str | None = None
    volume_unit: str | None = None
    contract_size: float | None = None
    asof: str | None = None


class Piece(NamedTuple):
    """Rows of one series, by the columns of its schema; ``notes`` say what was left out and why."""

    key: SeriesKey
    frame: pl.DataFrame
    notes: tuple[str, ...] = ()


class Format(NamedTuple):
    """One importer."""

    name: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Options], Iterable[Piece]]


def instants(column: pl.Expr, *, unit: str) -> pl.Expr:
    """Epoch numbers of a known unit (``s`` with fractions, ``ms``, ``us``, ``ns``) as UTC instants in microseconds."""
    if unit == "s":
        return (column.cast(pl.Float64) * 1e6).round().cast(pl.Int64).cast(TS)
    scaled = {"ms": column.cast(pl.Int64) * 1000, "us": column.cast(pl.Int64), "ns": column.cast(pl.Int64) // 1000}
    return scaled[unit].cast(TS)


def unit_of_epochs(values: pl.Series, *, source: Source) -> str:
    """The unit of a file's epochs, told from their size (rule 2 of a loader).

    Raises
    ------
    DataError
        If values of one file are of different sizes, or too small for any unit after 1973.
    """
    low, high = (float(value) if isinstance(value, int | float) else 0.0 for value in (values.min(), values.max()))
    units = []
    for value in (low, high):
        if value < 1e8:
            raise DataError(
                f"stamps must be epochs, found {value:.15g}",
                where={"file": source.name},
                fix="say which column is the time (--map ts=COLUMN)",
            )
        units.append("ns" if value >= 1e17 else "us" if value >= 1e14 else "ms" if value >= 1e11 else "s")
    if units[0] != units[1]:
        raise DataError(
            f"stamps of one file are in two units: from {low:.19g} ({units[0]}) to {high:.19g} ({units[1]})",
            where={"file": source.name},
            fix="split the file where the unit changes",
        )
    return units[0]


def split_symbol(text: str, *, source: Source) -> str:
    """``BTCUSDT``, ``BTC_USDT``, ``BTC/USDT`` or ``btc-usdt`` as ``BTC-USDT``.

    Raises
    ------
    DataError
        If no known quote currency ends it.
    """
    plain = re.sub(r"[/_:]", "-", text.strip()).upper()
    if plain.count("-") == 1:
        return plain
    for quote in sorted(QUOTES, key=len, reverse=True):
        if quote == "TUSD":  # DOTUSD is DOT; a pair against TUSD is written with its dash
            continue
        if plain.endswith(quote) and len(plain) > len(quote):
            return f"{plain.removesuffix(quote)}-{quote}"
    raise DataError(
        f"{text!r} cannot be split into base and quote",
        where={"file": source.name},
        fix="give it: --symbol BASE-QUOTE",
    )


def needs(what: str, *, source: Source, option: str) -> DataError:
    """The error for a fact that neither content nor path tells."""
    return DataError(
        f"{what} is not in the file and not in its path", where={"file": source.name}, fix=f"give it: {option}"
    )
