"""The signal a configuration names: which there are, which parameters each takes, and which combos each fits."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Combo
from basis_bt.core.models import SignalSpec
from basis_bt.core.units import US_PER_HOUR, bars_up, parse_hours
from basis_bt.signals.base import Signal
from basis_bt.signals.basis import basis_apr, basis_bps, basis_zscore, dated_leg, undated_leg
from basis_bt.signals.fair_gap import fair_gap
from basis_bt.signals.funding import confirmed, funding_apr, funding_diff, funding_rate_8h, perp_legs
from basis_bt.signals.net import net_apr
from basis_bt.signals.trend import trend_gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a signal is built from: its description, the combo, the step, and one-way costs by leg in bps."""

    spec: SignalSpec
    combo: Combo
    bar_us: int
    one_way_bps: tuple[float, ...]

    def given(self, key: str) -> Any:
        """A parameter of the description; ``build_signal`` has seen to it that it is there."""
        return getattr(self.spec, key)

    def hours(self, key: str) -> float:
        """A duration of the description, which must be above 0."""
        value = self.given(key)
        hours = parse_hours(value)
        if hours <= 0:
            raise ConfigError(f"signal.{key}: must be above 0, found {value!r}", fix="give the length of the window")
        return hours

    def refuse(self, needs: str) -> ConfigError:
        """The error of a combo that lacks what the signal is about."""
        return ConfigError(f"signal.name: {self.spec.name} needs {needs}", fix="change combo.legs")


def _funding_apr(request: Request) -> Signal:
    if not perp_legs(request.combo):
        raise ConfigError("signal.name: funding_apr needs a perp leg", fix="add one to combo.legs")
    hours = request.hours("hours")
    return Signal(expression=funding_apr(request.combo, hours=hours), funding_windows_hours=(hours,), trusted=True)


def _funding_rate_8h(request: Request) -> Signal:
    if not perp_legs(request.combo):
        raise request.refuse("a perp leg")
    return Signal(expression=funding_rate_8h(request.combo), settled_counts=(1,), trusted=True)


def _funding_confirmed(request: Request) -> Signal:
    if len(perp_legs(request.combo)) != 1:
        raise request.refuse("exactly one perp leg")
    n, above, below = (request.given(key) for key in ("n", "above", "below"))
    if above <= below:
        raise ConfigError(
            f"signal.above: must be over signal.below, found {above:g} and {below:g}",
            fix="both are rates per 8 h, e.g. above = 0.00015 and below = 0.0",
        )
    expression = confirmed(request.combo, n=n, above=above, below=below)
    return Signal(expression=expression, settled_counts=(n,), trusted=True)


def _funding_diff(request: Request) -> Signal:
    legs = [request.combo.legs[leg] for leg in perp_legs(request.combo)]
    if len(legs) != 2 or legs[0].ratio * legs[1].ratio > 0:
        raise request.refuse("two perp legs, one long and one short")
    look = request.given("look")
    return Signal(expression=funding_diff(request.combo, look=look), settled_counts=(look,), trusted=True)


def _two_sided(request: Request) -> None:
    ratios = [leg.ratio for leg in request.combo.legs]
    if min(ratios) > 0 or max(ratios) < 0:
        raise ConfigError(
            f"signal.name: {request.spec.name} needs a long and a short leg", fix="see the signs in combo.legs"
        )


def _basis_bps(request: Request) -> Signal:
    _two_sided(request)
    return Signal(expression=basis_bps(request.combo), trusted=True)


def _basis_zscore(request: Request) -> Signal:
    _two_sided(request)
    hours = request.hours("hours")
    n_bars = bars_up(hours, bar_us=request.bar_us)
    expression = basis_zscore(request.combo, hours=hours, n_bars=n_bars)
    return Signal(expression=expression, warmup_hours=hours, trusted=True)


def _basis_apr(request: Request) -> Signal:
    if dated_leg(request.combo) is None or undated_leg(request.combo) is None:
        raise request.refuse("a dated future and a leg that is none")
    return Signal(expression=basis_apr(request.combo), trusted=True)


