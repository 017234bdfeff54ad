"""Whether the best of many trials is skill or luck: walk-forward windows, and the spread of all trials."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from basis_bt.core.errors import ConfigError
from basis_bt.reports.chart_text import GREY, count_of, finite, quantity, short, titled_figure
from basis_bt.reports.charts import BLACK, BLUE, ORANGE, VERMILLION, chart_style, keep_extremes
from basis_bt.reports.robustness import LOWER_IS_BETTER
from basis_bt.reports.summary import percent

N_BARS = 60
MAX_NAMED_WINDOWS, LEAST_NAMED_SHARE = 24, 0.6  # of the longest window
IN_SAMPLE = "#a9b8c6"


def walk_forward_figure(
    windows: pl.DataFrame,
    equity: pl.DataFrame,
    *,
    metric: str,
    title: str = "Walk-forward",
    caption: Sequence[str] = (),
) -> Figure:
    """Equity stitched from the test windows, and below each window the metric in sample against out of sample.

    Parameters
    ----------
    windows : ``window``, ``test_start``, ``test_end``, ``in_sample``, ``out_of_sample`` (values of the metric, null
        when undefined), ``trial`` (the one chosen in sample)
    equity : ``ts``, ``equity_usd``, ``stale`` (rows that are not drawn)
    metric : what the windows were judged by
    title, caption : the heading, and lines about the data for below it

    Raises
    ------
    ConfigError
        If there is no window or no equity.
    """
    if windows.is_empty() or equity.is_empty():
        raise ConfigError(
            "there is nothing to draw",
            where={"windows": len(windows), "equity rows": len(equity)},
            fix="give at least one window and its equity",
        )
    shown = quantity(metric, pl.concat([windows["in_sample"], windows["out_of_sample"]]))
    with chart_style():
        lines = [*caption, _kept_text(windows, metric=metric)]
        figure = titled_figure(title, lines, width=11.0, height=7.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1.0))
        starts, ends = _days(windows["test_start"]), _days(windows["test_end"])
        _draw_stitched(above, equity.filter(~pl.col("stale")), windows, starts, ends)
        inside, outside = (finite(windows[name]) * shown.factor for name in ("in_sample", "out_of_sample"))
        _draw_windows(below, starts, ends, inside, outside)
        below.set_ylabel(shown.title)
        below.set_xlim(min(starts), max(ends))
        locator = AutoDateLocator(tz="UTC", minticks=4, maxticks=10)
        below.xaxis.set_major_locator(locator)
        below.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))
        figure.align_ylabels([above, below])
    return figure


def luck_figure(
    *,
    sharpes: np.ndarray,
    best: float,
    expected_max: float,
    logits: np.ndarray,
    pbo: float,
    title: str,
    caption: list[str],
) -> Figure:
    """The Sharpe ratios of all trials against what luck alone would reach, and how the chosen ranked out of sample.

    Parameters
    ----------
    sharpes : of all trials; those that are not finite are left out and counted
    best : the Sharpe ratio of the trial chosen
    expected_max : the best Sharpe ratio that as many trials without skill are expected to show (SR0)
    logits : of the out-of-sample rank of the in-sample best, one a split of the cross-validation (CSCV); below 0 it
        was worse than the median
    pbo : probability of backtest overfitting, the share of logits at or below 0
    title, caption : the heading, and the lines below it

    Raises
    ------
    ConfigError
        If no trial has a Sharpe ratio.
    """
    known = sharpes[np.isfinite(sharpes)]
    if not len(known):
        raise ConfigError("no trial has a Sharpe ratio", where={"trials": len(sharpes)}, fix="look into their status")
    counted = count_of(len(sharpes), "trial")
    if len(known) < len(sharpes):
        counted += f", {len(sharpes) - len(known):,} without a Sharpe ratio"
    with chart_style():
        lines = [*caption, f"{counted} · {count_of(len(logits), 'split')}"]
        figure = titled_figure(title, lines, width=12.5, height=6.0)
        left, right = figure.subplots(1, 2)
        _draw_sharpes(left, known, best=best, expected_max=expected_max)
        _draw_logits(right, logits[np.isfinite(logits)], pbo=pbo)
    return figure


def _kept_text(windows: pl.DataFrame, *, metric: str) -> str:
    known = windows.drop_nulls(["in_sample", "out_of_sample"])
    text = count_of(len(windows), "window")
    if len(known) < len(windows):
        text += f", {len(windows) - len(known):,} without a value"
    if known.is_empty():
        return text
    shown = quantity(metric, known["in_sample"])
    inside, outside = finite(known["in_sample"]), finite(known["out_of_sample"])
    text += (
        f" · mean {shown.label} {shown.text(float(inside.mean()))} in sample, {shown.text(float(outside.mean()))} out"
    )
    if metric in LOWER_IS_BETTER:
        return text
    return text + f" · {int((outside > 0).sum()):,} of {len(known):,} above 0 out of sample"


def _draw_stitched(
    axes: Axes, equity: pl.DataFrame, windows: pl.DataFrame, starts: np.ndarray, ends: np.ndarray
) -> None:
    days, usd = _days(equity["ts"]), finite(equity["equity_usd"])
    rows = keep_extremes(usd)
    axes.plot(days[rows], usd[rows], color=BLACK, linewidth=1.4, marker="." if len(rows) == 1 else "")
    axes.axhline(float(usd[0]), color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axes.axvline(start, color=BLUE, linewidth=0.8, alpha=0.6, zorder=1, gid="seam")
        if place % 2:
            axes.axvspan(start, end, color=BLUE, alpha=0.05, linewidth=0, zorder=0)
    if len(windows) <= MAX_NAMED_WINDOWS:
        for window, trial, start, end in zip(windows["window"], windows["trial"], starts, ends, strict=True):
            if end - start < LEAST_NAMED_SHARE * (ends - starts).max():
                continue  # its name would run into the one before
            text, middle = f"{window}\ntrial {'–' if trial is None else trial}", (start + end) / 2.0
            axes.annotate(
                text, (middle, 1.0), (0, 3), ha="center", va="bottom",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=min(8.0, 110 / len(windows)),
                color="#555555", parse_math=False,
            )  # fmt: skip
    axes.set_ylabel("equity out of sample, USD")
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_windows(axes: Axes, starts: np.ndarray, ends: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> None:
    middles, widths = (starts + ends) / 2.0, 0.36 * (ends - starts)
    axes.bar(middles - widths / 2, inside, width=widths, color=IN_SAMPLE, gid="in_sample")
    colours = [VERMILLION if value < 0 else BLUE for value in outside]
    axes.bar(middles + widths / 2, outside, width=widths, color=colours, gid="out_of_sample")
    axes.axhline(0.0, color=BLACK, linewidth=0.9)
    for middle in (middles + widths / 2)[np.isnan(outside)]:
        axes.annotate("–", (middle, 0.0), (0, 3), textcoords="offset points", ha="center", color="#555555")
    keys = [Patch(facecolor=IN_SAMPLE, label="in sample"), Patch(facecolor=BLUE, label="out of sample")]
    if (outside < 0).any():
        keys.append(Patch(facecolor=VERMILLION, label="out of sample, below 0"))
    axes.legend(handles=keys, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0.3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _draw_sharpes(axes: Axes, known: np.ndarray, *, best: float, expected_max: float) -> None:
    """Bars from the first percentile up; the few trials below it are counted in the first bar."""
    high = max(float(known.max()), best, expected_max)
    low = min(float(np.quantile(known, 0.01)), best, expected_max)
    room = 0.04 * (high - low) or 0.5
    axes.hist(np.maximum(known, low), bins=N_BARS, range=(low, high + room / 4), color=IN_SAMPLE, gid="sharpes")
    look: dict[str, Any] = {"linewidth": 2.0, "zorder": 4}
    axes.axvline(expected_max, color=ORANGE, linestyle=(0, (4, 2)), gid="expected_max", **look)
    axes.axvline(best, color=BLUE, gid="best", **look)
    keys = [
        Line2D([], [], color=BLUE, linewidth=2.0, label=f"best {best:.2f}"),
        Line2D([], [], color=ORANGE, linewidth=2.0, linestyle=(0, (4, 2)), label=f"best of luck {expected_max:.2f}"),
    ]
    axes.legend(handles=keys, loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=2, borderaxespad=0.3)
    axes.set_title("Sharpe ratios of all trials")
    axes.set_xlim(low - room, high + room)
    n_below = int((known < low).sum())
    axes.set_xlabel("Sharpe ratio" + (f" ({n_below:,} lower ones in the first bar)" if n_below else ""))
    axes.set_ylabel("trials")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_logits(axes: Axes, logits: np.ndarray, *, pbo: float) -> None:
    axes.set_title("Out-of-sample rank")
    axes.set_xlabel("logit of the rank of the best in sample; below 0: worse than the median")
    axes.set_ylabel("splits")
    if not len(logits):
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": "#777777", "style": "italic"}
        axes.text(0.5, 0.5, "no split to draw", transform=axes.transAxes, **look)
        axes.set(xticks=[], yticks=[])
        return
    reach = max(float(np.abs(logits).max()), 0.5) * 1.02
    edges = np.linspace(-reach, reach, 41)
    overfit = logits <= 0.0
    axes.hist(logits[overfit], bins=edges.tolist(), color=VERMILLION, alpha=0.85, gid="overfit")
    axes.hist(logits[~overfit], bins=edges.tolist(), color=BLUE, alpha=0.85, gid="kept")
    axes.axvline(0.0, color=BLACK, linewidth=0.9)
    keys = [
        Patch(facecolor=VERMILLION, alpha=0.85, label=f"overfit: PBO {percent(pbo, digits=1)}"),
        Patch(facecolor=BLUE, alpha=0.85, label="better than the median"),
    ]
    axes.legend(handles=keys, loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=2, borderaxespad=0.3)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _days(ts: pl.Series) -> np.ndarray:
    naive = ts.dt.replace_time_zone(None) if ts.dtype.is_temporal() and getattr(ts.dtype, "time_zone", None) else ts
    return np.asarray(date2num(naive.to_numpy()))
