"""Charts of one run, drawn on the Axes or Figure that is handed in; nothing here opens a window or keeps state.

Colours are those of Okabe and Ito, which readers with any colour vision tell apart. Long series are thinned before
drawing: a line keeps the lowest and highest row of each stretch, a stacked area its last row.
"""

import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from basis_bt.core.errors import StoreError
from basis_bt.reports.summary import (
    INCIDENTS,
    SOURCES,
    capital_usd,
    legs_of,
    metrics_of,
    number,
    percent,
    span_text,
)

MAX_POINTS = 4000
HOURS_A_YEAR = 8760.0
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#1a1a1a", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip
SOURCE_COLOURS = {
    "funding": GREEN, "basis": BLUE, "delta": SKY, "fees": VERMILLION, "slippage": ORANGE, "rollback": PURPLE,
    "transfer": YELLOW, "liquidation": BLACK, "borrow": "#8c564b", "delivery_fee": "#7f7f7f", "yield": "#8fbc5a",
    "fx": "#17365d",
}  # fmt: skip
LEG_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
LEG_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
HELD_COLOURS = {+1: "#0072b2", -1: "#e69f00"}
HELD_LABELS = {+1: "held", -1: "held, reversed"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.usetex": False,
    "text.color": BLACK,
    "path.simplify": True,
}


