"""``basis-bt data download``: market history from a venue into a market folder."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from basis_bt.market.download import Outcome

INSTANT_HELP = "2024-01-01, or an instant with its zone: 2024-01-01T08:00Z"


class Instant(click.ParamType):
    """A day (its start in UTC) or an ISO-8601 instant that names its zone."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The instant in UTC; a usage error says what is wrong with the text."""
        from basis_bt.core.units import parse_instant

        if isinstance(value, datetime):
            return value
        try:
            return parse_instant(f"{value}T00:00Z" if len(value) == 10 else value)
        except ValueError as error:
            self.fail(f"{error} ({INSTANT_HELP})", param, ctx)


class Hours(click.ParamType):
    """A bar length: hours as a number, or ``15m``, ``4h``, ``1d``."""

    name = "bar"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Hours; a usage error says what is wrong with the text."""
        from basis_bt.core.units import parse_hours

        try:
            hours = parse_hours(float(value) if str(value).replace(".", "", 1).isdigit() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if hours <= 0:
            self.fail("a bar lasts longer than 0 hours", param, ctx)
        return hours


@click.command("download")
@click.option("--venue", required=True, help="binance, binance_cm, bybit, okx or hyperliquid.")
@click.option("--symbols", required=True, metavar="LIST",
              help="BTC,ETH or BTC-USDT,BTC-USD; a BASE alone takes the usual quote.")  # fmt: skip
@click.option("--kinds", default="spot,perp,mark,funding", show_default=True, metavar="LIST",
              help="Of spot, perp, mark, index, premium, funding.")  # fmt: skip
@click.option("--start", type=Instant(), help=f"From when on: {INSTANT_HELP}.")
@click.option("--end", type=Instant(), help="Until when, this instant left out. Default: now.")
@click.option("--update", is_flag=True, help="Go on from where each series ends.")
@click.option("--bar", "bar_hours", type=Hours(), default="1h", show_default=True, help="Length of the bars.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default=Path("data/market"),
              show_default=True, metavar="DIR", help="The market folder.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1, 32), default=4, show_default=True,
              help="Series at the same time.")  # fmt: skip
@click.option("--base-url", metavar="URL", help="Ask this address in place of the venue's hosts (a mirror or a proxy).")
def command(
    venue: str, symbols: str, kinds: str, start: datetime | None, end: datetime | None, update: bool, bar_hours: float,
    root: Path, concurrency: int, base_url: str | None,
) -> int:  # fmt: skip
    """Download bars, mark, index and premium prices and funding of a venue.

    A call that was stopped, at whatever moment, is simply given again: what is there is not asked for twice, and rows
    that differ from those on disk are an error. The exit code is 1 when a series failed.
    """
    from functools import partial

    from basis_bt.market.download import download
    from basis_bt.market.exchange import open_client

    def given(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    names, wanted = given(symbols), given(kinds)
    if not names or not wanted:
        raise click.UsageError("give at least one symbol and one kind, e.g. --symbols BTC,ETH --kinds perp,funding")
    if start is None and not update:
        raise click.UsageError("give --start, or --update to go on from what is there")
    with _Bars() as bars:
        outcomes = download(
            venue, names, wanted, root=root, start=start, end=end, update=update, bar_hours=bar_hours,
            concurrency=concurrency, client_factory=partial(open_client, base_url=base_url), progress=bars.show,
        )  # fmt: skip
    _print_summary(outcomes)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


class _Bars:
    """One line a series on stderr: how much of its span was asked, rows, rows a second, and the time reached."""

    def __enter__(self) -> "_Bars":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._lines: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(),
            TextColumn("{task.fields[rows]:>10,} rows"), TextColumn("{task.fields[rate]:>7,.0f}/s"),
            TextColumn("{task.fields[at]}"), TimeElapsedColumn(), TextColumn("{task.fields[status]}"),
            console=Console(stderr=True),
        )  # fmt: skip
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, outcome: "Outcome") -> None:
        """Draw the state of one series."""
        from basis_bt.core.units import from_us

        line = self._lines.get(outcome.series)
        if line is None:
            line = self._progress.add_task(outcome.series, total=None, rows=0, rate=0.0, at="", status="")
            self._lines[outcome.series] = line
        task = next(task for task in self._progress.tasks if task.id == line)
        over = outcome.status != "running"
        self._progress.update(
            line, total=max(outcome.wanted_us, 1),
            completed=max(outcome.wanted_us, 1) if outcome.status == "done" else outcome.reached_us,
            rows=outcome.rows_new, rate=outcome.rows_new / max(task.elapsed or 0.0, 1e-3),
            at="" if outcome.at_us is None else f"{from_us(outcome.at_us):%Y-%m-%d %H:%M}",
            status=outcome.status if over else "",
        )  # fmt: skip
        if over:
            self._progress.stop_task(line)


def _print_summary(outcomes: "list[Outcome]") -> None:
    import polars as pl

    from basis_bt.cli._output import print_frame
    from basis_bt.market.schemas import TS

    print_frame(
        pl.DataFrame(
            {
                "series": [outcome.series for outcome in outcomes],
                "status": [outcome.status for outcome in outcomes],
                "new": [outcome.rows_new for outcome in outcomes],
                "rows": [outcome.rows for outcome in outcomes],
                "first": pl.Series([outcome.first_us for outcome in outcomes], dtype=pl.Int64).cast(TS),
                "last": pl.Series([outcome.last_us for outcome in outcomes], dtype=pl.Int64).cast(TS),
            }
        )
    )
    for outcome in outcomes:
        for note in outcome.notes:
            click.echo(f"{outcome.series}: {note}", err=True)
        if outcome.error:
            click.echo(f"{outcome.series}: {outcome.error}", err=True)
