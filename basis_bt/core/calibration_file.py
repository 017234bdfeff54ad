"""A calibration file: costs that were measured on fills, and how a configuration takes them over.

A TOML file with ``format``, a table ``[measured]`` (window, samples, journals, how), ``[costs]`` and ``[fills]`` with
one table a quantity and one value an instrument, and ``sha256`` of all that: a file that was cut or edited is no
measurement and is refused. ``live/calibration.py`` makes it.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import STRICT, Instrument

FORMAT = 1
#: of ``[costs]``, by instrument; ``impact_exponent`` beside them is one number for all, as it is in a configuration
COST_KEYS = ("half_spread_bps", "taker_fee_bps", "maker_fee_bps", "impact_coef_bps")
EXPONENT = "impact_exponent"
#: of ``[fills]``, by instrument
FILL_KEYS = ("fill_probability", "latency_s")
SECTIONS = ("measured", "costs", "fills")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The calibration file whose values a configuration has taken over already; it is not read again.

    A manifest has it instead of the bare path, so that its configuration gives the same run when the file has gone.
    """

    __pydantic_config__ = STRICT

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a calibration file says. ``costs`` and ``fills`` are by key, then by instrument."""

    path: str
    sha256: str
    measured: Mapping[str, Any]
    costs: Mapping[str, Mapping[str, float]]
    fills: Mapping[str, Mapping[str, float]]
    impact_exponent: float | None

    def instruments(self) -> set[str]:
        """Every instrument that a cost was measured of."""
        return {instrument for rows in self.costs.values() for instrument in rows}


def content_hash(sections: Mapping[str, Any]) -> str:
    """The sha256 of what a file says, whatever its layout."""
    told = {name: sections.get(name, {}) for name in SECTIONS}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file and check all of it.

    Raises
    ------
    ConfigError
        If it cannot be read, is no calibration file or one of a later version, has a key that is not known or a value
        that is no number, or is not what was written.
    """
    where = {"file": path}
    again = "make it again: basis-bt calibrate"
    try:
        content = Path(path).read_bytes()
        raw = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the calibration: {error.strerror}", where=where, fix="check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the calibration is no TOML: {error}", where=where, fix=again) from None
    if raw.get("format") != FORMAT or not isinstance(raw.get("costs"), dict):
        raise ConfigError(
            f"this is no calibration file of format {FORMAT}, found format = {raw.get('format')!r}",
            where=where,
            fix=again,
        )
    _check_keys(raw, ("format", "sha256", *SECTIONS), "", where)
    _check_keys(raw["costs"], (*COST_KEYS, EXPONENT), "costs.", where)
    _check_keys(raw.get("fills", {}), FILL_KEYS, "fills.", where)
    costs = {key: _rows(raw["costs"][key], f"costs.{key}", where) for key in COST_KEYS if key in raw["costs"]}
    fills = {key: _rows(rows, f"fills.{key}", where) for key, rows in raw.get("fills", {}).items()}
    exponent = raw["costs"].get(EXPONENT)
    if exponent is not None:
        exponent = _number(exponent, f"costs.{EXPONENT}", where)
    if raw.get("sha256") != content_hash(raw):
        raise ConfigError(
            "the calibration is not what was written: it was cut or edited",
            where=where,
            fix=f"{again}; costs of your own go into [costs] of the configuration",
        )
    return Calibration(
        path=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        measured=raw.get("measured", {}),
        costs=costs,
        fills=fills,
        impact_exponent=exponent,
    )


def _check_keys(table: Any, known: Sequence[str], prefix: str, where: Mapping[str, Any]) -> None:
    unknown = [str(key) for key in table if key not in known] if isinstance(table, dict) else [prefix.rstrip(".")]
    if unknown:
        raise ConfigError(
            f"{prefix}{unknown[0]}: unknown key of a calibration", where=where, fix=f"it has {', '.join(known)}"
        )


def _rows(rows: Any, key: str, where: Mapping[str, Any]) -> dict[str, float]:
    if not isinstance(rows, dict):
        raise ConfigError(f"{key}: must be a table by instrument, found {rows!r}", where=where, fix="make it again")
    for instrument in rows:
        try:
            Instrument.parse(instrument)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}", where=where, fix="make it again") from None
    return {instrument: _number(value, f"{key}.{instrument}", where) for instrument, value in rows.items()}


