"""``basis-bt breakeven``: how long a carry must be held to pay."""

from typing import TYPE_CHECKING

import click

from basis_bt.cli._economics import economics_options, heading, read_tables, write_plot
from basis_bt.cli._output import pairs_lines, print_frame

if TYPE_CHECKING:
    from basis_bt.sweeps.breakeven import Breakeven


@click.command("breakeven")
@economics_options
@click.option("--from", "from_hours", default="8h", show_default=True, metavar="T", help="Shortest hold.")
@click.option("--to", "to_hours", default="90d", show_default=True, metavar="T", help="Longest hold.")
@click.option("--steps", type=click.IntRange(2, 10_000), default=25, show_default=True, help="How many holds.")
def command(
    config: str, settings: tuple[str, ...], plot: str | None, shape: str, from_hours: str, to_hours: str, steps: int
) -> None:
    """Show how long a carry must be held until funding and basis pay its round trip.

    Entries are those of CONFIG; trades are left after the hold alone. Means over closed trades, in bps of the entry
    notional of one leg.
    """
    from basis_bt.sweeps.breakeven import breakeven

    raw = read_tables(config, settings)
    result = breakeven(raw, from_hours=from_hours, to_hours=to_hours, steps=steps)
    print_frame(result.frame, shape=shape, title=f"{raw['name']}: {heading(raw)}")
    if shape == "table":
        click.echo("\n" + "\n".join(pairs_lines(_sentences(result))))
    if plot is not None:
        from basis_bt.reports.economics_charts import breakeven_figure

        title = f"{raw['name']}: break-even hold"
        figure = breakeven_figure(
            result.frame, breakeven_hours=result.breakeven_hours, title=title, caption=[heading(raw)]
        )
        write_plot(figure, plot, shape=shape)


def _sentences(result: "Breakeven") -> list[tuple[str, str]]:
    from basis_bt.reports.summary import hours

    holds = result.frame["hold_hours"]
    found = f"never, for holds from {hours(holds[0])} to {hours(holds[-1])}"
    if result.breakeven_hours == holds[0]:
        found = f"at once: the shortest hold, {hours(holds[0])}, pays already"
    elif result.breakeven_hours is not None:
        found = hours(result.breakeven_hours)
    estimate = f"{result.round_trip_bps:.4g} bps a round trip / {result.funding_bps_per_hour:.4g} bps an hour held"
    ends = hours(result.closed_form_hours) if result.closed_form_hours is not None else "never: funding is not received"
    return [("break-even", found), ("closed form", f"{estimate} = {ends}")]
