"""Facts of the venues: fees, lots, minimum notionals, each row with its source, the date read and the date in force."""

import hashlib
import tomllib
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument


@cache
def _venue(name: str) -> dict[str, Any]:
    file = files("basis_bt.core") / "venues" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _row_in_force(rows: list[dict[str, Any]], on: date) -> dict[str, Any] | None:
    """The latest row in force on a day; a row of the future never counts."""
    return max((row for row in rows if row["effective"] <= on), key=lambda row: row["effective"], default=None)


def fee_bps(instrument: Instrument, *, liquidity: str, on: date) -> float:
    """The base tier's fee of an instrument in bps.

    Raises
    ------
    ConfigError
        If the rulebook has no row for the venue and kind.
    """
    rows = [row for row in _venue(instrument.venue).get("fees", []) if row["kind"] == instrument.kind]
    row = _row_in_force(rows, on)
    if row is None:
        raise ConfigError(
            f"the rulebook has no {instrument.kind} fee for {instrument.venue}",
            fix=f'set costs.{liquidity}_fee_bps for "{instrument}"',
        )
    return float(row[f"{liquidity}_bps"])


def lot_and_minimum(instrument: Instrument, *, on: date) -> tuple[float, float] | None:
    """Lot in base units and minimum notional in USD, or None where the rulebook does not know the instrument."""
    rows = [row for row in _venue(instrument.venue).get("lots", []) if row["instrument"] == str(instrument)]
    row = _row_in_force(rows, on)
    return None if row is None else (float(row["lot_base"]), float(row["min_notional_usd"]))


@cache
def rulebook_hash() -> str:
    """Hash of all venue files, for manifests."""
    folder = files("basis_bt.core") / "venues"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
