"""``--root DIR``: the market folder a verb works on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def root_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--root DIR``, by default the sample."""
    option = click.option("--root", default="data/sample", show_default=True, metavar="DIR", help="The market folder.")
    return option(function)


def root_path(text: str) -> Path:
    """A market folder from what the user typed; ``s3://...`` and the like are remote ones."""
    from basis_bt.market.remote import market_root

    return market_root(text)
