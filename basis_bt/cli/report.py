"""``basis-bt report``: the one-page report of a stored run, as PNG and as one HTML file."""

from pathlib import Path

import click

from basis_bt.cli._output import runs_option


@click.command("report")
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: the run's own folder.")
@runs_option
def command(run: str, out: Path | None, root: str) -> None:
    """Write report.png and report.html of RUN, a name under --runs or a path; every file is verified first."""
    from basis_bt.reports.tearsheet import write_report
    from basis_bt.store import load_run, resolve_run

    folder = resolve_run(Path(root), run)
    stored = load_run(folder)
    for path in write_report(stored.manifest, stored.tables, folder if out is None else out):
        click.echo(path)
