"""``basis-bt top``: the best trials of a sweep."""

from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame, runs_option


@click.command("top")
@click.argument("run")
@click.option("--metric", default=None, help="What the best is chosen by (default: the sweep's own).")
@click.option("--n", "n", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many.")
@click.option("--robust", is_flag=True, help="Order by the mean of each trial's neighbours instead.")
@click.option("--save", is_flag=True, help="Run them again and keep each as a run of its own, RUN-trial-N.")
@format_option
@runs_option
def command(run: str, metric: str | None, n: int, robust: bool, save: bool, shape: str, root: str) -> None:
    """Show the best trials of a sweep; with --robust those whose neighbours are good too."""
    from basis_bt.sweeps.kept import load_sweep, rerun

    kept = load_sweep(Path(root), run)
    metric = metric or kept.metric
    if robust:
        from basis_bt.reports.robustness import robust_scores

        frame = robust_scores(kept.trials, axes=kept.columns, metric=metric, top=max(100, n)).head(n)
    else:
        frame = kept.top(n, metric=metric)
    print_frame(frame, shape=shape)
    if save:
        for trial in frame["trial"].to_list():
            name = f"{kept.manifest['name']}-trial-{trial}"
            written = rerun(kept, trial).save(root, name=name, overwrite=True)
            click.echo(f"run: {written}", err=True)


def show_sweep(root: Path, run: str) -> None:
    """Print what a sweep is and its best trials."""
    from basis_bt.cli._output import pairs_lines
    from basis_bt.sweeps.kept import load_sweep

    kept = load_sweep(root, run)
    facts = kept.manifest["sweep"]
    axes = ", ".join(f"{one['key']} ({len(one['values'])})" if "values" in one else f"{one['key']} (drawn)"
                     for one in facts["axes"])  # fmt: skip
    lines = [
        ("sweep", str(kept.manifest["name"])),
        ("trials", f"{facts['n_trials']:,}: " + ", ".join(f"{word} {n:,}" for word, n in facts["status"].items())),
        ("design", f"{facts['spec']['design']} over {axes}"),
        ("details of", ", ".join(map(str, facts["best_trials"])) or "none"),
    ]
    click.echo("\n".join(pairs_lines(lines)))
    print_frame(kept.top(10))
