"""``basis-bt live``: a configuration for real."""

from typing import Any

import click

from basis_bt.cli._trade import trade, trade_options


@click.command("live")
@trade_options
@click.option("--yes", is_flag=True, help="Do not ask after the dry run.")
def command(config: str, yes: bool, **options: Any) -> None:
    """Trade CONFIG for real. Shows what an entry would meet, then asks, unless --yes.

    Limits must be configured (live.limits.max_notional_usd). Keys come from the environment
    (BASIS_BT_<VENUE>_KEY, _SECRET, _PASSWORD) or the keyring. Ctrl-C cancels all orders, closes all positions and
    stops; nothing is entered again before basis-bt stop JOURNAL --reset NAME.
    """
    click.get_current_context().exit(trade(config, mode="live", confirm=not yes, **options))
