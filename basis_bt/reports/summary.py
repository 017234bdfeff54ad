"""A run in one screen: plain text for the terminal, small tables for notebooks, and the rows that both share.

Nothing is computed here beyond shares of capital and totals; the numbers are those of the run's tables.
A value that does not exist (null) is shown as "–", never as 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from polars import DataFrame

from basis_bt.core.instruments import leg_texts

NOTHING = "–"
SOURCES = (("funding", +1), ("basis", +1), ("delta", +1), ("fees", -1), ("slippage", -1))
# shown only where they happened
INCIDENTS = (
    ("rollback", -1), ("transfer", -1), ("liquidation", -1), ("borrow", -1), ("delivery_fee", -1), ("yield", +1),
    ("fx", +1),
)  # fmt: skip
MAX_LISTED = 6

_FRACTION, _RATIO, _HOURS, _COUNT, _MULTIPLE = "fraction", "ratio", "hours", "count", "multiple"
METRICS = (
    ("total_return", "total return", _FRACTION),
    ("cagr", "CAGR", _FRACTION),
    ("apr_on_capital", "APR on capital", _FRACTION),
    ("apr_on_notional", "APR on notional held", _FRACTION),
    ("ann_vol", "volatility, annual", _FRACTION),
    ("sharpe", "Sharpe", _RATIO),
    ("sortino", "Sortino", _RATIO),
    ("calmar", "Calmar", _RATIO),
    ("max_drawdown", "max drawdown", _FRACTION),
    ("max_drawdown_hours", "longest drawdown", _HOURS),
    ("n_trades", "trades", _COUNT),
    ("win_rate", "win rate", _FRACTION),
    ("avg_hold_hours", "average hold", _HOURS),
    ("time_in_market", "time in market", _FRACTION),
    ("turnover", "turnover", _MULTIPLE),
    ("n_refused", "entries refused", _COUNT),
)
INCIDENT_METRICS = (
    ("n_rollbacks", "rollbacks", _COUNT),
    ("n_unfilled", "entries unfilled", _COUNT),
    ("naked_hours", "time naked", _HOURS),
    ("n_liquidations", "liquidations", _COUNT),
    ("min_margin_ratio", "least margin ratio", _FRACTION),
    ("n_rolls", "rolls", _COUNT),
    ("min_health", "least health factor", _RATIO),
)


def number(value: float | None, *, digits: int = 2) -> str:
    """A number with thousands separators; "–" for null or NaN, and no sign on a rounded zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text


def percent(fraction: float | None, *, digits: int = 2) -> str:
    """A fraction as a percentage."""
    return NOTHING if fraction is None or not math.isfinite(fraction) else number(fraction * 100, digits=digits) + " %"


def hours(value: float | None) -> str:
    """A duration in the unit a reader would use: minutes under one hour, days from three days up."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if 0 < value < 1:
        return f"{value * 60:g} min"
    return f"{value / 24:,.1f} d" if value >= 72 else f"{value:,.4g} h"


def stamp(value: datetime | str | None) -> str:
    """An instant as ``2024-03-08 08:00`` (UTC), seconds only where there are any."""
    if value is None:
        return NOTHING
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.strftime("%Y-%m-%d %H:%M:%S" if instant.second else "%Y-%m-%d %H:%M")


def capital_usd(manifest: Mapping[str, Any]) -> float:
    """Initial capital of the run."""
    return float(manifest["config"]["size"]["capital_usd"])


def metrics_of(tables: Mapping[str, DataFrame]) -> dict[str, Any]:
    """The metrics of the run's (first) trial."""
    return tables["metrics"].row(0, named=True)


def legs_of(manifest: Mapping[str, Any]) -> list[str]:
    """The legs with their ratios, e.g. ``+1 spot:binance:BTC-USDT``, in the order of the combo."""
    return leg_texts(manifest["config"]["combo"]["legs"])


def span_text(manifest: Mapping[str, Any]) -> str:
    """First to last bar, step and number of bars."""
    span = manifest["span"]
    return (
        f"{stamp(span['first_bar'])} to {stamp(span['last_bar'])} UTC, "
        f"{span['n_bars']:,} bars of {hours(span['bar_hours'])}"
    )


def attribution_rows(
    manifest: Mapping[str, Any], tables: Mapping[str, DataFrame]
) -> list[tuple[str, float | None, float | None]]:
    """Source, USD and fraction of capital, signed as they add up to the PnL of the last row."""
    metrics, capital = metrics_of(tables), capital_usd(manifest)
    rows = [(source, metrics[f"{source}_usd"], sign) for source, sign in SOURCES]
    rows += [(source, metrics[f"{source}_usd"], sign) for source, sign in INCIDENTS if metrics.get(f"{source}_usd")]
    rows.append(("pnl", metrics["pnl_usd"], 1))
    return [
        (source, None, None) if usd is None else (source, sign * usd, sign * usd / capital)
        for source, usd, sign in rows
    ]