def _net_apr(request: Request) -> Signal:
    is_dated = dated_leg(request.combo) is not None
    if is_dated == (request.spec.hours is not None):
        raise ConfigError(
            "signal.hours: net_apr " + ("of a dated future takes no hours" if is_dated else "of funding needs hours"),
            fix="see docs/semantics.md",
        )
    income = _basis_apr(request) if is_dated else _funding_apr(request)
    unit = abs(request.combo.legs[dated_leg(request.combo) or 0].ratio) if is_dated else 1.0
    expression = net_apr(
        income.expression,
        request.combo,
        one_way_bps=request.one_way_bps,
        hold_hours=request.hours("hold_hours"),
        per_base=unit,
    )
    return Signal(expression=expression, funding_windows_hours=income.funding_windows_hours, trusted=True)


def _trend_gate(request: Request) -> Signal:
    if len(perp_legs(request.combo)) != 1:
        raise request.refuse("exactly one perp leg")
    n, days = request.given("n"), request.given("days")
    return Signal(
        expression=trend_gate(request.combo, n=n, days=days, bar_us=request.bar_us),
        warmup_hours=(days + 1) * 24.0 + n * request.bar_us / US_PER_HOUR,
        settled_counts=(1,),
        trusted=True,
    )


def _fair_gap(request: Request) -> Signal:
    kinds = [instrument.kind for instrument in request.combo.instruments]
    if kinds.count("perp") != 1 or "spot" not in kinds:
        raise request.refuse("one perp leg and a spot leg")
    return Signal(expression=fair_gap(request.combo, interest_apr=request.given("interest_apr")), trusted=True)


def _sql(request: Request) -> Signal:
    try:
        expression = pl.sql_expr(request.spec.sql or "")
    except Exception as error:
        raise ConfigError(f"signal.sql: {error}", fix="write one expression, e.g. close_1 / close_0 - 1") from None
    return Signal(expression=expression, warmup_hours=parse_hours(request.spec.warmup_hours))


@dataclass(frozen=True, slots=True)
class _Entry:
    """How a signal is built, the parameters it needs, and those it may have."""

    build: Callable[[Request], Signal]
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


_SIGNALS = {
    "funding_apr": _Entry(_funding_apr, ("hours",)),
    "funding_rate_8h": _Entry(_funding_rate_8h),
    "funding_confirmed": _Entry(_funding_confirmed, ("n", "above", "below")),
    "funding_diff": _Entry(_funding_diff, ("look",)),
    "basis_bps": _Entry(_basis_bps),
    "basis_zscore": _Entry(_basis_zscore, ("hours",)),
    "basis_apr": _Entry(_basis_apr),
    "net_apr": _Entry(_net_apr, ("hold_hours",), ("hours",)),
    "fair_gap": _Entry(_fair_gap, ("interest_apr",)),
    "trend_gate": _Entry(_trend_gate, ("n", "days")),
    "sql": _Entry(_sql, ("sql",), ("warmup_hours",)),
}
NAMES = tuple(_SIGNALS)
PARAMETERS = ("hours", "hold_hours", "n", "days", "look", "above", "below", "interest_apr", "sql", "warmup_hours")


def build_signal(spec: SignalSpec, combo: Combo, *, bar_us: int, one_way_bps: Sequence[float] | None = None) -> Signal:
    """The signal a configuration names.

    Parameters
    ----------
    spec, combo : the description, and the legs it is about
    bar_us : step of the run in microseconds
    one_way_bps : half spread and fee of each leg in bps, for ``net_apr``; none: trading is free

    Raises
    ------
    ConfigError
        If there is no such signal, a parameter is missing or superfluous, or it does not fit the combo.
    """
    entry = _SIGNALS.get(spec.name)
    if entry is None:
        near = difflib.get_close_matches(spec.name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(NAMES)}"
        raise ConfigError(
            f"signal.name: no signal is called {spec.name!r}; {hint}", fix="name a built-in signal, or sql"
        )
    for key in PARAMETERS:
        given = _is_given(getattr(spec, key), key)
        if given != (key in entry.needs) and key not in entry.may:
            verb = "takes no" if given else "needs"
            raise ConfigError(f"signal.{key}: {spec.name} {verb} {key}", fix="see docs/configuration.md")
    costs = tuple(one_way_bps) if one_way_bps is not None else (0.0,) * len(combo.legs)
    return entry.build(Request(spec=spec, combo=combo, bar_us=bar_us, one_way_bps=costs))


def _is_given(value: Any, key: str) -> bool:
    return parse_hours(value) > 0 if key == "warmup_hours" else value is not None
