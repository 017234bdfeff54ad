"""The scan of a market folder as a picture: what each perp pays against how steadily it paid."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from basis_bt.core.units import HOURS_PER_YEAR
from basis_bt.reports.charts import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, chart_style, save_chart

LABELLED = 20
FAR_POINTS = 12.0
_PLACES: tuple[tuple[float, float, Literal["left", "center", "right"]], ...] = (
    (7, 0, "left"), (-7, 0, "right"), (6, 7, "left"), (-6, 7, "right"), (6, -7, "left"), (-6, -7, "right"),
    (0, 10, "center"), (0, -10, "center"),
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
GREY = "#9a9a9a"
SIZES_DAYS = (90, 365, 1095)


def scan_figure(table: pl.DataFrame, *, hold_hours: float) -> Figure:
    """APR over the share of weeks that earned, a dot a perp, the best twenty by name.

    The dashed line is the APR that pays a usual round trip of taker fees within the hold.

    Parameters
    ----------
    table : a scan, best first; rows without an APR or a stability are counted in the caption
    hold_hours : the hold that the scan was made for
    """
    drawn = table.filter(pl.col("apr").is_not_null() & pl.col("stability").is_not_null())
    with chart_style():
        figure = Figure(figsize=(11.0, 7.2), facecolor="white")
        axes = figure.add_axes((0.075, 0.085, 0.905, 0.75))
        _draw(axes, drawn, hold_hours=hold_hours)
        place: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "top"}
        figure.text(0.03, 0.975, "Carry scan", fontsize=17, fontweight="bold", **place)
        figure.text(0.03, 0.932, _caption(table, drawn, hold_hours=hold_hours), fontsize=9.5, color="#666666", **place)
    return figure


def write_scan_chart(table: pl.DataFrame, path: Path, *, hold_hours: float) -> Path:
    """Save the picture of a scan as PNG and return its path.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    return save_chart(scan_figure(table, hold_hours=hold_hours), path)


def _draw(axes: Axes, table: pl.DataFrame, *, hold_hours: float) -> None:
    x, y = table["stability"].to_numpy(), table["apr"].to_numpy()
    days = ((table["last"] - table["first"]).dt.total_seconds() / 86_400).to_numpy()
    known = table["net_apr"].is_not_null().to_numpy()
    axes.set_xlabel("share of weeks that earned, in the direction of the APR")
    axes.set_ylabel("APR of settled funding")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if table.is_empty():
        axes.text(0.5, 0.5, "no perp has the weeks for it", transform=axes.transAxes, ha="center", color="#777777")
        return
    bottom, top = _limits(y)
    axes.set_ylim(bottom, top)
    axes.set_xlim(max(-0.02, float(x.min()) - 0.04), 1.045)
    axes.axhline(0.0, color="#8a8a8a", linewidth=0.8, zorder=1)
    keys: list[Any] = []
    cost = table["round_trip_bps"].median()
    if isinstance(cost, float):
        paid = cost / 1e4 * HOURS_PER_YEAR / hold_hours
        look: dict[str, Any] = {"color": BLACK, "linewidth": 0.9, "linestyle": (0, (5, 3))}
        axes.axhline(paid, zorder=1, **look)
        keys.append(Line2D([], [], label=f"pays {cost:g} bps within {hold_hours:g} h: {100 * paid:.1f}%", **look))
    counts = table["venue"].value_counts(sort=True, name="n").sort(["n", "venue"], descending=[True, False])["venue"]
    for place, venue in enumerate(counts):
        colour = COLOURS[place] if place < len(COLOURS) else GREY
        rows = (table["venue"] == venue).to_numpy()
        off = rows & (y < bottom)
        for some, face in ((rows & ~off & known, colour), (rows & ~off & ~known, "none")):
            edge = "white" if face == colour else colour
            axes.scatter(x[some], y[some], s=_area(days[some]), facecolors=face, edgecolors=edge, alpha=0.55,
                         linewidths=0.6 if face == colour else 1.2, zorder=2)  # fmt: skip
        axes.scatter(x[off], np.full(off.sum(), bottom), s=26, marker="v", color=colour, alpha=0.7, linewidths=0,
                     clip_on=False, zorder=2)  # fmt: skip
        keys.append(Line2D([], [], linestyle="", marker="o", markersize=6, color=colour, alpha=0.75, label=str(venue)))
    for size in SIZES_DAYS:
        look = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "#777777", "linestyle": ""}
        keys.append(Line2D([], [], markersize=float(np.sqrt(_area(size))), label=f"{size} days", **look))
    if not known.all():
        look = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "#777777", "linestyle": ""}
        keys.append(Line2D([], [], markersize=6, label="fees not known", **look))
    if (y < bottom).any():
        keys.append(Line2D([], [], linestyle="", marker="v", color="#777777", label=f"{int((y < bottom).sum())} below"))
    axes.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=(len(keys) + 1) // 2, columnspacing=1.6,
        handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip
    _label(axes, table, bottom=bottom)


