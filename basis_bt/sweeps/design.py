"""Which value of each axis each trial has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from basis_bt.core.errors import ConfigError
from basis_bt.core.sweep_spec import Axis, Space

SLOW_SECTIONS = ("data", "combo", "signal")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """Trials over axes. ``columns`` has a row for each trial of a zipped or random design; a grid needs none.

    A column holds places in the values of its axis, or the numbers themselves of an axis that is drawn from a range.
    """

    axes: tuple[Axis, ...]
    n_trials: int
    columns: tuple[np.ndarray, ...] | None = None
    notes: tuple[str, ...] = ()

    def take(self, trials: np.ndarray) -> list[np.ndarray]:
        """The column of each axis at some trials."""
        if self.columns is not None:
            return [column[trials] for column in self.columns]
        shape = [len(axis.values) for axis in self.axes]
        return [np.asarray(part) for part in np.unravel_index(trials, shape)] if shape else []


def n_asked(space: Space) -> int:
    """How many trials a sweep asks for, before those that stand twice are left out; nothing is drawn."""
    if space.spec.design == "grid":
        return math.prod(len(axis.values) for axis in space.axes)
    if space.spec.design == "zip":
        return max((len(axis.values) for axis in space.axes), default=1)
    return space.spec.trials or 1


def make_design(space: Space) -> Design:
    """The design a sweep asks for; the last axis of a grid moves fastest, the combos and signals slowest.

    A Latin hypercube has one point in each of ``trials`` equal shares of every axis, at a random place in it, and the
    shares of the axes are matched at random by a generator seeded with ``sweep.seed``.

    Raises
    ------
    ConfigError
        If zipped axes have several lengths, or a random design has no axis.
    """
    axes, spec = space.axes, space.spec
    if spec.design == "random" and not axes:
        raise ConfigError("a random design has nothing to draw from", fix="give a key a list or a range of values")
    if spec.design == "grid":
        return Design(axes=axes, n_trials=n_asked(space))
    if spec.design == "zip":
        lengths = {axis.key: len(axis.values) for axis in axes}
        if len(set(lengths.values())) > 1:
            raise ConfigError(
                "the axes of a zipped design have several lengths: "
                + ", ".join(f"{key} {length}" for key, length in lengths.items()),
                fix='give all the same number of values, or set sweep.design = "grid"',
            )
        return _distinct(axes, [_first_places(axis.values) for axis in axes], n_asked=n_asked(space))
    n = spec.trials or 1
    random = np.random.Generator(np.random.PCG64(spec.seed))
    drawn = [_drawn(axis, (random.permutation(n) + random.random(n)) / n) for axis in axes]
    return _distinct(axes, _slow_first(axes, drawn), n_asked=n)


def _first_places(values: Sequence[Any]) -> np.ndarray:
    """For each value the place at which it stands first."""
    first: dict[str, int] = {}
    places = [first.setdefault(repr(value), place) for place, value in enumerate(values)]
    return np.array(places, dtype=np.int64)


def _drawn(axis: Axis, share: np.ndarray) -> np.ndarray:
    if not axis.is_drawn:
        return np.minimum((share * len(axis.values)).astype(np.int64), len(axis.values) - 1)
    return np.array([axis.at(one) for one in share.tolist()])


def _slow_first(axes: Sequence[Axis], columns: list[np.ndarray]) -> list[np.ndarray]:
    """Trials in the order of what takes longest to prepare, so that little of it is kept at a time."""
    slow = [column for axis, column in zip(axes, columns, strict=True) if axis.key.partition(".")[0] in SLOW_SECTIONS]
    if not slow:
        return columns
    order = np.lexsort(slow[::-1])
    return [column[order] for column in columns]


def _distinct(axes: tuple[Axis, ...], columns: list[np.ndarray], *, n_asked: int) -> Design:
    """The design without the trials that stand twice."""
    if not columns:
        return Design(axes=axes, n_trials=1, columns=())
    rows = np.rec.fromarrays(columns)
    first = np.sort(np.unique(rows, return_index=True)[1])
    notes = []
    if len(first) < n_asked:
        notes.append(f"{n_asked - len(first)} of {n_asked} parameter sets stand twice and are computed once")
    kept = tuple(np.ascontiguousarray(column[first]) for column in columns)
    return Design(axes=axes, n_trials=len(first), columns=kept, notes=tuple(notes))
