"""``basis-bt ls``: the runs in a folder, with their main numbers."""

from pathlib import Path

import click

from basis_bt.cli._output import format_option, print_frame, runs_option

_METRICS = ("total_return", "sharpe", "max_drawdown", "n_trades", "pnl_usd")


@click.command()
@runs_option
@format_option
def command(root: str, shape: str) -> None:
    """List the runs in a folder, oldest first.

    Folders that are not readable runs are named on stderr.
    """
    import polars as pl

    from basis_bt.store.folder import list_runs

    listing = list_runs(Path(root))
    sound = [row for row in listing if not row["error"]]
    rows = [
        {
            "run": row["run"],
            "created": row["created"][:19].replace("T", " "),
            **{edge: str((row["manifest"].get("span") or {}).get(edge) or "")[:10] for edge in ("start", "end")},
            **{name: row["metrics"].get(name) for name in _METRICS},
        }
        for row in sound
    ]
    schema: dict[str, type[pl.DataType]] = dict.fromkeys(("run", "created", "start", "end"), pl.String)
    schema |= dict.fromkeys(_METRICS, pl.Float64) | {"n_trades": pl.Int64}
    if sound or shape != "table":
        print_frame(pl.DataFrame(rows, schema=schema), shape=shape)
    else:
        click.echo(f"no runs in {root}")
    for row in listing:
        if row["error"]:
            click.echo(f"not listed: {row['run']}: {row['error']}", err=True)
