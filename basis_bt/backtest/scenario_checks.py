"""What a scenario may name, and what it has to meet, so that none is carried out on nothing."""

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import Instrument, Leg
from basis_bt.core.models import Config
from basis_bt.core.scenarios import Scenario
from basis_bt.core.units import from_us, parse_instant, to_us
from basis_bt.frames.panel import Panel

PRICED = ("spot", "perp", "future")


def check_scenarios(config: Config) -> None:
    """Refuse scenarios that cannot touch the run: another time, instrument, venue, coin or currency than its own.

    Raises
    ------
    ConfigError
        Naming the scenario, what it named, and what the run has.
    """
    legs, start, end = config.combo.legs, parse_instant(config.data.start), parse_instant(config.data.end)
    instruments = [leg.parsed for leg in legs]
    for index, scenario in enumerate(config.scenarios):
        if not to_us(start) <= scenario.start_us < to_us(end):
            raise _refusal(
                scenario, index, "start", f"{scenario.start} is not in the run",
                fix=f"choose a time from {start.isoformat()} to before {end.isoformat()}",
            )  # fmt: skip
        _check_named(scenario, index, "instrument", scenario.instruments, [leg.instrument for leg in legs])
        _check_named(scenario, index, "venue", [scenario.venue], [leg.venue for leg in instruments])
        _check_named(scenario, index, "quote", [scenario.quote], [leg.quote for leg in instruments if leg.quote])
        _check_named(scenario, index, "coin", scenario.coins, [_coin(leg) for leg in legs])
        _check_kinds(scenario, index, instruments)
        if scenario.kind == "transfer_halt" and config.wallets.mode == "pooled":
            raise _refusal(
                scenario, index, "kind", "one wallet has nothing to transfer", fix='set wallets.mode = "segregated"'
            )


def check_bars(panel: Panel, config: Config) -> None:
    """Refuse scenarios that meet nothing in the bars that the run turned out to have.

    Raises
    ------
    ConfigError
        If one begins where the run has no bar, or meets no settlement or no bar that it could change.
    """
    first_us, end_us = int(panel.ts_us[0]), int(panel.ts_us[-1]) + panel.bar_us
    for index, scenario in enumerate(config.scenarios):
        if not first_us <= scenario.start_us < end_us:
            raise _refusal(
                scenario, index, "start", f"{scenario.start} is not in the bars of the run",
                fix=f"choose a time from {from_us(first_us).isoformat()} to before {from_us(end_us).isoformat()}",
            )  # fmt: skip
        if scenario.kind == "funding_spike" and not any(
            _settles(panel, leg, scenario) for leg in panel.settlements if _names(scenario, panel.instruments[leg])
        ):
            raise _refusal(scenario, index, "end", "no settlement of the run lies in it", fix="choose a longer span")
        if scenario.kind == "outage" and not bars_within(panel, scenario).any():
            raise _refusal(scenario, index, "end", "no bar opens within it", fix="choose a longer span")


def bars_within(panel: Panel, scenario: Scenario) -> np.ndarray:
    """Mask of the bars whose stamp lies in ``[start, end)`` of a scenario that ends."""
    assert scenario.end_us is not None
    return (panel.ts_us >= scenario.start_us) & (panel.ts_us < scenario.end_us)


def _check_named(scenario: Scenario, index: int, key: str, named: list[str | None] | list[str], own: list[str]) -> None:
    for name in named:
        if name is not None and name not in own:
            raise _refusal(
                scenario, index, key, f"the run has nothing of {name!r}", fix=f"use {', '.join(dict.fromkeys(own))}"
            )


def _check_kinds(scenario: Scenario, index: int, instruments: list[Instrument]) -> None:
    """Each kind of scenario happens to some kinds of instrument only."""
    if scenario.kind == "depeg" and scenario.quote == "USD":
        raise _refusal(scenario, index, "quote", "everything is counted in USD", fix="name another currency")
    may_hit = {
        "adl": lambda leg: leg.is_margined,
        "funding_spike": lambda leg: leg.is_perp,
        "price_path": lambda leg: leg.kind in PRICED,
    }.get(scenario.kind, lambda leg: True)
    for name in scenario.instruments:
        if not may_hit(Instrument.parse(name)):
            raise _refusal(
                scenario, index, "instrument", f"{name} knows no {scenario.kind}",
                fix="name the coin" if scenario.kind == "price_path" else "name a leg that has one",
            )  # fmt: skip
    with_perps = {leg.venue for leg in instruments if leg.is_perp}
    if scenario.kind == "funding_spike" and not {scenario.venue} <= with_perps | {None}:
        raise _refusal(scenario, index, "venue", f"the run has no perp on {scenario.venue}", fix="name another")


def _refusal(scenario: Scenario, index: int, key: str, what: str, *, fix: str) -> ConfigError:
    return ConfigError(
        f"scenario {scenario.kind}: {what}", where={"key": f"scenarios.{index}.{key}", "start": scenario.start}, fix=fix
    )


def _coin(leg: Leg) -> str:
    """The coin whose price a leg has: that of its spot instrument for a staked or lent one that names it."""
    return leg.parsed.base if leg.price is None else Instrument.parse(leg.price).base


def _names(scenario: Scenario, leg: Instrument) -> bool:
    return leg.venue == scenario.venue or str(leg) in scenario.instruments


def _settles(panel: Panel, leg: int, scenario: Scenario) -> bool:
    at_us = panel.settlements[leg].raw_us
    inside = (at_us >= scenario.start_us) & (at_us < (scenario.end_us or 0))
    return bool((inside & (at_us < panel.ts_us[-1] + panel.bar_us)).any())
