"""``basis-bt data import``: files of other programs into a market folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basis_bt.cli._output import cell_text, format_option, print_frame

if TYPE_CHECKING:
    import polars as pl

    from basis_bt.market.import_report import ImportReport, ImportRow

_SERIES_SHOWN = 60  # more of them are summed by kind and venue


@click.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(path_type=Path))
@click.option("--root", required=True, metavar="DIR", help="The market folder; made if it is missing.")
@click.option("--venue", metavar="NAME", help="Venue, where the files do not say.")
@click.option("--series", metavar="KIND", help="Kind of series: spot, perp, mark, funding, ...")
@click.option("--symbol", metavar="BASE-QUOTE", help="Symbol, where the files do not say.")
@click.option(
    "--map", "mapping", multiple=True, metavar="OUR=THEIRS", help="A column of ours and its name in the file."
)
@click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Unit of epochs.")
@click.option("--time-zone", metavar="ZONE", help="Zone of stamps written without one, e.g. UTC.")
@click.option("--volume-unit", type=click.Choice(["base", "quote", "contracts"]), help="What the volume counts.")
@click.option("--contract-size", type=float, metavar="BASE", help="Base units of a contract.")
@click.option("--asof", metavar="INSTANT", help="Instant of snapshots that carry none, e.g. 2026-07-04T16:00:00Z.")
@click.option("--bar", metavar="STEP", help="Only bars of this step: 1m, 1h, 8h, 1d or hours.")
@click.option("--prefer", type=click.Choice(["new", "old"]), help="Which row stands where two disagree.")
@click.option("--dry-run", is_flag=True, help="Read and compare, write nothing.")
@format_option
def command(
    sources: tuple[Path, ...],
    root: str,
    mapping: tuple[str, ...],
    bar: str | None,
    prefer: str | None,
    dry_run: bool,
    shape: str,
    **facts: Any,
) -> int:
    """Import files, folders and archives of other programs into a market folder.

    Formats are recognised by content. Importing again changes nothing; rows that disagree are shown and their series
    is left as it was. The exit code is 1 if anything failed or disagreed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from basis_bt.market.importers.base import Options
    from basis_bt.market.importing import import_sources

    options = Options(mapping=_mapping(mapping), **facts)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        task = bars.add_task("files", total=None)

        def show(done: int, total: int, name: str) -> None:
            bars.update(task, completed=done, total=total, description=name[-60:])

        report = import_sources(
            sources, _root(root), options=options, bar=_hours(bar), prefer=prefer, dry_run=dry_run, progress=show
        )
    print_frame(_summary(report) if shape == "table" else report.frame, shape=shape)
    if shape == "table":
        for line in _notes(report):
            click.echo(line)
    for line in _problems(report.rows):
        errors.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if report.has_problems else 0


def _root(text: str) -> Any:
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise click.UsageError("a remote --root needs the package universal_pathlib") from None
    return UPath(text)


def _mapping(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        ours, sign, theirs = pair.partition("=")
        if not sign or not ours or not theirs:
            raise click.UsageError(f"--map is OUR=THEIRS, found {pair!r}")
        if ours in found:
            raise click.UsageError(f"--map {ours} is given twice")
        found[ours] = theirs
    return found


def _hours(text: str | None) -> float | None:
    from basis_bt.core.units import parse_hours

    if text is None:
        return None
    try:
        return parse_hours(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise click.UsageError(f"--bar: {error}") from None


def _summary(report: "ImportReport") -> "pl.DataFrame":
    """A line for each series and outcome; where there are many series, for each kind and venue."""
    import polars as pl

    frame = report.frame.with_columns(pl.col("series").replace("", "-"))
    counts = [pl.len().alias("sources"), pl.col("rows", "new", "equal", "dropped").sum()]
    if frame["series"].n_unique() <= _SERIES_SHOWN:
        return frame.group_by("series", "status", maintain_order=True).agg(counts)
    folder = pl.col("series").str.replace(r"/[^/]*$", "/*").alias("folder")
    return frame.group_by(folder, "status", maintain_order=True).agg(pl.col("series").n_unique(), *counts)


def _notes(report: "ImportReport") -> list[str]:
    lines = [f"left alone: {count:,} files ({reason})" for reason, count in sorted(report.ignored.items())]
    said = {f"{row.source}: {row.sentence}": None for row in report.rows if row.sentence and row.status in _FINE}
    verb = "would be written" if report.dry_run else "written"
    count = (
        len({row.series for row in report.rows if row.status == "imported"}) if report.dry_run else len(report.written)
    )
    return [*lines, *said, f"{cell_text(count)} series {verb}"]


def _problems(rows: "list[ImportRow]") -> list[str]:
    """Every problem once, with the number of sources that have it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status not in _FINE:
            found.setdefault((row.status, row.series, row.sentence), []).append(row.source)
    return [
        f"{status}: {series + ': ' if series else ''}{names[0]}"
        f"{f' and {len(names) - 1:,} more' if len(names) > 1 else ''}: {sentence}"
        for (status, series, sentence), names in found.items()
    ]


_FINE = ("imported", "unchanged", "skipped")