def _number(value: Any, key: str, where: Mapping[str, Any]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{key}: must be a finite number, found {value!r}", where=where, fix="make it again")
    return float(value)


def with_calibration(raw: Mapping[str, Any], combos: Iterable[Sequence[str]] | None = None) -> dict[str, Any]:
    """Tables with the calibration they name taken over; those that name none, or took it over before, as they are.

    What was measured of the instruments traded replaces what is configured for them; all others keep their values. A
    number becomes a table by kind with rows for these instruments. ``fills.fill_probability`` is replaced where
    ``fills.model`` is ``bernoulli``, by that of the leg that fills least. ``fills.latency`` is not: it is counted in
    bars, upward, and would make an hour of a third of a second.

    Parameters
    ----------
    raw : the configuration as read
    combos : instruments of each combo, where they are not the legs of ``[combo]`` (a sweep over combos)

    Raises
    ------
    ConfigError
        As ``read_calibration``; if a combo has no leg that was measured, if a value that was measured is swept, or if
        costs would be counted twice (bucket tables are all-in, and so are spread and impact together).
    """
    if not isinstance(raw.get("calibration"), str):
        return dict(raw)
    each = [list(one) for one in ([_instruments(raw.get("combo"))] if combos is None else combos)]
    if not all(each):
        return dict(raw)  # the combo itself is wrong, and the check of the whole says how
    calibration = read_calibration(raw["calibration"])
    known = calibration.instruments()
    for instruments in each:
        if not known & set(instruments):
            raise ConfigError(
                f"the calibration measured none of {', '.join(instruments)}",
                where={"file": calibration.path},
                fix=f"it has {', '.join(sorted(known)) or 'no instrument'}: take it out, or one that fits",
            )
    traded = list(dict.fromkeys(one for instruments in each for one in instruments))
    out = {**raw, "costs": _costs(raw.get("costs", {}), calibration, traded)}
    fills = raw.get("fills", {})
    if isinstance(fills, Mapping) and fills.get("model") == "bernoulli":
        measured = [value for one, value in calibration.fills.get("fill_probability", {}).items() if one in traded]
        if measured:
            _refuse_swept(fills, "fill_probability", section="fills")
            out["fills"] = {**fills, "fill_probability": min(measured)}
    return {**out, "calibration": {"path": calibration.path, "sha256": calibration.sha256}}


def _instruments(combo: Any) -> list[str]:
    legs = combo.get("legs") if isinstance(combo, Mapping) else None
    names = [str(leg.get("instrument")) for leg in legs if isinstance(leg, Mapping)] if isinstance(legs, list) else []
    return names if all(name.count(":") == 2 for name in names) else []


def _costs(costs: Any, calibration: Calibration, traded: Sequence[str]) -> Any:
    if not isinstance(costs, Mapping):
        return costs
    out = dict(costs)
    kinds = list(dict.fromkeys(one.split(":")[0] for one in traded))
    for key, measured in calibration.costs.items():
        rows = {one: measured[one] for one in traded if one in measured}
        if not rows:
            continue
        _refuse_swept(costs, key, section="costs")
        configured = costs.get(key)
        if isinstance(configured, int | float) and not isinstance(configured, bool):
            configured = dict.fromkeys(kinds, float(configured))
        if configured is None or isinstance(configured, Mapping):
            out[key] = {**(configured or {}), **rows}
    priced = [one for one in traded for key in ("half_spread_bps", "impact_coef_bps")
              if one in calibration.costs.get(key, {})]  # fmt: skip
    if priced and (costs.get("bucket_usd") or costs.get("bucket_table") is not None):
        raise ConfigError(
            "costs.bucket_usd and costs.bucket_table are all-in, and the calibration measured spread and impact too",
            where={"file": calibration.path},
            fix="take one of the two out: a cost is charged once",
        )
    return _with_exponent(out, calibration, traded)


def _with_exponent(out: dict[str, Any], calibration: Calibration, traded: Sequence[str]) -> dict[str, Any]:
    """The exponent is one for all legs: it may not change what an impact means that was not measured."""
    rows, exponent = calibration.costs.get("impact_coef_bps", {}), calibration.impact_exponent
    if exponent is None or not set(rows) & set(traded):
        return out
    _refuse_swept(out, EXPONENT, section="costs")
    before, coefs = out.get(EXPONENT, 0.5), out.get("impact_coef_bps")
    for one in traded:
        coef = coefs.get(one, coefs.get(one.split(":")[0], 0.0)) if isinstance(coefs, Mapping) else 0.0
        if one not in rows and coef and before != exponent:
            raise ConfigError(
                f"costs.impact_exponent: {before!r} is configured for {one}, and {exponent:g} was measured",
                where={"file": calibration.path},
                fix=f"set costs.impact_exponent = {exponent:g} and the coefficient of {one} to go with it",
            )
    return {**out, EXPONENT: exponent}


def _refuse_swept(table: Mapping[str, Any], key: str, *, section: str) -> None:
    value = table.get(key)
    if isinstance(value, list) or (isinstance(value, Mapping) and {"from", "to"} & set(value)):
        raise ConfigError(
            f"{section}.{key}: several values, and the calibration measured one",
            where={"key": f"{section}.{key}"},
            fix="leave one value, or take out calibration",
        )
