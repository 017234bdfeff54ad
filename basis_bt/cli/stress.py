"""``basis-bt stress``: where each wallet of a book dies."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from basis_bt.cli._output import format_option, pairs_lines, print_frame, runs_option

if TYPE_CHECKING:
    import polars as pl

    from basis_bt.backtest.stress import Stress


@click.command()
@click.argument("source", metavar="CONFIG_OR_RUN")
@click.option("--at", default=None, metavar="T", help="Bar of the book: 2024-03-08T08:00Z (default: least margin).")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key of a configuration.")
@click.option("--plot", default=None, metavar="FILE", help="Also draw margin surplus over the price factor, as PNG.")
@format_option
@runs_option
def command(source: str, at: str | None, settings: tuple[str, ...], plot: str | None, shape: str, root: str) -> None:
    """Show at which prices the wallets of a book die: of a configuration, which is run first, or of a run.

    All prices move together. Without --at the book is that of the bar with the smallest margin ratio.
    """
    from basis_bt.backtest.stress import stress

    if at is not None:
        _check_instant(at)
    name, what = _source(source, settings, root=root)
    result = stress(what, at=at)
    if shape != "table":
        print_frame(result.legs.join(result.wallets, on="wallet", how="left", maintain_order="left"), shape=shape)
    else:
        _print(name, result)
    if plot is not None:
        click.echo(f"chart: {_write_chart(name, result, Path(plot))}", err=shape != "table")


def _check_instant(text: str) -> None:
    from basis_bt.core.units import parse_instant

    try:
        parse_instant(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from None


def _source(source: str, settings: tuple[str, ...], *, root: str) -> tuple[str, object]:
    """The name and the configuration of a TOML file, or the name and tables of a run."""
    from basis_bt.core.config import load_config
    from basis_bt.store.folder import load_run, resolve_run

    if source.endswith(".toml") or Path(source).is_file():
        from basis_bt.cli.run import read_settings

        config = load_config(source, read_settings(settings))
        return Path(source).stem if config.name == "run" else config.name, config
    if settings:
        raise click.UsageError("--set goes with a configuration, not with a run that is done")
    stored = load_run(resolve_run(Path(root), source))
    return stored.manifest["name"], stored


def _print(name: str, result: "Stress") -> None:
    click.echo(f"{name} at the end of the bar of {result.ts:%Y-%m-%d %H:%M} UTC")
    click.echo()
    print_frame(_readable(result.wallets, ("factor_down", "factor_up")), title="wallets")
    click.echo()
    print_frame(_readable(result.legs, ("price_down", "price_up")), title="legs, and the prices their wallet dies at")
    click.echo()
    click.echo("\n".join(pairs_lines([(f"prices {way}", _sentence(result, way)) for way in ("down", "up")])))


def _readable(frame: "pl.DataFrame", columns: tuple[str, ...]) -> "pl.DataFrame":
    """The frame with ``never`` where a price does not exist."""
    import polars as pl

    return frame.with_columns(
        pl.Series(name, ["never" if value is None else f"{value:,.4f}" for value in frame[name]], dtype=pl.String)
        for name in columns
    )


def _sentence(result: "Stress", direction: str) -> str:
    first = result.first(direction)
    if first is None:
        return "no wallet dies"
    factor = result.wallets.row(by_predicate=_is(first), named=True)[f"factor_{direction}"]
    prices = ", ".join(f"{row['instrument']} {row['price'] * factor:,.2f}" for row in result.legs.iter_rows(named=True))
    return f"{first} dies first, at {100.0 * (factor - 1.0):+.2f} %: {prices}"


def _is(wallet: str) -> "pl.Expr":
    import polars as pl

    return pl.col("wallet") == wallet


def _write_chart(name: str, result: "Stress", path: Path) -> Path:
    import numpy as np

    from basis_bt.reports.stress_chart import write_stress_chart

    down = result.wallets["factor_down"].drop_nulls().to_list()
    up = [factor for factor in result.wallets["factor_up"].drop_nulls().to_list() if factor <= 5.0]
    reach = max([2.0 * abs(factor - 1.0) for factor in down + up] + [0.2])
    surplus = result.surplus(np.linspace(max(0.0, 1.0 - reach), 1.0 + reach, 401))
    title = f"{name}: margin at the end of the bar of {result.ts:%Y-%m-%d %H:%M} UTC"
    return write_stress_chart(surplus, result.wallets, path, title=title)
