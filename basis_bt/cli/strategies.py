"""``basis-bt strategies``: the named strategies, and the configuration of one."""

import click

from basis_bt.cli._output import format_option


@click.command()
@click.argument("name", required=False)
@format_option
def command(name: str | None, shape: str) -> None:
    """List the named strategies, or print the TOML of NAME.

    Run one with: basis-bt run --strategy NAME --set data.root=...
    """
    from basis_bt.core.strategy_book import strategy_legs, strategy_line, strategy_names, strategy_text

    if name is not None:
        click.echo(strategy_text(name), nl=False)
        return
    if shape == "table":
        width = max(map(len, strategy_names()))
        for one in strategy_names():
            click.echo(f"{one:<{width}}  {strategy_line(one)}")
        return
    import polars as pl

    from basis_bt.cli._output import print_frame

    rows = [
        {"strategy": one, "what": strategy_line(one), "legs": ", ".join(strategy_legs(one))} for one in strategy_names()
    ]
    print_frame(pl.DataFrame(rows), shape=shape)
