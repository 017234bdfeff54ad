"""``basis-bt replay``: history through the live engine."""

from pathlib import Path

import click

from basis_bt.cli._output import print_frame, runs_option
from basis_bt.cli.run import read_settings


@click.command("replay")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Replace a key, e.g. --set rule.entry=0.08")
@click.option("--name", default=None, help="Name of the run folder (default: that of the configuration, -replay).")
@click.option("--overwrite", is_flag=True, help="Replace a run of that name.")
@runs_option
def command(config: str, settings: tuple[str, ...], name: str | None, overwrite: bool, root: str) -> None:
    """Run CONFIG bar by bar through the live engine and keep it as a run folder like any other."""
    import dataclasses

    from basis_bt.core.config import load_config
    from basis_bt.live.replay import replay

    checked = load_config(config, read_settings(settings))
    named = dataclasses.replace(checked, name=name or f"{checked.name}-replay")
    result = replay(named)
    written = result.save(Path(root), overwrite=overwrite)
    print_frame(result.metrics.select("pnl_usd", "funding_usd", "fees_usd", "n_trades", "sharpe", "max_drawdown"))
    click.echo(f"run: {written}")
