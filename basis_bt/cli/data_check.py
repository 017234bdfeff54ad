"""``basis-bt data check``: everything that is wrong with the files of a market folder."""

from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame
from basis_bt.cli._root import root_option, root_path


@click.command("check")
@root_option
@click.option("--strict", "checks", flag_value="strict", default=True, help="As a run does by default.")
@click.option("--clean", "checks", flag_value="clean", help='As a run with data.checks = "clean" does.')
@click.option("--notes/--no-notes", default=True, show_default=True, help="Show holes and other facts of the venues.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings as parquet, too.")
@format_option
def command(root: str, checks: str, notes: bool, out: Path | None, shape: str) -> int:
    """Check every series of a market folder as a run would.

    Exit code 0: nothing, or notes only; 3: clean mode would take bars out or go on without settlements; 1: something
    that the mode refuses.
    """
    import polars as pl

    from basis_bt.market.audit import SEVERITIES, audit
    from basis_bt.market.catalogue import catalogue, changed_inputs
    from basis_bt.market.write import parquet_bytes, replace_bytes

    folder = root_path(root)
    changed = changed_inputs(folder)
    findings = audit(folder, checks=checks)
    if out is not None:
        replace_bytes(out, parquet_bytes(findings))
    counts = {severity: int((findings["severity"] == severity).sum()) for severity in SEVERITIES}
    shown = findings if notes else findings.filter(pl.col("severity") != "note")
    if shape != "table":
        print_frame(shown, shape=shape)
    elif len(shown):
        print_frame(shown.select("severity", "series", "rule", "rows", "first_ts", "sentence"))
    for sentence in changed:
        click.echo(f"changed: {sentence}", err=True)
    n_series = catalogue(folder).filter(pl.col("source") != "universe").height
    tally = ", ".join(f"{count} {severity}" for severity, count in counts.items() if count) or "nothing found"
    click.echo(f"{n_series} series checked ({checks}): {tally}", err=True)
    damaged = any("damaged" in sentence for sentence in changed)
    return 1 if counts["refused"] or damaged else 3 if counts["repaired"] else 0
