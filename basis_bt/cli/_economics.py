"""What the verbs on the economics of a configuration share: its options, reading it, and the chart."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from basis_bt.cli._output import format_option

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def economics_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``CONFIG``, ``--set``, ``--plot`` and ``--format``."""
    for option in (
        format_option,
        click.option("--plot", default=None, metavar="FILE", help="Also draw it, as PNG."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                     help="Replace a key, e.g. --set costs.impact_coef_bps=20"),
        click.argument("config", metavar="CONFIG"),
    ):  # fmt: skip
        function = option(function)
    return function


def read_tables(config: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """The tables of a TOML file with settings put in, and a name."""
    from basis_bt.cli.run import read_settings
    from basis_bt.core.config import apply_settings, read_toml

    raw = apply_settings(read_toml(config), read_settings(settings))
    raw.setdefault("name", Path(config).stem)
    return raw


def heading(raw: dict[str, Any]) -> str:
    """Legs and span of a configuration in one line."""
    from basis_bt.core.instruments import leg_texts

    legs = ", ".join(leg_texts(raw["combo"]["legs"]))
    first, last = (str(raw["data"][key])[:10] for key in ("start", "end"))
    return f"{legs} · {first} to {last}"


def write_plot(figure: "Figure", path: str, *, shape: str) -> None:
    """Save the chart and say where; beside rows for programs on stderr."""
    from basis_bt.reports.charts import save_chart

    click.echo(f"chart: {save_chart(figure, Path(path))}", err=shape != "table")
