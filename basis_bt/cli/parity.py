"""``basis-bt parity``: the live engine beside the backtest."""

from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame, runs_option


@click.command("parity")
@click.argument("subject", metavar="RUN|CONFIG|JOURNAL")
@click.option("--plot", default=None, metavar="FILE", help="Draw the causes of a journal's difference (.png).")
@format_option
@runs_option
def command(subject: str, plot: str | None, shape: str, root: str) -> None:
    """Replay a RUN (or CONFIG) through the live engine and compare the ledgers, trade for trade.

    Of a JOURNAL of paper or live trading: where and why it departed from the model on the market data it recorded, per
    trade. Exit code 1 where a replay is not the same ledger.
    """
    path = Path(subject)
    if (path / "journal.sqlite").exists():
        _journal(path, plot, shape)
        return
    from basis_bt.backtest import run
    from basis_bt.core.config import build_config, load_config
    from basis_bt.live.parity import compare
    from basis_bt.live.replay import replay
    from basis_bt.store import load_run

    if path.suffix == ".toml":
        config = load_config(path)
    else:
        config = build_config(load_run(Path(root) / subject).manifest["config"])
    found = compare(run(config), replay(config))
    if shape == "table":
        click.echo(str(found))
    else:
        print_frame(found.frame(), shape=shape)
    click.get_current_context().exit(0 if found.is_equal else 1)


def _journal(folder: Path, plot: str | None, shape: str) -> None:
    from basis_bt.live.departure import departure
    from basis_bt.live.divergence_page import divergence_figure, divergence_text
    from basis_bt.reports.charts import save_chart

    frame, title = departure(folder)
    if shape == "table":
        click.echo(divergence_text(frame, title=title))
    else:
        print_frame(frame, shape=shape)
    if plot is not None:
        click.echo(f"written: {save_chart(divergence_figure(frame, title=title), Path(plot))}", err=True)
