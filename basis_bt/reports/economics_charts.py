"""What a carry trade must do to pay: how long to hold, how much it carries, and which assumption matters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from basis_bt.core.errors import ConfigError
from basis_bt.reports.chart_text import GREY, MINUS, compact_usd, count_of, finite, middle_cut, short, titled_figure
from basis_bt.reports.charts import (
    BLACK,
    BLUE,
    GREEN,
    LEG_COLOURS,
    LEG_DASHES,
    ORANGE,
    VERMILLION,
    chart_style,
)

HOUR_TICKS = (0.25, 1, 2, 4, 8, 24, 48, 96, 168, 336, 720, 2160, 4320, 8760, 17_520, 43_800)
NAMED_COMPONENTS = len(LEG_COLOURS)


def breakeven_figure(
    frame: pl.DataFrame, *, breakeven_hours: float | None, title: str = "Break-even hold", caption: Sequence[str] = ()
) -> Figure:
    """PnL of a trade over how long it is held, with the funding it collects and the costs it pays.

    Parameters
    ----------
    frame : ``hold_hours`` (above 0), ``pnl_per_trade_bps``, ``funding_bps`` (positive when received), ``costs_bps``
        (positive when paid); bps of the notional
    breakeven_hours : the hold from which a trade pays; None if none does, which the caption then says
    title, caption : the heading, and lines about the data for below it

    Raises
    ------
    ConfigError
        If the frame is empty.
    """
    frame = frame.sort("hold_hours")
    hold_hours, pnl_bps = _points(frame, "hold_hours"), finite(frame["pnl_per_trade_bps"])
    said = "does not break even within the holds shown"
    if breakeven_hours is not None:
        said = f"breaks even at {_hours_text(breakeven_hours)}"
    with chart_style():
        figure = titled_figure(title, [*caption, f"{count_of(len(frame), 'hold')} · {said}"], width=9.5, height=5.8)
        axes = figure.add_subplot()
        _lines(axes, hold_hours, [
            (pnl_bps, "PnL a trade", BLACK), (finite(frame["funding_bps"]), "funding received", GREEN),
            (finite(frame["costs_bps"]), "costs paid", VERMILLION),
        ])  # fmt: skip
        for sign, colour in ((1.0, GREEN), (-1.0, VERMILLION)):
            axes.fill_between(hold_hours, pnl_bps, 0.0, where=sign * pnl_bps > 0, color=colour, alpha=0.10, linewidth=0,
                              interpolate=True)  # fmt: skip
        _mark_and_legend(axes, breakeven_hours, 0.0, said.replace("breaks even at", "break-even"))
        axes.set_xlabel("hold")
        axes.set_ylabel("bps of notional, a trade")
        low, high = axes.get_xlim()
        shown = [tick for tick in HOUR_TICKS if low <= tick <= high]
        axes.xaxis.set_major_locator(FixedLocator(shown if len(shown) > 1 else sorted(set(hold_hours.tolist()))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _hours_text(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    return figure


def capacity_figure(
    frame: pl.DataFrame, *, capacity_usd: float | None, title: str = "Capacity", caption: Sequence[str] = ()
) -> Figure:
    """APR on capital over the capital put in, with the funding earned and the costs that grow with size.

    Parameters
    ----------
    frame : ``capital_usd`` (above 0), ``apr_on_capital``, ``funding_apr`` (positive when received), ``cost_apr``
        (positive when paid); fractions of the capital a year
    capacity_usd : the capital at which the APR meets what is asked of it; None if it does not within the frame
    title, caption : the heading, and lines about the data for below it

    Raises
    ------
    ConfigError
        If the frame is empty.
    """
    frame = frame.sort("capital_usd")
    capital_usd, apr_pct = _points(frame, "capital_usd"), 100.0 * finite(frame["apr_on_capital"])
    said, at_pct = "no crossing within the capital shown", 0.0
    if capacity_usd is not None:
        has_apr = np.isfinite(apr_pct)
        at_pct = float(np.interp(np.log(capacity_usd), np.log(capital_usd[has_apr]), apr_pct[has_apr]))
        said = f"capacity {compact_usd(capacity_usd)} USD, where the APR is {short(round(at_pct, 2) + 0.0)} %"
    with chart_style():
        figure = titled_figure(title, [*caption, f"{count_of(len(frame), 'size')} · {said}"], width=9.5, height=5.8)
        axes = figure.add_subplot()
        _lines(axes, capital_usd, [
            (apr_pct, "APR on capital", BLACK), (100.0 * finite(frame["funding_apr"]), "funding received", GREEN),
            (100.0 * finite(frame["cost_apr"]), "costs paid", VERMILLION),
        ])  # fmt: skip
        _mark_and_legend(axes, capacity_usd, at_pct, said.split(",")[0])
        axes.set_xlabel("capital, USD")
        axes.set_ylabel("% of capital a year")
        is_wide = capital_usd.max() >= 1e4 * capital_usd.min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact_usd(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    return figure


def sensitivity_figure(
    frame: pl.DataFrame, *, title: str = "Sensitivity to the assumptions", caption: Sequence[str] = ()
) -> Figure:
    """A tornado of what each assumption moves, the strongest on top, and the PnL over the scale of each.

    Parameters
    ----------
    frame : ``component``, ``scale`` (1 is as assumed), ``pnl_usd``, ``change_usd`` (against scale 1); bars go to the
        lowest and highest scale of each component
    title, caption : the heading, and lines about the data for below it

    Raises
    ------
    ConfigError
        If the frame is empty.
    """
    known = frame.drop_nulls(["pnl_usd", "change_usd"])
    _points(known, "scale")
    effect = pl.col("change_usd").abs().max()
    order = known.group_by("component").agg(effect).sort("change_usd", "component")["component"].to_list()
    lines = [f"{count_of(len(order), 'assumption')}, {count_of(len(frame), 'backtest')}"]
    if len(known) < len(frame):
        lines[0] += f", {len(frame) - len(known):,} without a value"
    if len(order) > NAMED_COMPONENTS:
        lines[0] += f" · the {NAMED_COMPONENTS} strongest as lines"
    with chart_style():
        height = min(max(3.4 + 0.42 * len(order), 5.4), 13.0)
        figure = titled_figure(title, [*caption, *lines], width=13.0, height=height)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
        _draw_tornado(left, known, order)
        _draw_scales(right, known, order[::-1][:NAMED_COMPONENTS])
    return figure


def _points(frame: pl.DataFrame, name: str) -> np.ndarray:
    if frame.is_empty():
        raise ConfigError("there is nothing to draw", where={"column": name}, fix="give a frame with rows")
    return finite(frame[name])


def _lines(axes: Axes, x: np.ndarray, series: list[tuple[np.ndarray, str, str]]) -> None:
    marker = "o" if len(x) <= 25 else ""
    for values, label, colour in series:
        axes.plot(x, values, color=colour, linewidth=2.0 if colour == BLACK else 1.3, marker=marker, markersize=3.5,
                  label=label)  # fmt: skip
    axes.axhline(0.0, color=GREY, linewidth=0.9, zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = float(x.min()), float(x.max())
    room = (high / low) ** 0.02 if high > low else 1.5
    axes.set_xlim(low / room, high * room)


def _mark_and_legend(axes: Axes, x: float | None, y: float, text: str) -> None:
    """A dot where the lines cross, named above the axes; the legend stands in the other half."""
    is_left = False
    if x is not None:
        axes.axvline(x, color=BLUE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.plot([x], [y], marker="o", markersize=8, color=BLUE, markeredgecolor="white", zorder=5, gid="crossing")
        share = float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0])
        is_left = share < 0.5
        look: dict[str, Any] = {"va": "bottom", "color": BLUE, "fontweight": "bold", "parse_math": False}
        look["ha"] = "left" if share < 0.12 else "right" if share > 0.88 else "center"
        axes.annotate(text, (x, 1.0), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", **look)
    corner: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0)}
    if is_left:
        corner = {"loc": "lower right", "bbox_to_anchor": (1.01, 1.0)}
    axes.legend(ncols=3, borderaxespad=0.3, **corner)


def _hours_text(value: float) -> str:
    """A hold as a trader says it: minutes, hours, days, years."""
    for size, unit in ((8760.0, "y"), (24.0, "d"), (1.0, "h")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{60.0 * value:.3g} min"


def _draw_tornado(axes: Axes, known: pl.DataFrame, order: list[str]) -> None:
    bars = (
        known.sort("scale")
        .group_by("component")
        .agg(low=pl.col("change_usd").first(), high=pl.col("change_usd").last(),
             low_scale=pl.col("scale").first(), high_scale=pl.col("scale").last())
    )  # fmt: skip
    rows = {row["component"]: row for row in bars.iter_rows(named=True)}
    for place, component in enumerate(order):
        row = rows[component]
        is_one_sided = row["low"] * row["high"] > 0  # both bars would cover the same place
        for end, colour, aside in (("low", BLUE, -0.2), ("high", ORANGE, 0.2)):
            width, scale = row[end], row[f"{end}_scale"]
            at = place + aside * is_one_sided
            axes.barh(at, width, height=0.36 if is_one_sided else 0.72, color=colour, alpha=0.85, linewidth=0)
            side = 1 if width >= 0 else -1
            axes.annotate(
                f"×{scale:g}", (width, at), (4 * side, 0), textcoords="offset points", va="center", fontsize=8.5,
                ha="left" if side > 0 else "right", color="#444444",
            )  # fmt: skip
    axes.set_yticks(range(len(order)), [middle_cut(str(name)) for name in order], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.axvline(0.0, color=BLACK, linewidth=0.9)
    axes.margins(x=0.14)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed_compact(value)))
    axes.set_xlabel("change of PnL, USD")
    keys = [Patch(facecolor=colour, alpha=0.85, label=f"{end} scale") for colour, end in
            ((BLUE, "lowest"), (ORANGE, "highest"))]  # fmt: skip
    axes.legend(handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, borderaxespad=0.3)


def _draw_scales(axes: Axes, known: pl.DataFrame, components: list[str]) -> None:
    for place, component in enumerate(components):
        rows = known.filter(pl.col("component") == component).sort("scale")
        look: dict[str, Any] = {"color": LEG_COLOURS[place], "linestyle": LEG_DASHES[place % len(LEG_DASHES)]}
        label = middle_cut(str(component), letters=24)
        axes.plot(rows["scale"].to_numpy(), rows["pnl_usd"].to_numpy(), linewidth=1.6, marker="o", markersize=3.5,
                  label=label, **look)  # fmt: skip
    axes.axvline(1.0, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.axhline(0.0, color=BLACK, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact_usd(value)))
    axes.set_xlabel("scale of the assumption")
    axes.set_ylabel("PnL, USD")
    legend = axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.3)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _signed_compact(value: float) -> str:
    text = compact_usd(value)
    return text if value == 0 or text.startswith(MINUS) else f"+{text}"
