"""The report of a run: ``report.png`` and one ``report.html`` that needs nothing else, to be mailed or archived."""

import base64
from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.reports.charts import chart_style, report_figure
from basis_bt.reports.summary import (
    NOTHING,
    attribution_rows,
    capital_usd,
    count_rows,
    hours,
    html_table,
    legs_of,
    metric_rows,
    metrics_of,
    number,
    percent,
    span_text,
    stamp,
)
from basis_bt.store.folder import write_whole

DPI = 130
LEG_PARTS = (
    ("delta", +1), ("basis", +1), ("funding", +1), ("fees", -1),
    ("spread", -1), ("bucket", -1), ("impact", -1), ("delay", -1),
)  # fmt: skip

CSS = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #626b76; --line: #dfe3e8; --page: #f6f7f9; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #98a1ac; --line: #343a42; --page: #15181c; --card: #1e2227; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.45;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 10px; }
p { margin: 2px 0; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile span { display: block; color: var(--soft); font-size: 12px; }
.tile b { font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 0 16px; align-items: start; }
.scroll { overflow: auto; max-height: 560px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); white-space: nowrap; }
.scroll th { position: sticky; top: 0; background: var(--card); }
th, td { padding: 4px 10px 4px 0; vertical-align: top; }
td + td, th + th { padding-left: 10px; }
tbody tr + tr td { border-top: 1px solid var(--line); }
td { white-space: nowrap; }
.wrap td { white-space: normal; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
ul { margin: 0; padding-left: 20px; }
@media print { .scroll { max-height: none; overflow: visible; } section, .tile { break-inside: avoid-page; } }
"""


def write_report(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame], out_dir: Path) -> tuple[Path, Path]:
    """Write ``report.png`` and ``report.html`` into ``out_dir`` (made if missing) and return both paths.

    Each file appears complete or not at all, and replaces an earlier report.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    png = report_png(manifest, tables)
    png_path, html_path = out_dir / "report.png", out_dir / "report.html"
    write_whole(png_path, png)
    write_whole(html_path, report_html(manifest, tables, png=png).encode())
    return png_path, html_path


def report_png(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> bytes:
    """All charts of the run on one page, as a PNG."""
    buffer = BytesIO()
    figure = report_figure(manifest, tables)
    with chart_style():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def report_html(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame], *, png: bytes) -> str:
    """The page with every table of the report; charts are inside, values escaped, nothing is loaded from elsewhere."""
    name = escape(str(manifest["name"]))
    legs = escape("   ".join(legs_of(manifest)))
    attribution = [
        (source, number(usd), percent(share, digits=3)) for source, usd, share in attribution_rows(manifest, tables)
    ]
    flags = "".join(f"<li>{escape(str(flag))}</li>" for flag in manifest["flags"]) or "<li>none</li>"
    image = base64.b64encode(png).decode()
    metrics = metric_rows(tables)
    half = (len(metrics) + 1) // 2
    sections = [
        f'<section><img alt="charts of the run" src="data:image/png;base64,{image}"></section>',
        '<div class="pair">'
        + section("PnL attribution", html_table(("source", "USD", "of capital"), attribution, last_is_total=True))
        + section("Counts", html_table(("count", "value"), count_rows(manifest)), kind="wrap")
        + "</div>",
        '<div class="pair">'
        + section("Return and risk", html_table(("metric", "value"), metrics[:half]))
        + section("Trading", html_table(("metric", "value"), metrics[half:]))
        + "</div>",
        f"<section><h2>Flags</h2><ul>{flags}</ul></section>",
        section("Legs, USD", _legs_table(tables), kind="scroll"),
        section(f"Trades ({len(tables['trades']):,})", _trades_table(tables["trades"]), kind="scroll"),
        section("Inputs", _inputs_table(manifest), kind="scroll"),
        section("Configuration", html_table(("key", "value"), _flat_rows(manifest["config"]), n_text=2), kind="wrap"),
        section("Provenance", html_table(("key", "value"), _provenance_rows(manifest), n_text=2), kind="wrap"),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{CSS}</style></head>\n<body><main>\n"
        f"<h1>{name}</h1><p>{legs}</p><p>{escape(span_text(manifest))}</p>\n"
        + _tiles(manifest, tables)
        + "\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def section(title: str, body: str, *, kind: str = "") -> str:
    """A card of the page: its title, which is escaped, and its HTML."""
    return f'<section><h2>{escape(title)}</h2><div class="{kind}">{body}</div></section>'


def _tiles(manifest: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> str:
    metrics = metrics_of(tables)
    shown = [
        ("PnL, USD", number(metrics["pnl_usd"], digits=0)),
        ("capital, USD", number(capital_usd(manifest), digits=0)),
        ("APR on capital", percent(metrics["apr_on_capital"])),
        ("Sharpe", number(metrics["sharpe"])),
        ("max drawdown", percent(metrics["max_drawdown"])),
        ("trades", number(metrics["n_trades"], digits=0)),
        ("time in market", percent(metrics["time_in_market"], digits=1)),
    ]
    if metrics["status"] != "ok":
        shown.insert(0, ("status", str(metrics["status"])))
    tiles = "".join(f'<div class="tile"><span>{escape(k)}</span><b>{escape(v)}</b></div>' for k, v in shown)
    return f'<div class="tiles">{tiles}</div>'


def _legs_table(tables: Mapping[str, pl.DataFrame]) -> str:
    last = tables["attribution"].sort("ts").group_by("leg", maintain_order=True).last().sort("leg")
    fills = tables["fills"].group_by("leg").agg(n_fills=pl.len(), traded_usd=pl.col("notional_usd").sum())
    rows: list[list[object]] = []
    totals = [0.0] * (len(LEG_PARTS) + 2)
    for leg in last.join(fills, on="leg", how="left", maintain_order="left").iter_rows(named=True):
        parts = [sign * leg[f"{part}_usd"] for part, sign in LEG_PARTS]
        values = [leg["traded_usd"] or 0.0, *parts, sum(parts)]
        totals = [total + value for total, value in zip(totals, values, strict=True)]
        position = number(leg["position_base"], digits=6)
        rows.append([leg["instrument"], position, number(leg["n_fills"] or 0, digits=0), *map(number, values)])
    rows.append(["total", "", number(len(tables["fills"]), digits=0), *map(number, totals)])
    header = ("leg", "end position, base", "fills", "traded", *(part for part, _ in LEG_PARTS), "pnl")
    return html_table(header, rows, last_is_total=True)


def _trades_table(trades: pl.DataFrame) -> str:
    header = (
        "trade", "entry", "exit", "exit reason", "direction", "hold", "quantity, base",
        "funding", "basis", "delta", "costs", "pnl, USD",
    )  # fmt: skip
    rows = [
        (
            trade["trade"],
            stamp(trade["entry_ts"]),
            "open" if trade["exit_ts"] is None else stamp(trade["exit_ts"]),
            trade["exit_reason"] or NOTHING,
            f"{trade['direction']:+d}",
            hours(trade["hold_hours"]),
            number(trade["quantity_base"], digits=6),
            *(number(trade[f"{part}_usd"]) for part in ("funding", "basis", "delta")),
            number(None if trade["costs_usd"] is None else -trade["costs_usd"]),
            number(trade["pnl_usd"]),
        )
        for trade in trades.sort("trade").iter_rows(named=True)
    ]
    return html_table(header, rows, n_text=4) if rows else "<p>no trade was made</p>"


def _inputs_table(manifest: Mapping[str, Any]) -> str:
    rows = [
        (
            item["instrument"],
            item["series"],
            item["path"],
            item["sha256"],
            stamp(item["first"]),
            stamp(item["last"]),
            number(item["rows"], digits=0),
        )
        for item in manifest["inputs"]
    ]
    return html_table(("instrument", "series", "file", "sha256", "first", "last", "rows"), rows, n_text=6)


def _provenance_rows(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    keys = ("created", "basis_bt", "versions", "config_hash", "rulebook_hash", "seed", "wall_seconds", "outputs")
    return list(_flat_rows({key: manifest[key] for key in keys if key in manifest}))


def _flat_rows(value: Any, key: str = "") -> list[tuple[str, str]]:
    return list(_walk(value, key))


def _walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _walk(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping | list | tuple) for inner in value):
        for i, inner in enumerate(value):
            yield from _walk(inner, f"{key}.{i}")
    elif isinstance(value, list | tuple):
        yield key, ", ".join(map(str, value)) or NOTHING
    else:
        yield key, NOTHING if value is None or value == {} else str(value)
