"""``basis-bt sweep``: many backtests of one configuration."""

import signal
from pathlib import Path
from types import FrameType

import click

from basis_bt.cli._output import runs_option


@click.command("sweep")
@click.argument("config", metavar="CONFIG")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Replace a key, e.g. --set rule.entry=[0.05,0.1] or --set sweep.trials=1000.")  # fmt: skip
@click.option("--engine", type=click.Choice(["threads", "ray"]), default="threads", show_default=True,
              help="Threads of this machine, or a Ray cluster.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 1024), default=None, help="How many (default: all processors).")
@click.option("--name", default=None, help="Name of the run.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished sweep of that name.")
@click.option("--overwrite", is_flag=True, help="Replace a run of the same name, finished or not.")
@click.option("--allow-large", is_flag=True, help="Run what the check of trials, time, memory and disk would refuse.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and stop.")
@runs_option
def command(
    config: str,
    settings: tuple[str, ...],
    engine: str,
    threads: int | None,
    name: str | None,
    resume: bool,
    overwrite: bool,
    allow_large: bool,
    dry_run: bool,
    root: str,
) -> None:
    """Backtest every parameter set of CONFIG, whose values may be lists or ranges, and keep all of them as one run.

    An interrupted sweep is kept as far as it went: go on with --resume.
    """
    from basis_bt.cli._output import print_frame
    from basis_bt.cli.run import read_settings
    from basis_bt.core.config import apply_settings, read_toml

    raw = apply_settings(read_toml(config), read_settings(settings))
    raw.setdefault("name", Path(config).stem)
    if name is not None:
        raw["name"] = name
    if dry_run:
        from basis_bt.sweeps.engine import describe

        click.echo(describe(raw, threads=threads, engine=engine, runs=Path(root), allow_large=allow_large))
        return
    from basis_bt.sweeps.engine import sweep

    told: list[int] = []

    def leave(number: int, _: FrameType | None) -> None:
        told.append(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        done = sweep(
            raw, runs=root, engine=engine, threads=threads, resume=resume, overwrite=overwrite,
            allow_large=allow_large, quiet=False,
        )  # fmt: skip
    except BaseException:
        if told:  # Ray makes another exit of it
            raise SystemExit(128 + told[0]) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    facts = done.manifest["sweep"]
    print_frame(done.top(10))
    for failure in facts["failures"]:
        click.echo(f"{failure['trials']:,} trials did not run: {failure['error']}", err=True)
    invalid = facts["status"].get("invalid", 0)
    if invalid:
        click.echo(f"{invalid:,} trials contradict themselves (e.g. entry not above exit): status invalid", err=True)
    click.echo(f"sweep: {done.path} ({facts['n_trials']:,} trials, {done.manifest['wall_seconds']:.1f} s)")
