"""Maintenance margin by venue tiers, in US dollars of notional."""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument
from basis_bt.core.rules.rows import Row, book, by_pattern, closest_in_force, exchange, home, in_force_or_before, venues
from basis_bt.core.rules.terms import contract_size

REFERENCE_USD = 1e6  # the notional at which tier sets are compared when the most conservative one is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginTiers:
    """Tiers of one instrument: above ``floor_usd[k]`` the maintenance is ``notional * mmr[k] - amount_usd[k]``.

    The floors begin with 0 and rise; a notional equal to a floor is still in the tier below. Quote currency counts as
    dollars. ``cap_usd`` is where the last tier ends (``inf``: it does not, or the end is not known in dollars).
    ``known`` says the instrument itself is listed, ``dated`` that a row was in force on the day; ``flag`` is the
    sentence for a manifest where one of them is not, else empty.
    """

    floor_usd: tuple[float, ...]
    mmr: tuple[float, ...]
    amount_usd: tuple[float, ...]
    max_leverage: tuple[float, ...]
    cap_usd: float
    effective: date
    source: str
    known: bool
    dated: bool
    flag: str

    def maintenance_usd(self, notional_usd: float) -> float:
        """The margin a position of this notional (at the price being tested) must keep."""
        tier = max(bisect_left(self.floor_usd, notional_usd) - 1, 0)
        return notional_usd * self.mmr[tier] - self.amount_usd[tier]


def margin_tiers(instrument: Instrument, *, on: date, price_usd: float | None = None) -> MarginTiers:
    """The tiers of a perp or dated future in force on a day.

    The set is that of the instrument in force on the day; without one that old, the set marked in the file as standing
    for earlier days. Where the instrument is not listed, the most conservative set of the same exchange stands in: the
    one with the largest maintenance of a million dollars; for a perp, of the same coin's perps if there are any.

    Sets in contracts are converted with the contract size, and for contracts of coin with ``price_usd``. Without a
    price such a set becomes one tier at its highest rate, the safe side; a single tier is exact either way.

    Raises
    ------
    ConfigError
        If nothing is listed for the whole exchange.
    """
    own = home(instrument)
    row, dated = closest_in_force("margin", own, on)
    if row is not None:
        oldest = f"the margin tiers of {instrument} on {on} are those of {row['effective']}, the oldest known"
        flag = "" if dated else oldest
        return _tiers(row, own, on=on, price_usd=price_usd, known=True, dated=dated, flag=flag)
    candidates = {name: (row, dated) for name, row, dated in _listed(exchange(own.venue), on)}
    if not candidates:
        raise ConfigError(
            f"the rulebook has no margin tiers for {instrument} nor for anything else of {exchange(own.venue)}",
            fix="give the maintenance margin rate yourself, or trade the pair in a pooled wallet without a margin test",
        )
    sets = {
        name: _tiers(row, own, on=on, price_usd=None, known=False, dated=dated, flag="")
        for name, (row, dated) in candidates.items()
    }
    name = _nearest(own, sets)
    row, dated = candidates[name]
    flag = f"the rulebook lists no margin tiers for {instrument}: those of {name} are used"
    return _tiers(row, own, on=on, price_usd=None, known=False, dated=dated, flag=flag)


def _listed(company: str, on: date) -> Iterator[tuple[str, Row, bool]]:
    """Every listed name of an exchange that has a set for the day, with it."""
    for venue in venues():
        if exchange(venue) != company:
            continue
        rows = book(venue).get("margin", [])
        for name in sorted({row["instrument"] for row in rows}):
            row, dated = in_force_or_before((row for row in rows if row["instrument"] == name), on)
            if row is not None:
                yield name, row, dated


def _nearest(instrument: Instrument, sets: dict[str, MarginTiers]) -> str:
    """Name of the set that stands in: the same coin's perp for a perp, else the most conservative."""
    same_coin = [name for name in sets if name.startswith("perp:") and _base(name) == instrument.base]
    names = same_coin if instrument.kind == "perp" and same_coin else list(sets)
    return max(sorted(names), key=lambda name: sets[name].maintenance_usd(REFERENCE_USD))


def _base(name: str) -> str:
    return name.rpartition(":")[2].partition("-")[0]


def _tiers(
    row: Row, instrument: Instrument, *, on: date, price_usd: float | None, known: bool, dated: bool, flag: str
) -> MarginTiers:
    """A row as tiers in dollars."""
    floor, cap, mmr, amount, leverage = (tuple(map(float, column)) for column in zip(*row["tiers"], strict=True))
    scale: float | None = 1.0
    if row["unit"] == "contracts":
        contract = contract_size(_named(row, instrument), on=on)
        per_contract = price_usd if contract.unit == "base" else 1.0
        scale = contract.size * per_contract if contract.known and per_contract is not None else None
    if scale is None:
        floor, mmr, amount, leverage = (0.0,), (max(mmr),), (0.0,), (min(leverage),)
    return MarginTiers(
        floor_usd=floor if scale is None else tuple(value * scale for value in floor),
        mmr=mmr,
        amount_usd=amount,
        max_leverage=leverage,
        cap_usd=math.inf if scale is None else cap[-1] * scale,
        effective=row["effective"],
        source=row["source"],
        known=known,
        dated=dated,
        flag=flag,
    )


def _named(row: Row, instrument: Instrument) -> Instrument:
    """The instrument a row was written for, whose contract size counts: the one asked for if it matches the row."""
    if by_pattern([row], instrument):
        return instrument
    kind, venue, symbol = row["instrument"].split(":")
    return Instrument(kind, venue, symbol)
