"""``basis-bt explain``: one funding settlement, from the booked cash to the input files."""

from datetime import UTC, datetime
from pathlib import Path

import click

from basis_bt.cli._output import pairs_lines, runs_option


def _instant(_: click.Context, __: click.Parameter, text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a time; write it as 2024-03-08T08:00Z") from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


@click.command()
@click.argument("run")
@click.option("--ts", required=True, callback=_instant, metavar="T", help="Bar or settlement: 2024-03-08T08:00Z (UTC).")
@click.option("--instrument", metavar="I", help="Only this one, as perp:binance:BTC-USDT.")
@runs_option
def command(run: str, ts: datetime, instrument: str | None, root: str) -> None:
    """Take the funding settlements of RUN at --ts apart: rate, mark, position, cash, and the files behind them."""
    from basis_bt.store.explain import explain_settlement
    from basis_bt.store.folder import load_run, resolve_run

    stored = load_run(resolve_run(Path(root), run))
    texts = ["\n".join(pairs_lines(item.lines())) for item in explain_settlement(stored, ts, instrument=instrument)]
    click.echo("\n\n".join(texts))
