"""Keys whose values a kernel takes trial by trial, without anything being prepared anew."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from basis_bt.backtest.prepare import Parameters
from basis_bt.core.sweep_spec import Axis, parse_hours_or_number
from basis_bt.core.units import bars_up
from basis_bt.kernels.many import VALUES

FAST_KEYS = {
    "rule.entry": "entry",
    "rule.exit": "exit",
    "rule.min_hold_hours": "min_hold_bars",
    "rule.max_hold_hours": "max_hold_bars",
    "rule.cooldown_hours": "cooldown_bars",
    "rule.stop_loss_pct": "stop_loss_pct",
    "rule.max_basis_bps": "max_basis_bps",
    "size.capital_usd": "capital_usd",
    "size.allocation": "allocation",
    "size.leverage": "leverage",
    "costs.half_spread_bps": "half_spread_bps",
    "costs.impact_coef_bps": "impact_coef_bps",
}
PLACE = {name: place for place, name in enumerate(VALUES)}
# signals that are reckoned with a fast value, so that each of its values takes a signal of its own
SIGNALS_OF = {"costs.half_spread_bps": {"net_apr"}}


def is_fast(axis: Axis, *, signals: Collection[str] = ()) -> bool:
    """Whether an axis is of such a key and has plain numbers (or durations, where the key is one) only.

    ``signals`` are the names of all signals of the sweep: of one that knows about costs, half spreads are not fast.
    """
    if axis.key not in FAST_KEYS or not SIGNALS_OF.get(axis.key, set()).isdisjoint(signals):
        return False
    allowed: type | Any = str | int | float if axis.key.endswith("_hours") else int | float
    return axis.is_drawn or all(isinstance(one, allowed) and not isinstance(one, bool) for one in axis.values)


def numbers_of(axis: Axis, column: np.ndarray) -> np.ndarray:
    """The numbers an axis has at each trial, in the units of its key."""
    if axis.is_drawn:
        return column.astype(np.float64)
    return np.array([parse_hours_or_number(one) for one in axis.values])[column]


def value_rows(
    axes: Sequence[Axis], columns: Sequence[np.ndarray], base: Parameters, *, n_trials: int, bar_us: int
) -> np.ndarray:
    """``values`` of the kernels, ``(n_trials, len(VALUES))``: those of ``base`` with the axes' own put in."""
    out = np.tile(base_values(base), (n_trials, 1))
    for axis, column in zip(axes, columns, strict=True):
        numbers = numbers_of(axis, column)
        if axis.key.endswith("_hours"):
            unique, inverse = np.unique(numbers, return_inverse=True)
            numbers = np.array([bars_up(float(hours), bar_us=bar_us) for hours in unique], dtype=np.float64)[inverse]
        out[:, PLACE[FAST_KEYS[axis.key]]] = numbers
    return out


def base_values(parameters: Parameters) -> np.ndarray:
    """The values a configuration has itself; NaN where its arrays say it by leg."""
    rule, size = parameters.rule, parameters.size
    own = {
        "entry": rule.entry, "exit": rule.exit, "min_hold_bars": rule.min_hold_bars,
        "max_hold_bars": rule.max_hold_bars, "cooldown_bars": rule.cooldown_bars,
        "stop_loss_pct": rule.stop_loss_pct, "max_basis_bps": rule.max_basis_bps,
        "capital_usd": size.capital_usd, "allocation": size.allocation,
    }  # fmt: skip
    return np.array([own.get(name, math.nan) for name in VALUES], dtype=np.float64)


def with_values(parameters: Parameters, row: np.ndarray, *, trial: int, is_leveraged: np.ndarray) -> Parameters:
    """The parameters of one trial: what the kernels of many make of a row of values."""
    v = dict(zip(VALUES, row.tolist(), strict=True))
    combo, costs = parameters.combo, parameters.costs
    if not math.isnan(v["leverage"]):
        combo = combo._replace(margin_weight=np.where(is_leveraged, 1.0 / v["leverage"], combo.margin_weight))
    if not math.isnan(v["half_spread_bps"]):
        costs = costs._replace(half_spread_bps=np.full_like(costs.half_spread_bps, v["half_spread_bps"]))
    if not math.isnan(v["impact_coef_bps"]):
        costs = costs._replace(impact_coef_bps=np.full_like(costs.impact_coef_bps, v["impact_coef_bps"]))
    return parameters._replace(
        combo=combo,
        costs=costs,
        rule=parameters.rule._replace(
            entry=v["entry"],
            exit=v["exit"],
            min_hold_bars=int(v["min_hold_bars"]),
            max_hold_bars=int(v["max_hold_bars"]),
            cooldown_bars=int(v["cooldown_bars"]),
            stop_loss_pct=v["stop_loss_pct"],
            max_basis_bps=v["max_basis_bps"],
        ),
        size=parameters.size._replace(capital_usd=v["capital_usd"], allocation=v["allocation"]),
        fills=parameters.fills._replace(trial=trial),
    )


def means_nothing(
    axes: Sequence[Axis], columns: Sequence[np.ndarray], rule: Mapping[str, Any], *, n_trials: int
) -> np.ndarray:
    """Which trials have values that contradict each other, as ``Rule`` refuses them.

    An entry not above its exit, or not above 0 with the reverse; a longest hold under the shortest, in hours, before
    they are rounded to bars. ``rule`` is that section of what the trials share.
    """
    given = {axis.key.removeprefix("rule."): numbers_of(axis, column)
             for axis, column in zip(axes, columns, strict=True) if axis.key.startswith("rule.")}  # fmt: skip

    def numbers(key: str, default: float | None = None) -> np.ndarray:
        configured = rule.get(key, default)
        same = math.nan if configured is None else parse_hours_or_number(configured)
        return given[key] if key in given else np.full(n_trials, same)

    entry = numbers("entry")
    wrong = ~(entry > numbers("exit"))
    if rule.get("reverse", False):
        wrong |= ~(entry > 0.0)
    return wrong | (numbers("max_hold_hours") < numbers("min_hold_hours", 0.0))
