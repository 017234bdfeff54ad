"""What a chart of a sweep says in words: heading, caption, and how a column is called and counted."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from basis_bt.reports.summary import INCIDENT_METRICS, METRICS

GREY = "#8a8a8a"
LETTERS_AN_INCH = 14.2  # of the caption's 9.5 points
LINE_INCHES = 0.185
MINUS = "\N{MINUS SIGN}"

_LABELS = {name: (label, kind) for name, label, kind in (*METRICS, *INCIDENT_METRICS)}
_DAYS_FROM_HOURS = 72.0
_UNITS = {"frac": ("%", 100.0), "apr": ("% a year", 100.0), "usd": ("USD", 1.0), "bps": ("bps", 1.0)}
_KIND_UNITS = {"fraction": ("%", 100.0), "multiple": ("x capital", 1.0)}


class Quantity(NamedTuple):
    """How a column is shown: its label, the unit shown, and the factor that leads to it."""

    label: str
    unit: str
    factor: float

    @property
    def title(self) -> str:
        """Label and unit, for an axis."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def text(self, value: float) -> str:
        """A stored value with its unit."""
        return f"{short(value * self.factor)} {self.unit}".rstrip()

    def tick(self, value: float, *, digits: int = 4) -> str:
        """A stored value without its unit, for a tick or a cell's name."""
        return compact_usd(value) if self.unit == "USD" else short(value * self.factor, digits=digits)


def quantity(name: str, values: pl.Series) -> Quantity:
    """How a column of the trials is shown: fractions in percent, hours in days where they are many.

    Parameters
    ----------
    name : the column; its ending tells the unit (``_hours``, ``_frac``, ``_apr``, ``_usd``, ``_bps``)
    values : what is shown of it; text has no unit
    """
    plain = name.removeprefix("param_")
    if not values.dtype.is_numeric():
        return Quantity(plain.replace("_", " "), "", 1.0)
    stem, _, ending = plain.rpartition("_")
    label, kind = _LABELS.get(plain, (None, None))
    if kind == "hours" or ending == "hours":
        largest = values.cast(pl.Float64).abs().max()
        many = isinstance(largest, float) and largest >= _DAYS_FROM_HOURS
        unit, factor = ("days", 1 / 24) if many else ("hours", 1.0)
    elif kind is not None:
        unit, factor = _KIND_UNITS.get(kind, ("", 1.0))
        stem = plain
    else:
        unit, factor = _UNITS.get(ending, ("", 1.0))
        stem = stem if unit else plain
    return Quantity(label or (stem or plain).replace("_", " "), unit, factor)


def short(value: float, *, digits: int = 4) -> str:
    """A number in few digits, thousands apart, with a true minus; whole above a thousand."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def compact_usd(value: float) -> str:
    """USD in thousands, millions or billions, for the ticks of an axis."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}".replace("-", MINUS)
    return short(value)


def middle_cut(text: str, *, letters: int = 30) -> str:
    """A long name without its middle, which says least."""
    if len(text) <= letters:
        return text
    return f"{text[: letters // 2]}…{text[len(text) - letters // 2 + 1 :]}"


def count_of(n_things: int, thing: str) -> str:
    """``1 trial``, ``2,000 trials``."""
    return f"{n_things:,} {thing}{'' if n_things == 1 else 's'}"


def counts_text(trials: pl.DataFrame, known: pl.DataFrame, *, metric: str) -> str:
    """How many trials there are, how many failed or contradict themselves, and how many have no value for all that."""
    n_invalid = int((trials["status"] == "invalid").sum())
    n_failed = int((trials["status"] != "ok").sum()) - n_invalid
    n_undefined = len(trials) - n_failed - n_invalid - len(known)
    label = quantity(metric, known[metric]).label
    parts = [count_of(len(trials), "trial"), f"{n_failed:,} failed"]
    parts += [f"{n_invalid:,} with values that contradict each other"] if n_invalid else []
    parts += [f"{n_undefined:,} without a value of {label}"] if n_undefined else []
    return " · ".join(parts)


def titled_figure(title: str, caption: Sequence[str], *, width: float, height: float) -> Figure:
    """An empty page (inches) with heading and grey caption; what is drawn later takes the room below them."""
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    letters = int((width - 0.5) * LETTERS_AN_INCH)
    lines = [line for text in caption for line in textwrap.wrap(text, letters)]
    place: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "top"}
    heading = textwrap.shorten(title, int(letters * 0.55), placeholder="…") or "sweep"
    figure.text(0.25 / width, 1 - 0.17 / height, heading, fontsize=17, fontweight="bold", **place)
    top = 0.55
    for line in lines:
        figure.text(0.25 / width, 1 - top / height, line, fontsize=9.5, color="#666666", **place)
        top += LINE_INCHES
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.15 / width, 0.1 / height, 1 - 0.3 / width, 1 - (top + 0.22) / height), w_pad=0.06, h_pad=0.06)
    return figure


def finite(values: pl.Series) -> np.ndarray:
    """A column as floats, NaN where there is no value."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
