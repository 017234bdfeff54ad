"""A sweep as a heat map: a metric over two of its axes."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from basis_bt.core.errors import ConfigError
from basis_bt.reports.chart_text import (
    MINUS,
    Quantity,
    count_of,
    counts_text,
    middle_cut,
    quantity,
    short,
    titled_figure,
)
from basis_bt.reports.charts import BLACK, chart_style
from basis_bt.reports.robustness import LOWER_IS_BETTER, best_first, is_random, need_columns, with_value

MAX_VALUES = 60
MAX_BINS = 20
MAX_PRINTED_CELLS = 150
MAX_TICKS = 20
MAX_INCHES = 15.0
LETTER_INCHES = 0.083
LEAST_SIDE = 0.2
Reduce = Literal["best", "mean", "worst", "median"]


def heatmap_figure(trials: pl.DataFrame, *, x: str, y: str, metric: str, title: str, reduce: Reduce = "best") -> Figure:
    """A metric over two axes, one cell a pair of values, the best cell framed.

    Cells are equally wide whatever the spacing of the values. A numeric axis of more than 60 values, or of a random
    design, is cut into bins of equally many trials; a text axis of more keeps its best 60. The colours turn at 0 when
    the metric changes sign; the smaller side is then stretched at most fivefold.

    Parameters
    ----------
    trials : one row a trial: ``trial``, the axes, the metric and ``status``
    x, y : parameter columns
    metric : the column shown
    title : the heading
    reduce : what a cell shows of the trials that fall into it; best and worst are in the sense of the metric

    Raises
    ------
    ConfigError
        If no trial has a value, a column is missing, or both axes are the same.
    """
    if x == y:
        raise ConfigError("a heat map needs two axes", where={"x": x, "y": y}, fix="name another parameter")
    if reduce not in ("best", "mean", "worst", "median"):
        raise ConfigError(f"no such reduction: {reduce!r}", fix="take best, mean, worst or median")
    need_columns(trials, [x, y])
    placed = trials.drop_nulls([x, y])
    known = with_value(placed, metric=metric)
    across, upward = (_ruler(placed, known, name, metric=metric, axes=[x, y]) for name in (x, y))
    cells = known.with_columns(_column=across.cell(known[x]), _row=upward.cell(known[y]))
    cells = cells.drop_nulls(["_column", "_row"])
    shown = quantity(metric, known[metric])
    mesh = np.full((upward.n_cells, across.n_cells), np.nan)
    for row, column, value in _reduced(cells, metric=metric, reduce=reduce).iter_rows():
        mesh[row, column] = value * shown.factor
    row, column = _best_cell(mesh, metric=metric)
    at = f"{across.name(column)}, {upward.name(row)}"
    caption = [
        counts_text(trials, with_value(trials, metric=metric), metric=metric),
        _cell_text(cells, x=x, y=y, reduce=reduce),
        f"best cell {short(mesh[row, column])} {shown.unit}".rstrip() + f" at {at}",
        *(ruler.note for ruler in (across, upward) if ruler.note),
    ]
    if len(placed) < len(trials):
        caption.append(f"{count_of(len(trials) - len(placed), 'trial')} without a value on an axis left out")
    with chart_style():
        width, height, rotation = _layout(across, upward)
        figure = titled_figure(title, caption, width=width, height=height)
        axes = figure.add_subplot()
        _draw_mesh(axes, mesh, shown, metric=metric)
        _label(axes, across, upward, rotation=rotation)
        look: dict[str, Any] = {"fill": False, "edgecolor": BLACK, "linewidth": 2.2, "gid": "best"}
        halo = [withStroke(linewidth=4.5, foreground="white")]
        axes.add_patch(Rectangle((column, row), 1, 1, path_effects=halo, clip_on=False, zorder=4, **look))
    return figure


class _Ruler(NamedTuple):
    """One axis of the map: the cells, where its ticks stand, and what a cell is called."""

    shown: Quantity
    values: pl.Series  # distinct and sorted; the inner borders of the bins when binned
    labels: list[str]  # of the cells; of all borders when binned
    is_binned: bool
    is_text: bool
    note: str

    @property
    def n_cells(self) -> int:
        return len(self.labels) - self.is_binned

    def cell(self, values: pl.Series) -> pl.Series:
        """Number of the cell each value falls into, null for a value that is not shown."""
        if self.is_binned:
            return pl.Series(np.searchsorted(self.values.to_numpy(), values.to_numpy(), side="right"))
        return values.replace_strict(self.values, pl.int_range(len(self.values), eager=True), default=None)

    def name(self, cell: int) -> str:
        if self.is_binned:
            return f"{self.shown.label} {self.labels[cell]} to {self.labels[cell + 1]} {self.shown.unit}".rstrip()
        return f"{self.shown.label} {self.labels[cell]} {self.shown.unit}".rstrip()


def _ruler(trials: pl.DataFrame, known: pl.DataFrame, name: str, *, metric: str, axes: list[str]) -> _Ruler:
    values, shown = trials[name], quantity(name, trials[name])
    distinct, note = values.unique().sort(), ""
    if not values.dtype.is_numeric():
        if len(distinct) > MAX_VALUES:
            note = f"{shown.label}: the best {MAX_VALUES} of {len(distinct):,}"
            best = best_first(known, metric=metric)[name].unique(maintain_order=True).head(MAX_VALUES)
            distinct = best.sort()
        return _Ruler(shown, distinct, [middle_cut(str(value)) for value in distinct], False, True, note)
    n_bins = min(max(math.isqrt(len(trials) // 4), 3), MAX_BINS)
    if len(distinct) <= (n_bins if is_random(trials, axes=axes) else MAX_VALUES):
        return _Ruler(shown, distinct, [shown.tick(value) for value in distinct], False, False, "")
    borders = np.unique(np.quantile(values.to_numpy(), np.linspace(0.0, 1.0, n_bins + 1)))
    labels = [shown.tick(border, digits=3) for border in borders]
    note = f"{shown.label}: {len(distinct):,} values in {len(borders) - 1} bins of about equally many trials"
    return _Ruler(shown, pl.Series(borders[1:-1]), labels, True, False, note)


def _reduced(cells: pl.DataFrame, *, metric: str, reduce: Reduce) -> pl.DataFrame:
    lower, value = metric in LOWER_IS_BETTER, pl.col(metric)
    how = {"mean": value.mean(), "median": value.median()}
    how["best"], how["worst"] = (value.min(), value.max()) if lower else (value.max(), value.min())
    return cells.group_by("_row", "_column").agg(how[reduce])


def _best_cell(mesh: np.ndarray, *, metric: str) -> tuple[int, int]:
    place = np.nanargmin(mesh) if metric in LOWER_IS_BETTER else np.nanargmax(mesh)
    row, column = np.unravel_index(place, mesh.shape)
    return int(row), int(column)


def _cell_text(cells: pl.DataFrame, *, x: str, y: str, reduce: Reduce) -> str:
    counts = cells.group_by("_row", "_column").len()["len"].to_list()
    low, high = min(counts), max(counts)
    if high == 1:
        return "a cell is one trial"
    over = [name for name in cells.columns if name.startswith("param_") and name not in (x, y)]
    over = [quantity(name, cells[name]).label for name in over if cells[name].n_unique() > 1]
    text = f"a cell shows the {reduce} of " + (f"{low:,}" if low == high else f"{low:,} to {high:,}") + " trials"
    return text + (f" over {', '.join(over)}" if over else "")


def _layout(across: _Ruler, upward: _Ruler) -> tuple[float, float, int]:
    """Width and height in inches, and the angle of the names below; long ones stand on end when they are many."""
    letters_inches = LETTER_INCHES * max(len(label) for label in across.labels)
    width, height, rotation = 3.4 + 0.62 * across.n_cells, 3.0 + 0.36 * upward.n_cells, 0
    if across.is_text and 3.4 + letters_inches * across.n_cells > MAX_INCHES:
        height, rotation = height + letters_inches, 90
    elif across.is_text:
        width = max(width, 3.4 + letters_inches * across.n_cells)
    return (
        min(max(width, 8.0), MAX_INCHES),
        min(max(height, 5.2 + letters_inches * (rotation > 0)), MAX_INCHES),
        rotation,
    )


def _draw_mesh(axes: Axes, mesh: np.ndarray, shown: Quantity, *, metric: str) -> None:
    colours, norm = colour_scale(mesh[np.isfinite(mesh)], metric=metric)
    n_rows, n_columns = mesh.shape
    axes.patch.set(facecolor="#ececec", edgecolor="#b4b4b4", hatch="////")
    axes.grid(False)
    axes.pcolormesh(
        np.arange(n_columns + 1), np.arange(n_rows + 1), np.ma.masked_invalid(mesh), cmap=colours, norm=norm,
        edgecolors="white" if mesh.size <= MAX_PRINTED_CELLS else "none", linewidth=0.8, zorder=2,
    )  # fmt: skip
    if mesh.size <= MAX_PRINTED_CELLS:
        _print_values(axes, mesh, colours, norm)
    figure: Any = axes.get_figure()
    aspect = 4.5 * (figure.get_figheight() - 2.6)  # as high as the map, a quarter of an inch wide
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, fraction=0.1, pad=0.02, aspect=aspect)
    bar.set_label(shown.title, labelpad=8)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(FixedLocator(_colour_ticks(norm)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if not np.isfinite(mesh).all():
        key = Patch(facecolor="#ececec", edgecolor="#b4b4b4", hatch="////", label="no value")
        axes.legend(handles=[key], loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def colour_scale(values: np.ndarray, *, metric: str) -> tuple[Colormap, Normalize]:
    """Colours for a metric, the better end blue or bright; red to blue around 0 when the values change sign."""
    low, high = float(values.min()), float(values.max())
    turned = "_r" if metric in LOWER_IS_BETTER else ""
    if low < 0.0 < high:
        side = LEAST_SIDE * max(-low, high)
        return colormaps["RdBu" + turned], TwoSlopeNorm(0.0, vmin=min(low, -side), vmax=max(high, side))
    room = 0.0 if low < high else (abs(low) or 1.0) * 0.05
    return colormaps["viridis" + turned], Normalize(low - room, high + room)


def _colour_ticks(norm: Normalize) -> list[float]:
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    sides = [(low, 0.0), (0.0, high)] if isinstance(norm, TwoSlopeNorm) else [(low, high)]
    ticks = {round(float(tick), 12) for side in sides for tick in MaxNLocator(8 // len(sides)).tick_values(*side)}
    return sorted(tick for tick in ticks if low <= tick <= high)


def _print_values(axes: Axes, mesh: np.ndarray, colours: Colormap, norm: Normalize) -> None:
    largest = np.nanmax(np.abs(mesh))
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 0.1 else 4
    for row, column in np.argwhere(np.isfinite(mesh)):
        value = mesh[row, column]
        red, green, blue, _ = colours(norm(value))
        ink = BLACK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        text = f"{value:,.{digits}f}".replace("-", MINUS)
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8.5, color=ink, zorder=3)


def _label(axes: Axes, across: _Ruler, upward: _Ruler, *, rotation: int) -> None:
    for side, ruler in ((axes.xaxis, across), (axes.yaxis, upward)):
        places = range(0, len(ruler.labels), 1 if ruler.is_text else math.ceil(len(ruler.labels) / MAX_TICKS))
        at = [place + (0.0 if ruler.is_binned else 0.5) for place in places]
        side.set_ticks(at, [ruler.labels[place] for place in places], parse_math=False)
        side.set_tick_params(length=3 if ruler.is_binned else 0)
    axes.tick_params(axis="x", labelrotation=rotation)
    axes.set_xlabel(across.shown.title, parse_math=False)
    axes.set_ylabel(upward.shown.title, parse_math=False)
    axes.spines[:].set_visible(False)