def metric_rows(tables: Mapping[str, DataFrame]) -> list[tuple[str, str]]:
    """Label and formatted value of each metric worth reading."""
    metrics = metrics_of(tables)
    shown: dict[str, Callable[[Any], str]] = {
        _FRACTION: percent,
        _RATIO: number,
        _HOURS: hours,
        _COUNT: lambda value: number(value, digits=0),
        _MULTIPLE: lambda value: NOTHING if value is None else number(value) + " x capital",
    }
    happened = [row for row in INCIDENT_METRICS if metrics.get(row[0])]
    return [(label, shown[kind](metrics[name])) for name, label, kind in (*METRICS, *happened)]


def count_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run had to work around: stale rows, refusals, marks from elsewhere, bars missing or untradable."""
    counts, n_bars = manifest["counts"], manifest["span"]["n_bars"]
    marks = {source: counts["marks"].get(source, 0) for source in ("own", "mark", "trade")}
    n_marks, n_borrowed = sum(marks.values()), marks["mark"] + marks["trade"]
    rows = [
        ("stale rows", f"{counts['stale_rows']:,} of {n_bars:,}"),
        ("refused entries", _total_with_parts(counts["refused"])),
        (
            "mark fallbacks",
            f"{n_borrowed:,} of {n_marks:,} settlements"
            + (f" (mark bars {marks['mark']:,}, trade bars {marks['trade']:,})" if n_borrowed else ""),
        ),
        ("untradable bars", _total_with_parts(counts["untradable_bars"])),
        ("missing bars", _total_with_parts(counts["missing_bars"])),
    ]
    status = manifest.get("status")
    return rows if status in (None, "ok") else [("status", str(status)), *rows]


def summary_text(manifest: Mapping[str, Any], tables: Mapping[str, DataFrame]) -> str:
    """The run as aligned plain text for a terminal, under 100 columns for usual names.

    Fees and slippage carry a minus sign, so the column adds up to the line ``pnl``.
    """
    name = str(manifest["name"])
    head = [("span", span_text(manifest))]
    head += [("legs" if i == 0 else "", leg) for i, leg in enumerate(legs_of(manifest))]
    head += [("capital", number(capital_usd(manifest)) + " USD")]
    status = metrics_of(tables)["status"]
    head += [("status", str(status))] if status != "ok" else []

    attribution = [
        (source, number(usd), percent(share, digits=3)) for source, usd, share in attribution_rows(manifest, tables)
    ]
    money = _columns([("pnl attribution", "USD", "of capital"), *attribution], right=(1, 2))
    money.insert(len(money) - 1, "-" * len(money[0]))

    metrics = metric_rows(tables)
    half = (len(metrics) + 1) // 2
    pairs = [(*left, *right) for left, right in zip(metrics[:half], metrics[half:] + [("", "")], strict=False)]
    flags = [f"  - {flag}" for flag in manifest["flags"]] or ["  none"]
    blocks = [
        [name, "=" * len(name)],
        _columns(head),
        money,
        _columns(pairs, right=(1, 3), gap="   "),
        _columns(count_rows(manifest)),
        ["flags", *flags],
    ]
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def summary_html(manifest: Mapping[str, Any], tables: Mapping[str, DataFrame]) -> str:
    """The run as small tables for a notebook's ``_repr_html_``; every value is escaped."""
    attribution = [
        (source, number(usd), percent(share, digits=3)) for source, usd, share in attribution_rows(manifest, tables)
    ]
    legs = ", ".join(legs_of(manifest))
    flags = "".join(f"<li>{escape(str(flag))}</li>" for flag in manifest["flags"])
    tables_html = "".join(
        f'<div style="margin-right:2em">{table}</div>'
        for table in (
            html_table(("pnl attribution", "USD", "of capital"), attribution, last_is_total=True),
            html_table(("metric", "value"), metric_rows(tables)),
            html_table(("count", "value"), count_rows(manifest)),
        )
    )
    return (
        f"<div><strong>{escape(str(manifest['name']))}</strong><br>{escape(legs)}<br>{escape(span_text(manifest))}"
        f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start;margin-top:.5em">{tables_html}</div>'
        + (f"flags<ul>{flags}</ul>" if flags else "")
        + "</div>"
    )


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, n_text: int = 1, last_is_total: bool = False
) -> str:
    """An HTML table with escaped cells; the first ``n_text`` columns are text, the others numbers to the right."""

    def line(cells: Sequence[object], tag: str, style: str) -> str:
        shown = "".join(
            f'<{tag} style="text-align:{"left" if i < n_text else "right"};{style}">'
            f"{escape(NOTHING if cell is None else str(cell))}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{shown}</tr>"

    numbers = "font-variant-numeric:tabular-nums"
    total = numbers + ";font-weight:600;border-top:1px solid currentColor"
    last = len(rows) - 1
    body = "".join(line(row, "td", total if last_is_total and i == last else numbers) for i, row in enumerate(rows))
    return f"<table><thead>{line(header, 'th', '')}</thead><tbody>{body}</tbody></table>"


def _total_with_parts(parts: Mapping[str, int]) -> str:
    found = sorted(((key, n) for key, n in parts.items() if n), key=lambda item: -item[1])
    if not found:
        return "0"
    listed = [f"{key} {n:,}" for key, n in found[:MAX_LISTED]]
    listed += [f"and {len(found) - MAX_LISTED} more"] if len(found) > MAX_LISTED else []
    return f"{sum(n for _, n in found):,} ({', '.join(listed)})"


def _columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), gap: str = "  ") -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
