"""``basis-bt report``: the one-page report of a stored run, as PNG and as one HTML file."""

from pathlib import Path

import click

from basis_bt.cli._output import runs_option


@click.command("report")
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: the run's own folder.")
@click.option("--x", default=None, metavar="KEY", help="Of a sweep: axis of its heat map, e.g. rule.entry.")
@click.option("--y", default=None, metavar="KEY", help="Of a sweep: the other axis.")
@click.option("--metric", default=None, help="Of a sweep: what is drawn.")
@runs_option
def command(run: str, out: Path | None, x: str | None, y: str | None, metric: str | None, root: str) -> None:
    """Write report.png and report.html of RUN, a name under --runs or a path; every file is verified first.

    Of a sweep: heat maps, parallel coordinates, the best trials and how robust they are.
    """
    from basis_bt.core.errors import ConfigError
    from basis_bt.reports.tearsheet import write_report
    from basis_bt.store import load_run, read_manifest, resolve_run

    folder = resolve_run(Path(root), run)
    if "sweep" in read_manifest(folder):
        from basis_bt.sweeps.kept import load_sweep
        from basis_bt.sweeps.page import write_sweep_report

        kept = load_sweep(Path(root), run)
        for path in write_sweep_report(kept, folder if out is None else out, x=x, y=y, metric=metric):
            click.echo(path)
        return
    if x or y or metric:
        raise ConfigError(f"run {folder.name!r} is a single backtest, no sweep", fix="leave out --x, --y and --metric")
    stored = load_run(folder)
    for path in write_report(stored.manifest, stored.tables, folder if out is None else out):
        click.echo(path)
