"""``basis-bt status``: how a session stands."""

import json
import time
from pathlib import Path

import click


@click.command("status")
@click.argument("journal", default="journal")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C.")
def command(journal: str, as_json: bool, watch: bool) -> None:
    """Show positions, funding, margin, PnL by source, orders and incidents of the session that writes JOURNAL.

    Reads the journal alone, so it works from another terminal and after the session has ended.
    """
    from rich.console import Console
    from rich.live import Live

    from basis_bt.live.journal import Journal
    from basis_bt.live.snapshot import Watch
    from basis_bt.live.view import render

    console = Console()
    with Journal(Path(journal), read_only=True) as book:
        follower = Watch(book)

        def now_us() -> int:
            return time.time_ns() // 1000

        if as_json:
            click.echo(json.dumps(follower.at(now_us()).to_json()))
        elif not watch:
            console.print(render(follower.at(now_us())))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as shown:
                while True:
                    shown.update(render(follower.at(now_us())), refresh=True)
                    time.sleep(1.0)
