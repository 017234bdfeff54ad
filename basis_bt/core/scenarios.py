"""Dated events that a configuration replays onto its run, and what each kind of them takes."""

import math
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from basis_bt.core.instruments import STRICT, Instrument
from basis_bt.core.units import parse_instant, to_us

#: kind -> keys it needs, keys of which it takes exactly one, keys it may have
TAKES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "adl": (("instrument", "share"), (), ()),
    "outage": (("venue", "end"), (), ()),
    "transfer_halt": (("end",), (), ()),
    "depeg": (("quote", "factor"), (), ("end", "recover")),
    "funding_spike": (("end",), (("instrument", "venue"), ("rate", "add", "factor")), ()),
    "price_path": (("end", "factor"), (("coin", "instrument"),), ("recover",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One event from ``start`` on, to ``end`` where it ends.

    ``adl``: the venue closes ``share`` of ``instrument`` in the bar that holds ``start``. ``outage``: nothing of
    ``venue`` can be traded; its prices go on. ``transfer_halt``: no transfer leaves. ``depeg``: a unit of ``quote`` is
    worth ``factor`` of what it was; with ``recover`` it climbs back to all of it until ``end``. ``funding_spike``:
    settlements of ``instrument`` or ``venue`` are at ``rate``, or changed by ``add`` or ``factor``. ``price_path``: the
    prices of ``coin`` or ``instrument`` are multiplied by a straight path from 1 to ``factor`` at ``end``, where it
    stays; with ``recover`` it is at ``factor`` halfway and back at 1 at ``end``.
    """

    __pydantic_config__ = STRICT

    kind: Literal["adl", "outage", "transfer_halt", "depeg", "funding_spike", "price_path"]
    start: str | datetime
    end: str | datetime | None = None
    instrument: str | list[str] | None = None
    venue: str | None = None
    coin: str | list[str] | None = None
    quote: str | None = None
    share: float | None = None
    factor: float | None = None
    rate: float | None = None
    add: float | None = None
    recover: bool = False

    def __post_init__(self) -> None:
        self._check_keys()
        if self.end is not None and parse_instant(self.start) >= parse_instant(self.end):
            raise ValueError(f"a scenario ends after its start, found {self.start} and {self.end}")
        parse_instant(self.start)
        for name in self.instruments:
            Instrument.parse(name)
        if self.recover and self.end is None:
            raise ValueError("recover needs an end to recover by")
        self._check("share", low=0.0, high=1.0)
        if self.kind == "funding_spike":
            self._check("factor", low=-1e3, high=1e3)
        else:
            self._check("factor", low=0.0, high=1e3)
        self._check("rate", low=-1.0, high=1.0)
        self._check("add", low=-1.0, high=1.0)

    def _check_keys(self) -> None:
        needed, choices, optional = TAKES[self.kind]
        taken = {"kind", "start", *needed, *(name for choice in choices for name in choice), *optional}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name for name, value in values.items() if value is not None and value is not False and value != []}
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"a scenario of kind {self.kind} needs {' and '.join(missing)}")
        for choice in choices:
            if len(given & set(choice)) != 1:
                found = ", ".join(sorted(given & set(choice))) or "none"
                raise ValueError(f"a scenario of kind {self.kind} takes one of {', '.join(choice)}, found {found}")
        if given - taken:
            unused = ", ".join(sorted(given - taken))
            allowed = ", ".join(sorted(taken))
            raise ValueError(f"a scenario of kind {self.kind} does not take {unused}; it takes {allowed}")

    def _check(self, name: str, *, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high and (value > 0.0 or low < 0.0)):
            bound = "above 0" if low == 0.0 else f"at least {low:g}"
            raise ValueError(f"{name} of kind {self.kind} must be {bound} and at most {high:g}, found {value!r}")

    @property
    def start_us(self) -> int:
        """Start in epoch microseconds."""
        return to_us(parse_instant(self.start))

    @property
    def end_us(self) -> int | None:
        """End in epoch microseconds; None for what does not end."""
        return None if self.end is None else to_us(parse_instant(self.end))

    @property
    def instruments(self) -> list[str]:
        """The instruments it names, none or more."""
        return _listed(self.instrument)

    @property
    def coins(self) -> list[str]:
        """The coins it names, none or more."""
        return _listed(self.coin)


def _listed(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value
