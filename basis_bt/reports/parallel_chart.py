"""A sweep as parallel coordinates: one line a trial across its parameters, ending at the metric."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from basis_bt.core.errors import ConfigError
from basis_bt.reports.chart_text import (
    Quantity,
    count_of,
    counts_text,
    finite,
    middle_cut,
    quantity,
    short,
    titled_figure,
)
from basis_bt.reports.charts import BLACK, chart_style
from basis_bt.reports.robustness import LOWER_IS_BETTER, best_first, need_columns, with_value

BEST_FRAC = 0.03
LOG_FROM = 4.0  # largest value over the median one
MAX_CATEGORIES = 24
MAX_NUMBERS = 9
LEAST_GAP = 0.035  # between two labels, of the height
REST = "#9aa3ad"


def parallel_figure(trials: pl.DataFrame, *, axes: Sequence[str], metric: str, title: str, lines: int = 2000) -> Figure:
    """The best few percent of the trials in colour over a sample of the others in grey.

    The sample takes every n-th of the others in the order of the metric, so it is the same each time and shows the bad
    as well as the middling. A numeric axis is logarithmic when its values are above 0 and the largest is more than four
    times the median one; a text axis lists its categories. The metric stands last, better upward.

    Parameters
    ----------
    trials : one row a trial: ``trial``, the axes, the metric and ``status``
    axes : parameter columns, in the order drawn
    metric : the column of the last axis
    title : the heading
    lines : how many trials are drawn at most; the best take no more than a tenth

    Raises
    ------
    ConfigError
        If no trial has a value, a column is missing, or no axis is named.
    """
    if not axes:
        raise ConfigError("parallel coordinates need an axis", fix="name the parameters that vary")
    need_columns(trials, axes)
    known = best_first(with_value(trials, metric=metric), metric=metric)
    complete = known.drop_nulls(axes)
    if complete.is_empty():
        raise ConfigError(
            f"no trial with a {metric} has a value on every axis",
            where={"axes": ", ".join(axes)},
            fix="leave out the axis that is null",
        )
    n_best = max(min(math.ceil(BEST_FRAC * len(complete)), lines // 10), 1)
    rest = _every_nth(len(complete) - n_best, lines - n_best) + n_best
    rows = np.concatenate([np.arange(n_best), rest])
    caption = [counts_text(trials, known, metric=metric)]
    if len(complete) < len(known):
        caption.append(f"{count_of(len(known) - len(complete), 'trial')} without a value on an axis left out")
    scales = [_scale(complete[name], name) for name in axes] + [_metric_scale(complete[metric], metric)]
    with chart_style():
        spread = min(max(1.75, 0.085 * max(len(scale.title) for scale in scales)), 2.6)
        figure = titled_figure(title, caption, width=min(max(3.0 + spread * len(axes), 8.0), 18.0), height=6.4)
        canvas = figure.add_subplot()
        heights = np.column_stack([scale.heights[rows] for scale in scales])
        _draw_lines(canvas, heights, n_best=n_best)
        for place, scale in enumerate(scales):
            _draw_scale(canvas, place, scale, is_last=place == len(axes))
        _legend(canvas, n_best=n_best, n_rest=len(rest), n_complete=len(complete))
    return figure


class _Scale(NamedTuple):
    title: str
    heights: np.ndarray  # of each trial, 0 ... 1
    ticks: list[tuple[float, str]]


def _every_nth(n_rows: int, n_kept: int) -> np.ndarray:
    return np.linspace(0, n_rows - 1, min(n_rows, n_kept)).astype(np.int64)


def _scale(values: pl.Series, name: str) -> _Scale:
    if values.dtype.is_numeric():
        numbers = finite(values)
        is_log = bool(numbers.min() > 0 and numbers.max() > LOG_FROM * np.median(np.unique(numbers)))
        return _numeric_scale(quantity(name, values), numbers, is_log=is_log)
    names = values.unique().sort()
    places = values.replace_strict(names, pl.int_range(len(names), eager=True)).to_numpy()
    every = math.ceil(len(names) / MAX_CATEGORIES)
    heights = places / (len(names) - 1) if len(names) > 1 else places + 0.5
    ticks = [
        (place / (len(names) - 1) if len(names) > 1 else 0.5, middle_cut(str(label), letters=22))
        for place, label in list(enumerate(names))[::every]
    ]
    return _Scale(quantity(name, values).title, heights, ticks)


def _metric_scale(values: pl.Series, metric: str) -> _Scale:
    scale = _numeric_scale(quantity(metric, values), finite(values), is_log=False)
    if metric not in LOWER_IS_BETTER:
        return scale
    return scale._replace(heights=1.0 - scale.heights, ticks=[(1.0 - height, text) for height, text in scale.ticks])


def _numeric_scale(shown: Quantity, numbers: np.ndarray, *, is_log: bool) -> _Scale:
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return _Scale(shown.title, np.full(len(numbers), 0.5), [(0.5, shown.tick(low))])
    stretch = np.log if is_log else np.asarray

    def height(value: Any) -> Any:
        return (stretch(value) - stretch(low)) / (stretch(high) - stretch(low))

    found = np.unique(numbers)
    if len(found) > MAX_NUMBERS:
        locator: Any = LogLocator(subs=(1.0, 2.0, 5.0)) if is_log else MaxNLocator(6)
        found = locator.tick_values(low * shown.factor, high * shown.factor) / shown.factor
    ticks: list[tuple[float, str]] = []
    for value in found[(found >= low) & (found <= high)]:
        if not ticks or height(value) - ticks[-1][0] >= LEAST_GAP:
            ticks.append((float(height(value)), shown.tick(float(value))))
    return _Scale(shown.title, height(numbers), ticks)


def _draw_lines(canvas: Axes, heights: np.ndarray, *, n_best: int) -> None:
    """Rows are the best first; the best of all is drawn on top."""
    n_trials, n_scales = heights.shape
    across = np.broadcast_to(np.arange(n_scales, dtype=float), heights.shape)
    paths = np.stack([across, heights], axis=-1)
    alpha = float(np.clip(40.0 / max(n_trials - n_best, 1) ** 0.75, 0.10, 0.6))
    canvas.add_collection(LineCollection(list(paths[n_best:]), colors=REST, linewidths=0.7, alpha=alpha, gid="rest"))
    ends = heights[:n_best, -1]
    share = (ends - ends.min()) / max(float(np.ptp(ends)), 1e-12)
    look: dict[str, Any] = {"linewidths": 1.3, "alpha": 0.85, "gid": "best", "zorder": 3}
    canvas.add_collection(LineCollection(list(paths[:n_best][::-1]), colors=_colours()(share[::-1]), **look))
    steps = np.linspace(ends.min(), ends.max(), 33)
    for bottom, top, colour in zip(steps[:-1], steps[1:], _colours()(np.linspace(0, 1, 32)), strict=True):
        canvas.add_patch(Rectangle((n_scales - 1, bottom), 0.035, top - bottom, color=colour, linewidth=0, zorder=4))
    canvas.set_xlim(-0.12, n_scales - 1 + 0.12)
    canvas.set_ylim(-0.03, 1.03)
    canvas.set_axis_off()


def _colours() -> Colormap:
    """Orange to dark violet, without the ends that vanish on white or pass for black."""
    return ListedColormap(colormaps["plasma_r"](np.linspace(0.22, 0.95, 256)))


def _draw_scale(canvas: Axes, place: int, scale: _Scale, *, is_last: bool) -> None:
    halo = [withStroke(linewidth=2.4, foreground="white")]
    canvas.plot([place, place], [0, 1], color=BLACK, linewidth=1.0, zorder=4)
    side: dict[str, Any] = {"ha": "left" if is_last else "right", "va": "center", "fontsize": 8.5}
    for height, text in scale.ticks:
        canvas.annotate(
            text, (place, height), ((8 if is_last else -4), 0), textcoords="offset points", parse_math=False, zorder=6,
            path_effects=halo, annotation_clip=False, **side,
        )  # fmt: skip
        canvas.plot([place], [height], marker="_", markersize=5, color=BLACK, zorder=5)
    canvas.annotate(
        scale.title, (place, 1.0), (0, 12), textcoords="offset points", ha="center", va="bottom", fontweight="bold",
        fontsize=9.5, parse_math=False, annotation_clip=False,
    )  # fmt: skip


def _legend(canvas: Axes, *, n_best: int, n_rest: int, n_complete: int) -> None:
    label = f"best {count_of(n_best, 'trial')} ({short(100.0 * n_best / n_complete, digits=2)} %)"
    keys = [Line2D([], [], color=_colours()(0.8), linewidth=2, label=label)]
    if n_rest:
        others = n_complete - n_best
        label = f"the other {n_rest:,}" if n_rest == others else f"{n_rest:,} of the other {others:,}, evenly by rank"
        keys.append(Line2D([], [], color=REST, linewidth=1.2, label=label))
    canvas.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2)
