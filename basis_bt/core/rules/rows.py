"""The venue files: reading them, finding an instrument's rows, choosing the row in force on a day, and their hash."""

import hashlib
import tomllib
from collections.abc import Iterable
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument

Row = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "venues"


@cache
def _read(folder: Path, venue: str) -> dict[str, Any]:
    file = folder / f"{venue}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def book(venue: str) -> dict[str, Any]:
    """The tables of a venue; empty for a venue the rulebook does not know."""
    return _read(FOLDER, venue)


def venues() -> list[str]:
    """The venues that have a file, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def exchange(venue: str) -> str:
    """The company a venue belongs to: ``binance_cm`` is a part of ``binance``."""
    return str(book(venue).get("exchange", venue))


def home(instrument: Instrument) -> Instrument:
    """The instrument under the venue whose file holds its rows: coin-margined contracts may have one of their own."""
    other = book(instrument.venue).get("coin_margined_venue")
    if other is None or not is_coin_margined(instrument):
        return instrument
    return Instrument(instrument.kind, other, instrument.symbol)


def is_coin_margined(instrument: Instrument) -> bool:
    """Whether a contract is inverse: sized in dollars, with its margin and profit in the coin."""
    return instrument.is_margined and instrument.quote in book(instrument.venue).get("coin_margined_quotes", ())


def in_force(rows: Iterable[Row], on: date) -> Row | None:
    """The latest row in force on a day; a row of the future never counts."""
    return max((row for row in rows if row["effective"] <= on), key=lambda row: row["effective"], default=None)


def in_force_or_before(rows: Iterable[Row], on: date) -> tuple[Row | None, bool]:
    """The row in force, else the earliest one that says ``also_before``; and whether it was in force on that day.

    Only the mark in the file lets a row speak for days before it, so adding a row moves no earlier number.
    """
    rows = list(rows)
    row = in_force(rows, on)
    if row is not None:
        return row, True
    marked = (row for row in rows if row.get("also_before", False))
    return min(marked, key=lambda row: row["effective"], default=None), False


def by_pattern(rows: Iterable[Row], instrument: Instrument) -> list[list[Row]]:
    """An instrument's rows, grouped by the pattern they were written for, the closest pattern first.

    ``perp:okx:BTC-USDT`` comes before ``perp:okx:BTC-*``, and that before ``perp:okx:*``.
    """
    name = str(instrument)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if fnmatchcase(name, row["instrument"]):
            groups.setdefault(row["instrument"], []).append(row)
    return [groups[pattern] for pattern in sorted(groups, key=lambda text: ("*" in text, -len(text), text))]


def closest_in_force(table: str, instrument: Instrument, on: date) -> tuple[Row | None, bool]:
    """The row of a table with the closest pattern that has one for the day, and whether it was in force then."""
    groups = by_pattern(book(instrument.venue).get(table, []), instrument)
    for group in groups:
        row = in_force(group, on)
        if row is not None:
            return row, True
    for group in groups:
        row, _ = in_force_or_before(group, on)
        if row is not None:
            return row, False
    return None, False


def venue_row(table: str, venue: str, on: date, *, what: str, fix: str) -> Row:
    """The row of a table without instruments. Raises ConfigError if the venue has none for the day."""
    row = in_force(book(venue).get(table, []), on)
    if row is None:
        raise ConfigError(f"the rulebook has no {what} for {venue} on {on}", fix=fix)
    return row


def days_of_change(venue: str, table: str, *, after: date, until: date) -> list[date]:
    """The days in ``(after, until]`` on which a row of a table comes into force at a venue's exchange, sorted.

    A run asks for the rows of its first day and once more on each of these.
    """
    rows = (row for name in venues() if exchange(name) == exchange(venue) for row in book(name).get(table, []))
    return sorted({row["effective"] for row in rows if after < row["effective"] <= until})


@cache
def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.toml"), key=lambda file: file.name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def rulebook_hash() -> str:
    """Hash of all venue files, for manifests."""
    return _hash(FOLDER)