def _limits(apr: np.ndarray) -> tuple[float, float]:
    """Everything above zero, and below it no more than would take a third of the height."""
    top = max(float(apr.max()) * 1.08, 0.02)
    return max(min(float(apr.min()), 0.0) * 1.08 - 0.03 * top, -0.45 * top), top


def _area(days: Any) -> Any:
    return 10.0 + 130.0 * np.minimum(np.asarray(days, dtype=float), 1826.0) / 1826.0


def _label(axes: Axes, table: pl.DataFrame, *, bottom: float) -> None:
    """Names beside the first dots of the table, each where it covers no other name and, if it can be, no dot."""
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    rows = [row for row in table.iter_rows(named=True) if row["apr"] >= bottom]
    dots = [_around(axes, row) for row in rows]
    names: list[Bbox] = []
    for row, dot in zip(rows[:LABELLED], dots, strict=False):
        text = axes.annotate(
            row["symbol"], (row["stability"], row["apr"]), xytext=(0, 0), textcoords="offset points", va="center",
            fontsize=8, color="#222222", parse_math=False, zorder=4,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )  # fmt: skip
        others = [other for other in dots if other is not dot]
        for taken in ([*names, *others], [*names, *others[:LABELLED]]):
            if _place(axes, text, taken):
                names.append(text.get_window_extent())
                if np.hypot(*text.get_position()) > FAR_POINTS:
                    axes.annotate("", text.xy, xytext=text.get_position(), textcoords="offset points",
                                  arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.6})  # fmt: skip
                break
        else:
            text.remove()


def _place(axes: Axes, text: Annotation, taken: list[Bbox]) -> bool:
    """Move a name to the first place that is free; whether there is one."""
    for scale in (1.0, 1.8, 3.0):
        for dx, dy, side in _PLACES:
            text.set_position((dx * scale, dy * scale))
            text.set_horizontalalignment(side)
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 10 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                return True
    return False


def _around(axes: Axes, row: dict[str, Any]) -> Bbox:
    x, y = axes.transData.transform((row["stability"], row["apr"]))
    return Bbox.from_bounds(x - 4, y - 4, 8, 8)


def _caption(table: pl.DataFrame, drawn: pl.DataFrame, *, hold_hours: float) -> str:
    parts = [f"{len(drawn):,} perps of {drawn['venue'].n_unique()} venues"]
    if len(drawn):
        parts.append(f"settled funding {str(drawn['first'].min())[:10]} to {str(drawn['last'].max())[:10]}")
    parts.append(f"the first {min(LABELLED, len(drawn))} of the table by name" if len(drawn) else "nothing to draw")
    if len(table) > len(drawn):
        parts.append(f"{len(table) - len(drawn)} too short to draw")
    return " · ".join(parts)
