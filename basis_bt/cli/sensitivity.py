"""``basis-bt sensitivity``: which assumed cost a result hangs on."""

import click

from basis_bt.cli._economics import economics_options, heading, read_tables, write_plot
from basis_bt.cli._output import print_frame


@click.command("sensitivity")
@economics_options
@click.option("--scales", default="0,0.5,1,1.5,2", show_default=True, metavar="LIST", help="Factors on each component.")
def command(config: str, settings: tuple[str, ...], plot: str | None, shape: str, scales: str) -> None:
    """Scale each cost that CONFIG assumes, all else as it is, and show what becomes of the PnL.

    Fees left to the venue are taken in numbers. Of the latency, scale 2 is one bar more and 3 two bars more.
    """
    from basis_bt.sweeps.sensitivity import sensitivity

    raw = read_tables(config, settings)
    result = sensitivity(raw, scales=_numbers(scales))
    if shape == "table":
        print_frame(result.frame, title=f"{raw['name']}: {heading(raw)}, PnL {result.pnl_usd:,.2f} USD as configured")
        click.echo()
        print_frame(result.components, title="the strongest first; breakeven_scale: where the PnL is 0")
    else:
        print_frame(result.frame.join(result.components, on="component", maintain_order="left"), shape=shape)
    if plot is not None:
        from basis_bt.reports.economics_charts import sensitivity_figure

        title = f"{raw['name']}: sensitivity to the costs assumed"
        write_plot(sensitivity_figure(result.frame, title=title, caption=[heading(raw)]), plot, shape=shape)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"numbers with commas between, found {text!r}", param_hint="--scales") from None
