"""``basis-bt run``: one or many configurations in a batch."""

import glob
from pathlib import Path

import click

from basis_bt.cli._output import runs_option


@click.command("run")
@click.argument("configs", nargs=-1, metavar="CONFIG...")
@click.option("--strategy", default=None, metavar="NAME", help="A named strategy instead; see basis-bt strategies.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key, e.g. --set rule.entry=0.08")
@click.option("--out", "out", default=None, metavar="DIR", help="Folder the runs are written to (default: --runs).")
@click.option("--name", default=None, help="Name of the run; only with one configuration.")
@click.option("--overwrite", is_flag=True, help="Replace runs of the same name.")
@click.option("--report/--no-report", default=True, help="Write the tear sheet into each run folder.")
@runs_option
def command(
    configs: tuple[str, ...],
    strategy: str | None,
    settings: tuple[str, ...],
    out: str | None,
    name: str | None,
    overwrite: bool,
    report: bool,
    root: str,
) -> None:
    """Run backtests from TOML configurations (paths or globs), or a named strategy, and keep them as run folders.

    A configuration that fails does not stop the others; the exit code says whether one did.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from basis_bt.core.errors import BasisBtError

    paths = _paths(configs, strategy=strategy)
    if name is not None and len(paths) > 1:
        raise click.UsageError(f"--name goes with one configuration, found {len(paths)}")
    chosen = read_settings(settings)
    folder = Path(out or root)
    errors = Console(stderr=True)
    rows, exit_code = [], 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=len(paths) < 2) as progress:
        task = progress.add_task("runs", total=len(paths))
        for path in paths:
            progress.update(task, description=path.name)
            try:
                rows.append(_run_one(path, chosen, folder=folder, name=name, overwrite=overwrite, report=report))
            except BasisBtError as error:
                errors.print(
                    f"{path}: {type(error).__name__}: {error}",
                    style="red",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
                exit_code = max(exit_code, error.exit_code)
            progress.advance(task)
    _print_summary(rows, n_failed=len(paths) - len(rows))
    if exit_code:
        click.get_current_context().exit(exit_code)


def _run_one(
    path: Path, settings: dict[str, str], *, folder: Path, name: str | None, overwrite: bool, report: bool
) -> dict[str, object]:
    import os

    from basis_bt.backtest import run
    from basis_bt.core.config import apply_settings, build_config, read_toml
    from basis_bt.core.errors import ConfigError
    from basis_bt.core.sweep_spec import is_sweep
    from basis_bt.store.folder import check_target

    raw = apply_settings(read_toml(path), settings)
    raw.setdefault("name", path.stem)
    if name is not None:
        raw["name"] = name
    if is_sweep(raw):
        raise ConfigError("this is a sweep: it has several values", where={"file": path}, fix=f"basis-bt sweep {path}")
    config = build_config(raw, source=str(path))
    check_target(folder, name=config.name, overwrite=overwrite)
    result = run(config)
    written = result.save(folder, overwrite=overwrite)
    shown = written / "manifest.json"
    if report:
        shown = result.report(written)[1]
    metrics = result.metrics.row(0, named=True)
    return {
        "run": config.name,
        "pnl_usd": metrics["pnl_usd"],
        "funding_usd": metrics["funding_usd"],
        "basis_usd": metrics["basis_usd"],
        "fees_usd": metrics["fees_usd"],
        "slippage_usd": metrics["slippage_usd"],
        "apr_on_capital": metrics["apr_on_capital"],
        "sharpe": metrics["sharpe"],
        "max_drawdown": metrics["max_drawdown"],
        "n_trades": metrics["n_trades"],
        "written": os.path.relpath(shown),
    }


def _print_summary(rows: list[dict[str, object]], *, n_failed: int) -> None:
    if rows:
        import polars as pl

        from basis_bt.cli._output import print_frame

        print_frame(pl.DataFrame([{key: row[key] for key in row if key != "written"} for row in rows]))
        for row in rows:
            click.echo(f"{'report' if str(row['written']).endswith('html') else 'run'}: {row['written']}")
    if n_failed:
        click.echo(f"{n_failed} of {n_failed + len(rows)} configurations failed; see above", err=True)


def _paths(patterns: tuple[str, ...], *, strategy: str | None = None) -> list[Path]:
    """Files of paths and globs, each once, in the order given; or the one of a named strategy."""
    if strategy is not None:
        from basis_bt.core.strategy_book import strategy_path

        if patterns:
            raise click.UsageError("give either CONFIG... or --strategy NAME, not both")
        return [strategy_path(strategy)]
    if not patterns:
        raise click.UsageError("Missing argument 'CONFIG...', or --strategy NAME")
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not matches:
            raise click.UsageError(f"no configuration matches {pattern!r}")
        found.update(dict.fromkeys(map(Path, matches)))
    return list(found)


def read_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """``("rule.entry=0.08",)`` as a dictionary."""
    out = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set takes key=value, e.g. --set rule.entry=0.08, found {pair!r}")
        out[key.strip()] = value.strip()
    return out
