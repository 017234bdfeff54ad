"""``basis-bt paper``: a configuration on paper, against the live market."""

from typing import Any

import click

from basis_bt.cli._trade import trade, trade_options


@click.command("paper")
@trade_options
def command(config: str, **options: Any) -> None:
    """Trade CONFIG on paper: live prices and settlements, simulated accounts, nothing is ever sent to a venue.

    Bars are decided on as they open. Ctrl-C closes everything and stops; basis-bt status shows a session from
    elsewhere, basis-bt parity where it departed from the model.
    """
    click.get_current_context().exit(trade(config, mode="paper", **options))
