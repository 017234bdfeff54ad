"""``basis-bt export``: a journal as a run folder."""

from pathlib import Path
from typing import Any

import click

from basis_bt.cli._output import runs_option


@click.command("export")
@click.argument("journal")
@click.option("--name", default=None, help="Name of the run folder (default: that of the configuration, and the mode).")
@click.option("--overwrite", is_flag=True, help="Replace a run of that name.")
@runs_option
def command(journal: str, name: str | None, overwrite: bool, root: str) -> None:
    """Write JOURNAL as a run folder, so that sql, report, diff, show and explain work on what was traded."""
    from basis_bt.live.export import export_run
    from basis_bt.live.journal import Journal

    with Journal(Path(journal), read_only=True) as book:
        sessions = book.events("session_start")
        start: dict[str, Any] = dict(sessions[-1].payload) if sessions else {"config": {"name": "run"}, "mode": "live"}
        chosen = name or f"{start['config']['name']}-{start['mode']}"
        click.echo(f"run: {export_run(book, root=Path(root), name=chosen, overwrite=overwrite)}")
