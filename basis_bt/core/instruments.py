"""Instruments, legs and combos."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
KINDS = ("spot", "perp", "future", "lst", "lending")
MARGINED = ("perp", "future")
ON_CHAIN = ("lst", "lending")
_VENUE = re.compile(r"^[a-z][a-z0-9_]*$")
_SYMBOL = re.compile(r"^[A-Za-z0-9]+-[A-Za-z0-9]+$")
_DATED = re.compile(r"^[A-Za-z0-9]+-[A-Za-z0-9]+(-20[0-9]{6})?$")
_COIN = re.compile(r"^[A-Za-z0-9]+$")
_FORMS = {
    "spot": (_SYMBOL, "BASE-QUOTE"),
    "perp": (_SYMBOL, "BASE-QUOTE"),
    "future": (_DATED, "BASE-QUOTE-YYYYMMDD, or BASE-QUOTE for the chain of all of them"),
    "lst": (_SYMBOL, "TOKEN-COIN"),
    "lending": (_COIN, "COIN"),
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded, written ``kind:venue:BASE-QUOTE``.

    A ``future`` has its expiry too (``BASE-QUOTE-YYYYMMDD``), or none for the chain of all contracts; an ``lst`` is a
    staking token and the coin it redeems for (``wstETH-ETH``), ``lending`` a coin in a protocol (``WETH``).
    """

    kind: str
    venue: str
    symbol: str

    @classmethod
    def parse(cls, text: str) -> "Instrument":
        """Read ``"perp:bybit:ETH-USDT"``; a ValueError says which part is wrong."""
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f"{text!r} is no instrument; write kind:venue:BASE-QUOTE, e.g. perp:binance:BTC-USDT")
        kind, venue, symbol = parts
        if kind not in KINDS:
            raise ValueError(f"{text!r}: kind {kind!r} is not one of {', '.join(KINDS)}")
        if not _VENUE.match(venue):
            raise ValueError(f"{text!r}: venue {venue!r} is not a lower-case name")
        pattern, form = _FORMS[kind]
        if not pattern.match(symbol):
            raise ValueError(f"{text!r}: symbol {symbol!r} is not {form}")
        if kind == "future" and symbol.count("-") == 2:
            try:
                datetime.strptime(symbol[-8:], "%Y%m%d")
            except ValueError:
                raise ValueError(f"{text!r}: {symbol[-8:]} is no day") from None
        return cls(kind, venue, symbol)

    def __str__(self) -> str:
        return f"{self.kind}:{self.venue}:{self.symbol}"

    @property
    def is_perp(self) -> bool:
        """Whether the instrument pays funding."""
        return self.kind == "perp"

    @property
    def is_margined(self) -> bool:
        """Whether the instrument is a contract held on margin."""
        return self.kind in MARGINED

    @property
    def is_chain(self) -> bool:
        """Whether it stands for all dated futures of a pair, one after the other."""
        return self.kind == "future" and self.symbol.count("-") == 1

    @property
    def base(self) -> str:
        """The coin: what is left of the first dash."""
        return self.symbol.partition("-")[0]

    @property
    def quote(self) -> str:
        """The currency of its prices; empty for a coin in a lending protocol, whose prices are dollars."""
        return (self.symbol.split("-") + [""])[1]

    def path(self, series: str) -> str:
        """Path of one of its series (``spot``, ``perp``, ``mark``, ``funding``, ...) in a market folder."""
        return f"{series}/{self.venue}/{self.symbol}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One instrument of a combo, with its signed ratio in base units per unit of combo.

    A chain of dated futures is rolled at ``roll_days`` before each expiry, or when its annualised basis is at or under
    ``roll_basis_apr``. ``price`` names the spot instrument whose price a coin staked or lent has; without it a
    ``lending`` leg has the price of the protocol's oracle.
    """

    __pydantic_config__ = STRICT

    instrument: str
    ratio: float
    roll_days: float = 5.0
    roll_basis_apr: float | None = None
    price: str | None = None

    def __post_init__(self) -> None:
        instrument = Instrument.parse(self.instrument)
        if not math.isfinite(self.roll_days) or self.roll_days < 0:
            raise ValueError(f"roll_days of {self.instrument} must be at least 0, found {self.roll_days}")
        if not instrument.is_chain and (self.roll_days != 5.0 or self.roll_basis_apr is not None):
            raise ValueError(f"{self.instrument} is no chain of futures and does not roll: leave roll_days out")
        if self.roll_basis_apr is not None and not math.isfinite(self.roll_basis_apr):
            raise ValueError(f"roll_basis_apr of {self.instrument} must be finite, found {self.roll_basis_apr}")
        if self.price is not None and (instrument.kind not in ON_CHAIN or Instrument.parse(self.price).kind != "spot"):
            raise ValueError(f"price of {self.instrument} must be a spot instrument, of an lst or lending leg")
        if instrument.kind == "lst" and self.price is None:
            raise ValueError(f"{self.instrument} needs the price of its coin, e.g. price = \"spot:binance:ETH-USDT\"")
        if instrument.kind == "lst" and self.ratio < 0:
            raise ValueError(f"{self.instrument} can only be held, found ratio {self.ratio}")
        if not math.isfinite(self.ratio) or self.ratio == 0:
            raise ValueError(f"ratio of {self.instrument} must be a finite number other than 0, found {self.ratio}")

    @property
    def parsed(self) -> Instrument:
        """The instrument as a value."""
        return Instrument.parse(self.instrument)

    @property
    def priced_by(self) -> Instrument:
        """The instrument whose price the leg has: itself, or the spot instrument named."""
        return Instrument.parse(self.instrument if self.price is None else self.price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combo:
    """The legs that are traded together, in the order they are booked."""

    __pydantic_config__ = STRICT

    legs: list[Leg] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [leg.instrument for leg in self.legs]
        if len(names) < 2:
            raise ValueError(f"a combo has two legs or more, found {len(names)}")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"an instrument stands once in a combo; found twice: {', '.join(sorted(twice))}")

    @property
    def instruments(self) -> list[Instrument]:
        """The instruments of the legs, in order."""
        return [leg.parsed for leg in self.legs]

    @property
    def reference(self) -> int:
        """Index of the leg whose price is S of the attribution: the first spot leg, else the first that is no chain.

        A chain's price jumps where it rolls; it is the reference only where every leg is one.
        """
        ranks = [(one.kind != "spot", one.is_chain) for one in self.instruments]
        return ranks.index(min(ranks))


def leg_texts(legs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The legs of a combo's table, each as ``+1 spot:binance:BTC-USDT``."""
    return [f"{leg['ratio']:+g} {leg['instrument']}" for leg in legs]
