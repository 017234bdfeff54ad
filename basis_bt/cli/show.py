"""``basis-bt show``: the numbers of one run."""

from pathlib import Path

import click

from basis_bt.cli._output import print_frame, runs_option


@click.command()
@click.argument("run")
@click.option("--fills", type=click.IntRange(min=0), default=0, metavar="N", help="Also the first N fills.")
@click.option("--events", type=click.IntRange(min=0), default=0, metavar="N", help="Also the first N events.")
@click.option("--trades", type=click.IntRange(min=0), default=0, metavar="N", help="Also the first N trades.")
@runs_option
def command(run: str, fills: int, events: int, trades: int, root: str) -> None:
    """Show the summary of RUN, a name under --runs or a path; every file is verified first."""
    from basis_bt.reports.summary import summary_text
    from basis_bt.store.folder import load_run, read_manifest, resolve_run

    folder = resolve_run(Path(root), run)
    if "sweep" in read_manifest(folder):
        from basis_bt.cli.top import show_sweep

        show_sweep(Path(root), run)
        return
    stored = load_run(folder)
    click.echo(summary_text(stored.manifest, stored.tables).rstrip("\n"))
    for name, rows in (("fills", fills), ("events", events), ("trades", trades)):
        table = stored.tables.get(name)
        if rows and table is not None:
            click.echo()
            print_frame(table.head(rows), title=f"{name}: {min(rows, table.height):,} of {table.height:,}")
