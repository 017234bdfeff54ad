"""``basis-bt luck``: how much of a sweep's best result is luck."""

from pathlib import Path

import click

from basis_bt.cli._economics import write_plot
from basis_bt.cli._output import format_option, print_frame, runs_option


@click.command("luck")
@click.argument("run")
@click.option("--trials", "n_trials", type=click.IntRange(min=1), default=None,
              help="How many trials were really made (default: what the runs folder counts).")  # fmt: skip
@click.option("--purge", default=None, metavar="DURATION", help="Default: longest average hold plus signal window.")
@click.option("--most", type=click.IntRange(min=4), default=4096, show_default=True, help="Trials to run again.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the bootstraps and of a draw of trials.")  # fmt: skip
@click.option("--plot", default=None, metavar="FILE", help="Also draw it, as PNG.")
@format_option
@runs_option
def command(
    run: str, n_trials: int | None, purge: str | None, most: int, seed: int, plot: str | None, shape: str, root: str
) -> None:
    """Judge the best trial of the sweep RUN, knowing that it is the best of many."""
    from basis_bt.sweeps.kept import load_sweep
    from basis_bt.sweeps.luck import luck, luck_picture

    kept = load_sweep(Path(root), run)
    found = luck(kept, n_trials=n_trials, purge_hours=purge, most_trials=most, seed=seed)
    print_frame(found.table(), shape=shape)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if shape == "table":
        click.echo(found.verdict)
    if plot is not None:
        write_plot(luck_picture(kept, found), plot, shape=shape)
