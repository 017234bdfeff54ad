"""``basis-bt calibrate``: what fills say of the costs that a backtest assumes."""

from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame


@click.command("calibrate")
@click.argument("journals", nargs=-1, required=True)
@click.option("--out", default=None, metavar="FILE", help="Write a file that a configuration names as calibration.")
@click.option("--days", default=30.0, show_default=True, help="Window, up to the last order.")
@click.option("--min-samples", default=10, show_default=True, help="Fewer say nothing.")
@click.option("--confidence", default=0.95, show_default=True, help="Of the intervals.")
@format_option
def command(
    journals: tuple[str, ...], out: str | None, days: float, min_samples: int, confidence: float, shape: str
) -> None:
    """Re-estimate fees, half spread, impact, slippage, fill probability and latency from the orders of JOURNALS.

    Each with its interval, by instrument. A backtest with that file uses what was measured for its legs.
    """
    from basis_bt.live.calibration import calibrate

    found = calibrate(list(journals), window_days=days, min_samples=min_samples, confidence=confidence)
    print_frame(found.frame, shape=shape)
    if out is not None:
        click.echo(f"written: {found.write(Path(out))}", err=True)
