"""``basis-bt data``: market folders on disk."""

import click

from basis_bt.cli._lazy import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "ls": ("basis_bt.cli.data_ls:command", "Show what a market folder covers."),
    "scan": ("basis_bt.cli.data_scan:command", "Rank the carry of everything in a market folder."),
    "check": ("basis_bt.cli.data_check:command", "Look for everything that is wrong with the files."),
    "import": ("basis_bt.cli.data_import:command", "Read dumps and exports of many formats into a market folder."),
    "download": ("basis_bt.cli.data_download:command", "Fetch history from a venue into a market folder."),
    "sample": ("basis_bt.cli.data_sample:command", "Write a synthetic market folder to try the tool with."),
}


@click.group("data", cls=LazyGroup, verbs=VERBS)
def command() -> None:
    """Get, inspect and check market data."""
