"""``basis-bt capacity``: how much capital a carry bears."""

from typing import TYPE_CHECKING

import click

from basis_bt.cli._economics import economics_options, heading, read_tables, write_plot
from basis_bt.cli._output import pairs_lines, print_frame

if TYPE_CHECKING:
    from basis_bt.sweeps.capacity import Capacity


@click.command("capacity")
@economics_options
@click.option("--from", "from_usd", type=float, default=1e4, show_default=True, metavar="USD", help="Least capital.")
@click.option("--to", "to_usd", type=float, default=1e9, show_default=True, metavar="USD", help="Most capital.")
@click.option("--steps", type=click.IntRange(2, 10_000), default=31, show_default=True, help="How many capitals.")
def command(
    config: str, settings: tuple[str, ...], plot: str | None, shape: str, from_usd: float, to_usd: float, steps: int
) -> None:
    """Show what CONFIG earns a year with more and more capital, and the capital at which that is nothing.

    Rates are simple annual ones on the initial capital. A cost must depend on size: impact, buckets, fills by volume.
    """
    from basis_bt.sweeps.capacity import capacity

    raw = read_tables(config, settings)
    result = capacity(raw, from_usd=from_usd, to_usd=to_usd, steps=steps)
    print_frame(result.frame, shape=shape, title=f"{raw['name']}: {heading(raw)}")
    if shape == "table":
        click.echo("\n" + "\n".join(pairs_lines([("capacity", _sentence(result))])))
    if plot is not None:
        from basis_bt.reports.economics_charts import capacity_figure

        title = f"{raw['name']}: capacity"
        figure = capacity_figure(result.frame, capacity_usd=result.capacity_usd, title=title, caption=[heading(raw)])
        write_plot(figure, plot, shape=shape)


def _sentence(result: "Capacity") -> str:
    from basis_bt.reports.chart_text import compact_usd

    if result.capacity_usd is not None:
        return f"{compact_usd(result.capacity_usd)} USD, where the net rate falls to 0"
    apr, capitals = result.frame["apr_on_capital"], result.frame["capital_usd"]
    low, high = compact_usd(capitals[0]), compact_usd(capitals[-1])
    has_gain = (apr > 0.0).any()
    how = "is above 0 at the most capital looked at" if has_gain else "is never above 0"
    return f"not within {low} to {high} USD: the net rate {how}"
