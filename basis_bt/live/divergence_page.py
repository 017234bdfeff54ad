"""A divergence on one page: as text for a terminal, and as a chart of its causes."""

import textwrap
from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from basis_bt.live.divergence import ABSENT, EXTRA, MATCHED, OUTSIDE, RESIDUAL, totals
from basis_bt.reports.chart_text import MINUS, compact_usd, count_of, titled_figure
from basis_bt.reports.charts import BLACK, GREEN, VERMILLION, chart_style
from basis_bt.reports.summary import number, stamp

WORDS = {
    "missed": "missed and extra trades", "size": "size of the positions", "timing": "delay from decision to send",
    "price": "prices of other bars", "spread": "spread", "impact": "impact", "fees": "fees", "funding": "funding",
    "rollback": "rollbacks", "other": "transfers, loans, other", "residual": "not explained",
}  # fmt: skip
SHOWN_TRADES = 12
WHY_AT = 52  # column of the text at which it is said why a trade differs
NOTHING_USD = 0.005  # rounds to no cent


def divergence_text(frame: pl.DataFrame, *, title: str = "reality and model") -> str:
    """Totals, causes, and the trades that differ most, as aligned plain text under 100 columns."""
    kinds = frame["kind"].to_list()
    counts = f"{kinds.count(MATCHED)} matched, {kinds.count(ABSENT)} missed, {kinds.count(EXTRA)} extra"
    pnl, model_pnl, difference = frame.select(pl.col("pnl_usd", "model_pnl_usd", "difference_usd").sum()).row(0)
    lines = [title, "=" * len(title), f"trades           {counts}", ""]
    lines += _money([("model, USD", model_pnl)])
    causes = [(name, usd) for name, usd in totals(frame) if abs(usd) >= NOTHING_USD or name == RESIDUAL]
    lines += _money([(f"  {WORDS[name]}", usd) for name, usd in causes], signed=True)
    lines += _money([("reality, USD", pnl)]) + _money([("difference, USD", difference)], signed=True) + [""]
    worst = frame.filter(pl.col("difference_usd").abs() >= NOTHING_USD)
    worst = worst.sort(pl.col("difference_usd").abs(), descending=True).head(SHOWN_TRADES)
    if worst.is_empty():
        return "\n".join([*lines, "no trade differs by a cent"]) + "\n"
    lines.append("trades that differ most")
    for row in worst.iter_rows(named=True):
        why = textwrap.wrap(_why(row), 100 - WHY_AT) or [""]
        lines.append(f"  {_trade_name(row):<34}{_signed(row['difference_usd']):>14}  {why[0]}")
        lines += [" " * WHY_AT + more for more in why[1:]]
    return "\n".join(lines) + "\n"


def _money(rows: Sequence[tuple[str, float]], *, signed: bool = False) -> list[str]:
    return [f"{label:<32}{_signed(usd) if signed else number(usd):>16}" for label, usd in rows]


def _signed(usd: float) -> str:
    text = number(usd)
    return text if text.startswith("-") or not text.strip("0.,") else f"+{text}"


def _trade_name(row: dict[str, Any]) -> str:
    if row["kind"] == OUTSIDE:
        return "outside of trades"
    which = f"#{row['trade']}" if row["trade"] is not None else f"model #{row['model_trade']}"
    return f"{which}, {stamp(row['entry_ts'] or row['model_entry_ts'])}"


def _why(row: dict[str, Any]) -> str:
    """The cause that weighs most, and what is known of it."""
    name = max(WORDS, key=lambda cause: abs(row[f"{cause}_usd"]))
    if row["kind"] in (ABSENT, EXTRA):
        return f"{row['kind']}: {row['reason']}"
    told = f"{name} {_signed(row[f'{name}_usd'])}"
    return f"{told} ({row['reason']})" if row["reason"] else told


def divergence_figure(frame: pl.DataFrame, *, title: str = "Reality and model", caption: Sequence[str] = ()) -> Figure:
    """A bar a cause between the model's PnL and reality's, each beginning where the one above it ends."""
    pnl, model_pnl = frame.select(pl.col("pnl_usd", "model_pnl_usd").sum()).row(0)
    causes = [(WORDS[name], usd) for name, usd in totals(frame) if abs(usd) >= NOTHING_USD]
    n_trades = int((frame["kind"] != OUTSIDE).sum())
    said = f"{count_of(n_trades, 'trade')} · reality less model {_signed_compact(pnl - model_pnl)} USD"
    with chart_style():
        figure = titled_figure(title, [*caption, said], width=9.5, height=2.6 + 0.42 * (len(causes) + 2))
        axes = figure.add_subplot()
        _draw(axes, causes, pnl=pnl, model_pnl=model_pnl)
    return figure


def _draw(axes: Axes, causes: Sequence[tuple[str, float]], *, pnl: float, model_pnl: float) -> None:
    names = ["model", *(name for name, _ in causes), "reality"]
    at = model_pnl
    bars = [(0.0, model_pnl, BLACK)]
    for _, usd in causes:
        bars.append((at, usd, GREEN if usd > 0 else VERMILLION))
        at += usd
    bars.append((0.0, pnl, BLACK))
    for place, (start, width, colour) in enumerate(bars):
        axes.barh(place, width, left=start, height=0.68, color=colour, alpha=0.88, linewidth=0)
        end = start + width
        if place < len(bars) - 1:
            axes.plot([end, end], [place - 0.34, place + 1.34], color="#8a8a8a", linewidth=0.8, zorder=1)
        text = compact_usd(width) if colour == BLACK else _signed_compact(width)
        side = -1 if width < 0 else 1
        axes.annotate(text, (end, place), (4 * side, 0), textcoords="offset points", va="center", fontsize=8.5,
                      ha="right" if side < 0 else "left", color="#444444")  # fmt: skip
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    ends = [edge for start, width, _ in bars[1:-1] for edge in (start, start + width)] or [pnl, model_pnl]
    low, high = min(*ends, pnl, model_pnl), max(*ends, pnl, model_pnl)
    if low > 0.0 and high - low < 0.25 * low:  # the causes would be slivers beside the PnL: the axis is cut
        axes.set_xlim(low - 0.35 * (high - low) - 1e-9, high + 0.35 * (high - low) + 1e-9)
        axes.set_xlabel("PnL, USD (the axis does not begin at 0)")
    else:
        axes.axvline(0.0, color=BLACK, linewidth=0.9)
        axes.margins(x=0.16)
        axes.set_xlabel("PnL, USD")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact_usd(value)))


def _signed_compact(value: float) -> str:
    text = compact_usd(value)
    return text if value == 0 or text.startswith(MINUS) else f"+{text}"
