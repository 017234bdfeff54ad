"""What a sweep varies: axes found in a configuration, whose values are lists or ranges, and the design over them."""

import contextlib
import copy
import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from basis_bt.core.config import build_config
from basis_bt.core.errors import ConfigError
from basis_bt.core.instruments import STRICT
from basis_bt.core.models import Config
from basis_bt.core.units import parse_hours

RANGE_KEYS = {"from", "to", "steps", "scale"}
MOST_STEPS = 100_000
WHOLE_TABLES = ("data", "combo", "signal", "rule", "size", "costs", "fills", "wallets")
# which value of an axis refuses least of what else is configured: thresholds that leave room, impact without volumes
WIDEST = (
    ("rule.entry", max), ("rule.exit", min), ("rule.min_hold_hours", min), ("rule.max_hold_hours", max),
    ("costs.impact_coef_bps", min),
)  # fmt: skip
# values that cannot contradict another key of their section, while one key of it is checked
_NEUTRAL_RULE = {"entry": 1e300, "exit": -1e300}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """The section ``[sweep]``: the design, how many trials a random one has, and what the best is chosen by.

    ``design``: ``"grid"`` takes every combination, ``"zip"`` the n-th values of all axes together, ``"random"`` a Latin
    hypercube of ``trials`` points. Details (equity, fills, ...) are kept of the ``best`` trials by ``metric``.
    """

    __pydantic_config__ = STRICT

    design: Literal["grid", "zip", "random"] = "grid"
    trials: int | None = None
    seed: int = 0
    metric: str = "sharpe"
    best: int = 5

    def __post_init__(self) -> None:
        if (self.design == "random") != (self.trials is not None):
            raise ValueError('trials goes with design = "random": how many points to draw')
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials must be at least 1, found {self.trials}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, found {self.seed}")
        if not 0 <= self.best <= 100:
            raise ValueError(f"best must be between 0 and 100, found {self.best}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One key and what it takes: ``values``, or numbers between ``low`` and ``high`` drawn by a random design."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    is_log: bool = False
    is_whole: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether a random design draws its values from a range."""
        return not self.values

    def at(self, share: float) -> Any:
        """The value at a share of a drawn range."""
        if self.is_log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.is_whole else min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A sweep as configured: the tables with the first value of each axis, the axes, the design, and what was said.

    ``raw`` holds one value for each key (of those in ``WIDEST`` that one, not the first). ``notes`` are sentences for
    the user.
    """

    raw: dict[str, Any]
    axes: tuple[Axis, ...]
    spec: SweepSpec
    notes: tuple[str, ...] = ()


def replaced(tables: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of tables with some keys replaced: ``"size.capital_usd"``, or a whole one such as ``"combo"``."""
    out = {key: dict(table) if isinstance(table, Mapping) else table for key, table in tables.items()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name:
            out[section][name] = value
        else:
            out[section] = value
    return out


def read_space(raw: Mapping[str, Any], *, combos: list[dict[str, Any]] | None = None) -> Space:
    """Find the axes of nested tables.

    A value is an axis where it is a list of what the key takes (for keys that take a list: a list of lists), or a
    table ``{from, to, steps, scale}``. Every value is checked for itself, with the key named.

    Parameters
    ----------
    raw : the configuration as read
    combos : the combos that ``[[combo.pairs]]`` stands for in a market folder, see ``sweeps/combos.py``

    Raises
    ------
    ConfigError
        For a wrong section ``[sweep]``, an empty axis, a range that means nothing, a value its key does not take.
    """
    tables = copy.deepcopy({key: value for key, value in raw.items() if key != "sweep"})
    spec = _spec(raw.get("sweep", {}))
    notes: list[str] = []
    found: dict[str, Axis] = {}
    if combos is not None:
        found["combo"] = _axis("combo", combos, spec=spec, notes=notes)
    for key, value in _axis_leaves(tables, has_combos=combos is not None):
        found[key] = _axis(key, value, spec=spec, notes=notes)
    tables = replaced(tables, {key: axis.values[0] if axis.values else axis.at(0.0) for key, axis in found.items()})
    order = {name: place for place, name in enumerate(WHOLE_TABLES)}
    axes = sorted(found.values(), key=lambda axis: order[axis.key.partition(".")[0]])
    tables = _without_contradiction(tables, axes)
    for axis in axes:
        _check_values(tables, axis)
    return Space(raw=tables, axes=tuple(axes), spec=spec, notes=tuple(notes))


def is_sweep(raw: Mapping[str, Any]) -> bool:
    """Whether tables have more than one value or combo somewhere, or a section ``[sweep]``."""
    return bool(swept_keys(raw))


def swept_keys(raw: Mapping[str, Any]) -> list[str]:
    """What makes a sweep of tables: ``combo`` for combos, the keys of the axes, ``[sweep]`` for its section."""
    combo = raw.get("combo")
    has_combos = isinstance(combo, list) or (isinstance(combo, Mapping) and "pairs" in combo)
    keys = ["combo"] if has_combos else []
    keys += [key for key, _ in _axis_leaves(raw, has_combos=has_combos)]
    return [*keys, "[sweep]"] if "sweep" in raw else keys


def _spec(raw: Any) -> SweepSpec:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(SweepSpec).validate_json(json.dumps(raw))
    except ValidationError as error:
        item = error.errors()[0]
        name = ".".join(["sweep", *map(str, item["loc"])])
        names = [field.name for field in dataclasses.fields(SweepSpec)]
        near = difflib.get_close_matches(str(item["loc"][-1]) if item["loc"] else "", names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != item["loc"][-1] else ""
        told = item["ctx"]["error"] if item["type"] == "value_error" else f"{item['msg']}, found {item['input']!r}"
        raise ConfigError(f"{name}: {told}{hint}", fix=f"the keys are {', '.join(names)}") from None


def _axis_leaves(tables: Mapping[str, Any], *, has_combos: bool) -> Iterator[tuple[str, Any]]:
    """Keys and values that are axes; of several combos none is looked into."""
    for section, table in tables.items():
        if section in WHOLE_TABLES and isinstance(table, Mapping) and not (section == "combo" and has_combos):
            for name, value in table.items():
                if _is_axis(f"{section}.{name}", value):
                    yield f"{section}.{name}", value


def _is_axis(key: str, value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(RANGE_KEYS & set(value))
    if not isinstance(value, list | tuple) or key == "combo.pairs":
        return False
    depth = _list_depth(_hint(key))
    return depth == 0 or (bool(value) and all(_list_depth_of(item) >= depth for item in value))


def _hint(key: str) -> Any:
    section, _, name = key.partition(".")
    model = typing.get_type_hints(Config)[section]
    return typing.get_type_hints(model).get(name)


def _list_depth(hint: Any) -> int:
    """How many lists are around what a key takes: 2 for the spans of ``wallets.transfer_halts``."""
    return 1 + _list_depth(typing.get_args(hint)[0]) if typing.get_origin(hint) is list else 0


def _list_depth_of(value: Any) -> int:
    return 1 + min(map(_list_depth_of, value), default=1) if isinstance(value, list | tuple) else 0


def _axis(key: str, value: Any, *, spec: SweepSpec, notes: list[str]) -> Axis:
    if isinstance(value, Mapping):
        return _range(key, value, spec=spec, notes=notes)
    if not value:
        raise ConfigError(f"{key}: the list of values is empty", fix="give at least one value")
    is_duration = {float, str} <= set(typing.get_args(_hint(key)))
    unique: dict[Any, Any] = {}
    each = []
    for given in value:
        item = given.isoformat() if isinstance(given, datetime) else given
        if isinstance(item, float) and not math.isfinite(item):
            raise ConfigError(f"{key}: {item} is no value of a sweep", fix="take it out of the list")
        each.append(unique.setdefault(_meaning(item, is_duration=is_duration), item))
    if spec.design == "zip":
        return Axis(key=key, values=tuple(each))  # parameter sets that stand twice are found by the design
    if len(unique) < len(value):
        notes.append(f"{key}: {len(value) - len(unique)} of {len(value)} values stand twice and are computed once")
    return Axis(key=key, values=tuple(unique.values()))


def _meaning(item: Any, *, is_duration: bool) -> tuple[str, Any]:
    """What a value is equal to: 24, 24.0 and, where the key is a duration, ``"24h"`` and ``"1d"`` are one."""
    with contextlib.suppress(ValueError, OverflowError):
        if (is_duration and isinstance(item, str)) or (isinstance(item, int | float) and not isinstance(item, bool)):
            return "number", parse_hours_or_number(item)
    return type(item).__name__, json.dumps(item, sort_keys=True, default=str)


def _range(key: str, value: Mapping[str, Any], *, spec: SweepSpec, notes: list[str]) -> Axis:
    unknown = set(value) - RANGE_KEYS
    if unknown:
        raise ConfigError(f"{key}: unknown key of a range: {', '.join(sorted(unknown))}", fix="from, to, steps, scale")
    missing = {"from", "to"} - set(value)
    if missing:
        raise ConfigError(f"{key}: a range without {' and '.join(sorted(missing))}", fix="from, to, steps, scale")
    kinds = {_hint(key), *typing.get_args(_hint(key))}
    try:
        if str not in kinds and any(isinstance(value[end], str) for end in ("from", "to")):
            raise ValueError(f"must go from a number to a number, found {value['from']!r} and {value['to']!r}")
        low, high = parse_hours_or_number(value["from"]), parse_hours_or_number(value["to"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}", fix="a range goes from a number to a number") from None
    steps, scale = value.get("steps"), value.get("scale", "lin")
    is_whole = int in kinds and float not in kinds
    if scale not in ("lin", "log"):
        raise ConfigError(f"{key}.scale: must be 'lin' or 'log', found {scale!r}", fix="see docs/sweeps.md")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{key}: a range goes from less to more, found {low:g} to {high:g}", fix="lower end first")
    if scale == "log" and low <= 0.0:
        raise ConfigError(f"{key}: a logarithmic range begins above 0, found {low:g}", fix='set scale = "lin"')
    if steps is None and spec.design != "random":
        raise ConfigError(f"{key}.steps: missing", fix='say how many values, or set sweep.design = "random"')
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= 1_000_000_000):
        raise ConfigError(f"{key}.steps: must be a whole number from 2, found {steps!r}", fix="say how many values")
    drawn = Axis(key=key, low=low, high=high, is_log=scale == "log", is_whole=is_whole)
    if steps is None:
        return drawn
    if steps > MOST_STEPS:
        raise ConfigError(
            f"{key}.steps: {steps:,} values are too many for one axis",
            where={"at most": f"{MOST_STEPS:,}"},
            fix='take fewer, or draw them: sweep.design = "random" and no steps',
        )
    values = tuple(dict.fromkeys(drawn.at(k / (steps - 1)) for k in range(steps)))
    if len(values) < steps:
        notes.append(f"{key}: {steps - len(values)} of {steps} values stand twice and are computed once")
    return Axis(key=key, values=values)


def parse_hours_or_number(value: Any) -> float:
    """A number, or the hours of a duration such as ``"8h"``."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a number or a duration, found {value!r}")
    return parse_hours(value) if isinstance(value, str) else float(value)


def _without_contradiction(tables: dict[str, Any], axes: list[Axis]) -> dict[str, Any]:
    """The tables with the widest thresholds of the axes, so that the rest of a configuration can be checked."""
    ends = {axis.key: axis for axis in axes}
    out = dict(tables)
    for key, choose in WIDEST:
        axis, (section, _, name) = ends.get(key), key.partition(".")
        if axis is not None:
            values = axis.values or (axis.low, axis.high)
            numbers = [one for one in values if isinstance(one, int | float | str) and not isinstance(one, bool)]
            try:
                widest = choose(numbers, key=parse_hours_or_number)
            except ValueError:
                widest = values[0]
            out[section] = {**out[section], name: widest}
    return out


def _check_values(tables: dict[str, Any], axis: Axis) -> None:
    """Refuse a value that its key does not take; of long numeric axes the ends speak for all."""
    section, _, name = axis.key.partition(".")
    values: list[Any] = list(axis.values) or [axis.at(0.0), axis.at(1.0)]
    if len(values) > 64 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        values = [min(values), max(values)]
    others: dict[str, Any] = {}
    if section == "rule":
        others = {**_NEUTRAL_RULE}
    elif name and section in ("data", "signal", "combo"):
        others = dict(tables[section])
    for value in values:
        own = {**others, name: value} if name else value
        if axis.key == "rule.reverse":
            own = {**own, "entry": 1.0, "exit": 0.0}
        if axis.key in ("costs.bucket_usd", "costs.bucket_bps", "costs.bucket_table", "costs.bucket_pairs",
                        "wallets.rebalance_below", "signal.name", "signal.sql", "data.start", "data.end"):  # fmt: skip
            continue  # checked with the cell they stand in
        build_config({**tables, section: own})
