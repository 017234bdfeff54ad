"""Instruments, legs and combos."""

import math
import re
from dataclasses import dataclass, field

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
KINDS = ("spot", "perp")  # what a leg can be
MARKET_KINDS = (*KINDS, "future")  # what market data can be about
_VENUE = re.compile(r"^[a-z][a-z0-9_]*$")
_SYMBOL = re.compile(r"^[A-Za-z0-9]+-[A-Za-z0-9]+$")
_DATED = re.compile(r"^[A-Za-z0-9]+-[A-Za-z0-9]+-20[0-9]{6}$")


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded, written ``kind:venue:BASE-QUOTE``; a ``future`` has its expiry too: ``BASE-QUOTE-YYYYMMDD``."""

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
        if kind not in MARKET_KINDS:
            raise ValueError(f"{text!r}: kind {kind!r} is not one of {', '.join(MARKET_KINDS)}")
        if not _VENUE.match(venue):
            raise ValueError(f"{text!r}: venue {venue!r} is not a lower-case name")
        if not (_DATED if kind == "future" else _SYMBOL).match(symbol):
            form = "BASE-QUOTE-YYYYMMDD" if kind == "future" else "BASE-QUOTE"
            raise ValueError(f"{text!r}: symbol {symbol!r} is not {form}")
        return cls(kind, venue, symbol)

    def __str__(self) -> str:
        return f"{self.kind}:{self.venue}:{self.symbol}"

    @property
    def is_perp(self) -> bool:
        """Whether the instrument is margined and pays funding."""
        return self.kind == "perp"

    @property
    def base(self) -> str:
        """The coin: what is left of the first dash."""
        return self.symbol.partition("-")[0]

    def path(self, series: str) -> str:
        """Path of one of its series (``spot``, ``perp``, ``mark``, ``funding``, ...) in a market folder."""
        return f"{series}/{self.venue}/{self.symbol}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One instrument of a combo, with its signed ratio in base units per unit of combo."""

    __pydantic_config__ = STRICT

    instrument: str
    ratio: float

    def __post_init__(self) -> None:
        kind = self.instrument.partition(":")[0]
        if kind in MARKET_KINDS and kind not in KINDS:
            raise ValueError(f"{self.instrument!r}: kind {kind!r} is not one of {', '.join(KINDS)}")
        Instrument.parse(self.instrument)
        if not math.isfinite(self.ratio) or self.ratio == 0:
            raise ValueError(f"ratio of {self.instrument} must be a finite number other than 0, found {self.ratio}")

    @property
    def parsed(self) -> Instrument:
        """The instrument as a value."""
        return Instrument.parse(self.instrument)


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
        """Index of the leg whose price is S of the attribution: the first spot leg, else the first leg."""
        kinds = [instrument.kind for instrument in self.instruments]
        return kinds.index("spot") if "spot" in kinds else 0
