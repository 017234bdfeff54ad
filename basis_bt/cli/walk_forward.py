"""``basis-bt walk-forward``: re-optimise in each window, trade the winner in the next."""

import click

from basis_bt.cli._economics import economics_options, read_tables, write_plot
from basis_bt.cli._output import print_frame


@click.command("walk-forward")
@economics_options
@click.option("--train", default="180d", show_default=True, metavar="DURATION", help="What a trial is chosen on.")
@click.option("--test", default="30d", show_default=True, metavar="DURATION", help="What it is then traded on.")
@click.option("--purge", default="0h", show_default=True, metavar="DURATION", help="Left out between the two.")
@click.option("--anchored", is_flag=True, help="Train on everything before, not on the last --train.")
@click.option("--metric", default=None, help="What the best is chosen by (default: the sweep's own).")
def command(
    config: str,
    settings: tuple[str, ...],
    plot: str | None,
    shape: str,
    train: str,
    test: str,
    purge: str,
    anchored: bool,
    metric: str | None,
) -> None:
    """Choose the best trial of a sweep's CONFIG on one stretch of time and trade it on the next, window by window."""
    from basis_bt.reports.summary import number, percent
    from basis_bt.sweeps.walk_forward import walk_forward

    raw = read_tables(config, settings)
    found = walk_forward(raw, train=train, test=test, purge=purge, anchored=anchored, metric=metric)
    print_frame(found.windows, shape=shape)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    facts = found.metrics
    told = (
        f"out of sample: total return {percent(facts['total_return'])}, APR {percent(facts['apr_on_capital'])}, "
        f"Sharpe {number(facts['sharpe'])}, max drawdown {percent(facts['max_drawdown'])}, "
        f"{number(facts['n_trades'], digits=0)} trades, fees {number(facts['fees_usd'], digits=0)} USD"
    )
    if shape == "table":
        click.echo(told)
    if plot is not None:
        from basis_bt.reports.luck_charts import walk_forward_figure

        title = f"{raw['name']}: walk-forward"
        figure = walk_forward_figure(found.windows, found.equity, metric=found.metric, title=title, caption=[told])
        write_plot(figure, plot, shape=shape)
