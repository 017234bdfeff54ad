"""``basis-bt data scan``: the carry of everything loaded, best first."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from basis_bt.cli._output import format_option, print_frame
from basis_bt.cli._root import root_option, root_path

if TYPE_CHECKING:
    import polars as pl

SORTS = {"score": True, "apr": True, "apr_30d": True, "apr_90d": True, "net_apr": True, "worst_30d_apr": True,
         "breakeven_hold_hours": False, "stability": True, "quality": True}  # fmt: skip
SHOWN = 25


@click.command("scan")
@root_option
@click.option("--start", metavar="TIME", help="First settlement: 2024-01-01 (UTC) or an instant with its zone.")
@click.option("--end", metavar="TIME", help="Settlements before this one.")
@click.option("--hold-hours", default="168", show_default=True, metavar="HOURS", help="A usual hold: 72, or 3d.")
@click.option("--quotes", metavar="LIST", help="Only these quote currencies: USDT,USDC.")
@click.option("--top", type=click.IntRange(min=1), metavar="N", help=f"How many rows; the table shows {SHOWN}.")
@click.option("--min-history-days", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="DAYS",
              help="Leave out perps with less.")  # fmt: skip
@click.option("--sort", type=click.Choice(list(SORTS)), default="score", show_default=True, help="What comes first.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw it, too.")
@format_option
def command(
    root: str, start: str | None, end: str | None, hold_hours: str, quotes: str | None, top: int | None,
    min_history_days: float, sort: str, chart: Path | None, shape: str,
) -> None:  # fmt: skip
    """Rank the perps of a market folder by their funding: APR, stability, cost, data quality.

    Rates are simple annual ones of settled funding, positive: longs pay shorts. The score is the APR net of a round
    trip's taker fees over the hold, weighted by the share of weeks that earned and of settlements present.
    """
    import polars as pl

    from basis_bt.market.scan import scan

    table = scan(
        root_path(root),
        start=_instant(start, option="--start"),
        end=_instant(end, option="--end"),
        hold_hours=_hours(hold_hours),
        quotes=[quote.strip() for quote in quotes.split(",")] if quotes else None,
    )
    long = (pl.col("last") - pl.col("first")).dt.total_seconds() >= min_history_days * 86_400
    unreadable = table.filter(pl.col("settlements").is_null())
    kept = table.filter(long).sort(sort, descending=SORTS[sort], nulls_last=True, maintain_order=True)
    if shape != "table":
        print_frame(kept.head(top) if top else kept, shape=shape)
    elif kept.is_empty():
        click.echo(f"no perp with {min_history_days:g} days of funding in {root}")
    else:
        print_frame(readable(kept.head(top or SHOWN)))
        hidden = len(table) - len(unreadable) - len(kept)
        short = f", {hidden:,} more with less than {min_history_days:g} days of history" if hidden else ""
        click.echo(f"{min(top or SHOWN, len(kept)):,} of {len(kept):,} perps, by {sort}{short}")
        click.echo(f"net: after a round trip of taker fees, held {_hours(hold_hours):g} hours; breakeven in days")
    for row in unreadable.iter_rows(named=True):
        click.echo(f"not scanned: funding/{row['venue']}/{row['symbol']}: {row['notes']}", err=True)
    if chart is not None and not kept.is_empty():
        from basis_bt.reports.scan_chart import write_scan_chart

        click.echo(f"chart: {write_scan_chart(kept, chart, hold_hours=_hours(hold_hours))}", err=shape != "table")


def readable(table: "pl.DataFrame") -> "pl.DataFrame":
    """The columns a person compares, rates in percent, aligned at the point."""
    import polars as pl

    def percent(name: str) -> pl.Series:
        return _aligned([None if value is None else f"{100 * value:.1f}%" for value in table[name]])

    def fixed(values: pl.Series, digits: int) -> pl.Series:
        return _aligned([None if value is None else f"{value:,.{digits}f}" for value in values])

    days = (table["last"] - table["first"]).dt.total_seconds() / 86_400
    return pl.DataFrame({
        "rank": table["rank"],
        "perp": table["venue"] + ":" + table["symbol"],
        "apr": percent("apr"), "30d": percent("apr_30d"), "90d": percent("apr_90d"),
        "worst 30d": percent("worst_30d_apr"), "week std": percent("apr_std"),
        "stable": percent("stability"), "net": percent("net_apr"),
        "fees bps": fixed(table["round_trip_bps"], 0),
        "breakeven": fixed(table["breakeven_hold_hours"] / 24, 1),
        "days": fixed(days, 0), "present": percent("quality"),
        "spot": table["spot"], "notes": table["notes"],
    })  # fmt: skip


def _aligned(texts: list[str | None]) -> "pl.Series":
    import polars as pl

    width = max((len(text) for text in texts if text is not None), default=0)
    return pl.Series([None if text is None else text.rjust(width) for text in texts], dtype=pl.String)


def _instant(text: str | None, *, option: str) -> datetime | None:
    from basis_bt.core.errors import ConfigError
    from basis_bt.core.units import parse_instant

    if text is None:
        return None
    try:
        return parse_instant(f"{text}T00:00Z" if len(text) == 10 else text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", fix="write 2024-01-01, or 2024-01-01T08:00Z") from None


def _hours(text: str) -> float:
    from basis_bt.core.errors import ConfigError
    from basis_bt.core.units import parse_hours

    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_hours(text)
    except ValueError as error:
        raise ConfigError(f"--hold-hours: {error}", fix="write hours as a number, or 12h, 3d") from None
