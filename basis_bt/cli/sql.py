"""``basis-bt sql``: one SELECT over all runs."""

import warnings
from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame, runs_option


@click.command()
@click.argument("query")
@runs_option
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              metavar="S", help="Seconds until the query is stopped.")  # fmt: skip
@click.option("--memory", default="2GB", show_default=True, metavar="SIZE", help="Memory the query may use.")
@format_option
def command(query: str, root: str, timeout: float, memory: str, shape: str) -> None:
    """Answer QUERY, one SELECT in DuckDB's SQL, over all runs.

    Views: runs, trials, equity, fills, funding, events, attribution, trades; each begins with the column run.
    """
    from basis_bt.store.query import sql

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        frame = sql(query, root=Path(root), timeout_seconds=timeout, memory_limit=memory)
    for warning in caught:
        click.echo(f"note: {warning.message}", err=True)
    print_frame(frame, shape=shape)