def report_figure(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Figure:
    """The whole page: equity, drawdown, attribution, basis, funding and signal over one time axis."""
    with chart_style():
        figure = Figure(figsize=(11.0, 14.6), facecolor="white")
        grid = figure.add_gridspec(
            6, 1, height_ratios=(2.5, 1.0, 2.5, 1.5, 1.5, 1.5), hspace=0.36,
            left=0.105, right=0.975, top=0.907, bottom=0.035,
        )  # fmt: skip
        first = figure.add_subplot(grid[0])
        axes = [first] + [figure.add_subplot(grid[i], sharex=first) for i in range(1, 6)]
        draw_equity(axes[0], manifest, tables)
        draw_drawdown(axes[1], manifest, tables)
        draw_attribution(axes[2], manifest, tables)
        draw_basis(axes[3], manifest, tables)
        draw_funding(axes[4], manifest, tables)
        draw_signal(axes[5], manifest, tables)
        for inner in axes[:-1]:
            inner.xaxis.get_offset_text().set_visible(False)
        figure.align_ylabels(axes)
        _draw_heading(figure, manifest, tables)
    return figure


@contextmanager
def chart_style() -> Iterator[None]:
    """Our own look whatever the reader's matplotlibrc says; a character the font lacks is drawn as a box, silently."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def chart_png(figure: Figure) -> bytes:
    """A figure as a PNG of 150 dots an inch."""
    buffer = BytesIO()
    with chart_style():
        figure.savefig(buffer, dpi=150, format="png")
    return buffer.getvalue()


def save_chart(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG and return its path; missing folders are made.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chart_png(figure))
    except OSError as error:
        raise StoreError(
            f"the chart cannot be written: {error.strerror or error}",
            where={"file": path},
            fix="give another file for the chart",
        ) from error
    return path


def draw_equity(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """Equity in USD, with the initial capital as a line, holding periods shaded and stale rows marked."""
    equity = tables["equity"]
    _line(axes, equity["ts"], equity["equity_usd"], color=BLACK, linewidth=1.3)
    axes.axhline(capital_usd(manifest), color="#8a8a8a", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    keys: list[Any] = [
        Line2D([], [], color=BLACK, linewidth=1.3, label="equity"),
        Line2D([], [], color="#8a8a8a", linewidth=0.9, linestyle=(0, (4, 3)), label="initial capital"),
    ]
    keys += _shade_held(axes, manifest, equity) + _mark_stale(axes, manifest, equity)
    _finish(axes, manifest, equity, title="Equity", unit="USD", keys=keys)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _usd_tick(value, axes.get_ylim())))


def draw_drawdown(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """Fall from the running peak, in percent, downward."""
    equity = tables["equity"]
    fall_pct = _floats(equity["drawdown_frac"]) * -100.0
    rows = keep_extremes(fall_pct)
    x = _dates(equity["ts"])[rows]
    axes.fill_between(x, fall_pct[rows], 0.0, color=VERMILLION, alpha=0.25, linewidth=0)
    axes.plot(x, fall_pct[rows], color=VERMILLION, linewidth=0.9, marker="." if len(rows) == 1 else "")
    _finish(axes, manifest, equity, title="Drawdown", unit="% of peak", keys=[])
    low = float(np.nanmin(fall_pct)) if np.isfinite(fall_pct).any() else 0.0
    axes.set_ylim(1.08 * low if low < 0 else -1.0, 0.0)


def draw_attribution(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """Cumulative PnL by source: what added is stacked above zero, what cost below; the net is the line."""
    equity, parts = tables["equity"], attribution_by_source(tables["attribution"])
    rows = keep_last(len(parts))
    x = _dates(parts["ts"])[rows]
    above, below = np.zeros(len(rows)), np.zeros(len(rows))
    keys: list[Any] = []
    for source in parts.columns[1:-1]:
        values = _floats(parts[source])[rows]
        gain, loss = np.maximum(values, 0.0), np.minimum(values, 0.0)
        colour = SOURCE_COLOURS[source]
        axes.fill_between(x, above, above + gain, color=colour, alpha=0.8, linewidth=0)
        axes.fill_between(x, below, below + loss, color=colour, alpha=0.8, linewidth=0)
        above, below = above + gain, below + loss
        label = f"{source} {_signed_usd(float(values[-1]))}"
        keys.append(Patch(facecolor=colour, alpha=0.8, label=label))
    net = _floats(parts["pnl"])[rows]
    axes.plot(x, net, color=BLACK, linewidth=1.3, marker="." if len(rows) == 1 else "")
    axes.axhline(0.0, color="#8a8a8a", linewidth=0.8)
    keys.insert(0, Line2D([], [], color=BLACK, linewidth=1.3, label=f"net {_signed_usd(float(net[-1]))}"))
    _finish(axes, manifest, equity, title="Cumulative PnL by source", unit="USD", keys=keys)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _usd_tick(value, axes.get_ylim())))


def draw_basis(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """Basis of short over long leg in bps, holding periods shaded, stale rows marked."""
    equity = tables["equity"]
    drawn = _line(axes, equity["ts"], equity["basis_bps"], color=BLUE, linewidth=0.9)
    axes.axhline(0.0, color="#8a8a8a", linewidth=0.8, zorder=1)
    keys = _shade_held(axes, manifest, equity) + _mark_stale(axes, manifest, equity)
    _finish(axes, manifest, equity, title="Basis", unit="bps", keys=keys)
    _say_if_empty(axes, drawn, "no basis in this run")


def draw_funding(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """Settled rate of each leg as a simple annual rate in percent; positive: longs pay shorts."""
    equity, funding = tables["equity"], annualised_funding(tables["funding"])
    keys: list[Any] = []
    groups = funding.partition_by("leg", maintain_order=True) if len(funding) else []
    for i, rows in enumerate(groups):
        look: dict[str, Any] = {"color": LEG_COLOURS[i % len(LEG_COLOURS)], "linewidth": 0.9}
        look["linestyle"] = LEG_DASHES[i % len(LEG_DASHES)]
        if _line(axes, rows["settlement_ts"], rows["funding_apr"] * 100.0, drawstyle="steps-pre", **look):
            keys.append(Line2D([], [], label=str(rows["instrument"][0]), **look))
    axes.axhline(0.0, color="#8a8a8a", linewidth=0.8, zorder=1)
    drawn = bool(keys)
    keys += _shade_held(axes, manifest, equity)
    _finish(axes, manifest, equity, title="Settled funding rate, annualised", unit="% a year", keys=keys)
    _say_if_empty(axes, drawn, "no settlement in this run")


def draw_signal(axes: Axes, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    """The signal against the levels the rule enters and leaves at."""
    equity, rule, signal = tables["equity"], manifest["config"]["rule"], manifest["config"]["signal"]
    drawn = _line(axes, equity["ts"], equity["signal"], color=BLACK, linewidth=0.9)
    keys: list[Any] = []
    for name, colour in (("entry", GREEN), ("exit", VERMILLION)):
        level, dashes = float(rule[name]), (0, (5, 2)) if name == "entry" else (0, (1.5, 1.5))
        for value in (level, -level) if rule.get("reverse") else (level,):
            axes.axhline(value, color=colour, linewidth=1.0, linestyle=dashes, zorder=1)
        keys.append(Line2D([], [], color=colour, linewidth=1.0, linestyle=dashes, label=f"{name} {level:g}"))
    keys += _shade_held(axes, manifest, equity)
    _finish(axes, manifest, equity, title=f"Signal: {signal['name']}", unit=_signal_unit(signal["name"]), keys=keys)
    _say_if_empty(axes, drawn, "the signal has no value in this run")


def attribution_by_source(attribution: pl.DataFrame) -> pl.DataFrame:
    """Cumulative USD by source over all legs, signed as they add up: ``ts``, one column a source, ``pnl``.

    What is not in every run (rollbacks, transfers, borrowing, ...) has a column where it cost or brought something.
    """
    slippage = sum((pl.col(f"{part}_usd") for part in ("bucket", "impact", "delay")), start=pl.col("spread_usd"))
    parts: dict[str, tuple[str, ...]] = {source: (f"{source}_usd",) for source, _ in INCIDENTS}
    parts["rollback"] = ("rollback_execution_usd", "rollback_price_usd")
    happened = {
        source: sign * pl.sum_horizontal(parts[source])
        for (source, sign), names in zip(INCIDENTS, parts.values(), strict=True)
        if set(names) <= set(attribution.columns) and any((attribution[name] != 0.0).any() for name in names)
    }
    sources = [source for source, _ in SOURCES] + list(happened)
    return (
        attribution.select(
            "ts",
            funding=pl.col("funding_usd"),
            basis=pl.col("basis_usd"),
            delta=pl.col("delta_usd"),
            fees=-pl.col("fees_usd"),
            slippage=-slippage,
            **happened,
        )
        .group_by("ts")
        .sum()
        .sort("ts")
        .with_columns(pnl=pl.sum_horizontal(sources))
    )


def annualised_funding(funding: pl.DataFrame) -> pl.DataFrame:
    """``leg``, ``instrument``, ``settlement_ts``, ``funding_apr`` (fraction), by leg and time.

    A settlement without its own interval takes the time since the one before, to the next half hour; the first of a
    leg takes the next one's; a lone one is left out.
    """
    gap_hours = (pl.col("settlement_ts").diff().dt.total_seconds() / 1800).round() / 2
    interval_hours = pl.coalesce("interval_hours", gap_hours.over("leg"), gap_hours.shift(-1).over("leg")).cast(
        pl.Float64
    )
    return (
        funding.sort("leg", "settlement_ts")
        .with_columns(funding_apr=pl.col("funding_rate") * HOURS_A_YEAR / interval_hours)
        .select("leg", "instrument", "settlement_ts", "funding_apr")
        .filter(pl.col("funding_apr").is_finite())
    )


def keep_extremes(values: np.ndarray, *, max_points: int = MAX_POINTS) -> np.ndarray:
    """Row numbers that keep the shape of a line: first, last, and the lowest and highest of each stretch."""
    n_rows = len(values)
    if n_rows <= max_points:
        return np.arange(n_rows)
    low, high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
    edges = np.linspace(0, n_rows, max_points // 2).astype(np.int64)
    kept = {0, n_rows - 1}
    for begin, end in pairwise(edges.tolist()):
        kept |= {begin + int(low[begin:end].argmin()), begin + int(high[begin:end].argmax())}
    return np.array(sorted(kept))


def keep_last(n_rows: int, *, max_points: int = MAX_POINTS) -> np.ndarray:
    """Row numbers of the first row and the last of each stretch."""
    if n_rows <= max_points:
        return np.arange(n_rows)
    return np.unique(np.linspace(0, n_rows - 1, max_points).astype(np.int64))


def stretches(codes: np.ndarray) -> list[tuple[int, int, int]]:
    """Code, first row and row after the last of each run of equal codes other than 0."""
    if not len(codes):
        return []
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    return [(int(codes[begin]), begin, end) for begin, end in pairwise(edges) if codes[begin]]


def _line(axes: Axes, ts: pl.Series, values: pl.Series, **look: Any) -> bool:
    numbers = _floats(values)
    if not np.isfinite(numbers).any():
        return False
    rows = keep_extremes(numbers)
    marker = "." if np.isfinite(numbers).sum() == 1 else ""
    axes.plot(_dates(ts)[rows], numbers[rows], marker=marker, **look)
    return True


def _shade_held(axes: Axes, manifest: Mapping[str, Any], equity: pl.DataFrame) -> list[Patch]:
    x, bar_days = _dates(equity["ts"]), manifest["span"]["bar_hours"] / 24.0
    found = stretches(equity["direction"].cast(pl.Int64).to_numpy())
    keys = []
    for direction, colour in HELD_COLOURS.items():
        ranges = [(x[begin], x[end - 1] + bar_days - x[begin]) for code, begin, end in found if code == direction]
        if ranges:
            look: dict[str, Any] = {"facecolor": colour, "alpha": 0.11, "linewidth": 0, "zorder": 0}
            axes.broken_barh(ranges, (0, 1), transform=axes.get_xaxis_transform(), **look)
            keys.append(Patch(facecolor=colour, alpha=0.22, label=HELD_LABELS[direction]))
    return keys


def _mark_stale(axes: Axes, manifest: Mapping[str, Any], equity: pl.DataFrame) -> list[Patch]:
    x, bar_days = _dates(equity["ts"]), manifest["span"]["bar_hours"] / 24.0
    ranges = [
        (x[begin], x[end - 1] + bar_days - x[begin])
        for _, begin, end in stretches(equity["stale"].cast(pl.Int64).to_numpy())
    ]
    if not ranges:
        return []
    axes.broken_barh(
        ranges, (0, 0.045), transform=axes.get_xaxis_transform(), facecolor=PURPLE, edgecolor=PURPLE, linewidth=0.8
    )
    return [Patch(facecolor=PURPLE, label="stale rows")]


def _finish(
    axes: Axes, manifest: Mapping[str, Any], equity: pl.DataFrame, *, title: str, unit: str, keys: list[Any]
) -> None:
    x = _dates(equity["ts"])
    axes.set_xlim(x[0], x[-1] + manifest["span"]["bar_hours"] / 24.0)
    locator = AutoDateLocator(tz="UTC", minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(y=0.08)
    axes.set_title(title, parse_math=False)
    axes.set_ylabel(unit)
    if not keys:
        return
    look: dict[str, Any] = {"handlelength": 1.6, "columnspacing": 1.3, "handletextpad": 0.5}
    if len(title) + sum(len(key.get_label()) + 5 for key in keys) <= 130:
        look |= {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": len(keys), "borderaxespad": 0.2}
    else:  # too long for the line of the title
        look |= {"loc": "upper left", "ncols": 2, "frameon": True, "framealpha": 0.85, "edgecolor": "none"}
    axes.legend(handles=keys, **look)


def _say_if_empty(axes: Axes, drawn: bool, sentence: str) -> None:
    if not drawn:
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": "#777777", "style": "italic"}
        axes.text(0.5, 0.5, sentence, transform=axes.transAxes, **look)


def _draw_heading(figure: Figure, manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> None:
    metrics = metrics_of(tables)
    combo = " · ".join(legs_of(manifest))
    key_numbers = " · ".join(
        (
            f"PnL {_signed_usd(metrics['pnl_usd'])} USD",
            f"APR on capital {percent(metrics['apr_on_capital'])}",
            f"Sharpe {number(metrics['sharpe'])}",
            f"max drawdown {percent(metrics['max_drawdown'])}",
            f"{number(metrics['n_trades'], digits=0)} trades",
        )
    )
    name = textwrap.shorten(str(manifest["name"]), 70, placeholder="…") or "run"
    place: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "top"}
    figure.text(0.03, 0.988, name, fontsize=17, fontweight="bold", **place)
    figure.text(0.03, 0.968, textwrap.shorten(combo, 125, placeholder=" …"), fontsize=10.5, color="#333333", **place)
    figure.text(0.03, 0.9555, span_text(manifest), fontsize=9.5, color="#666666", **place)
    figure.text(0.03, 0.943, key_numbers, fontsize=9.5, color="#333333", **place)


def _usd_tick(value: float, limits: tuple[float, float]) -> str:
    span = abs(limits[1] - limits[0])
    return number(value, digits=0 if span >= 10 else 2).replace("-", "\N{MINUS SIGN}")


def _signed_usd(value: float | None) -> str:
    text = number(value, digits=0)
    return ("+" if value is not None and value > 0 and text != "0" else "") + text.replace("-", "\N{MINUS SIGN}")


def _signal_unit(name: str) -> str:
    return {"funding_apr": "fraction a year", "basis_bps": "bps", "basis_zscore": "deviations"}.get(name, "signal")


def _floats(values: pl.Series) -> np.ndarray:
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _dates(ts: pl.Series) -> np.ndarray:
    return np.asarray(date2num(ts.dt.replace_time_zone(None).to_numpy()))
