"""What ``basis-bt paper`` and ``basis-bt live`` share: options, the terminal view, and running a session."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from basis_bt.cli.run import read_settings

Function = Callable[..., Any]
VIEW_EVERY_S = 1.0


def trade_options(function: Function) -> Function:
    """Options of both verbs."""
    options = (
        click.argument("config", type=click.Path(dir_okay=False)),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                     help="Replace a key, e.g. --set live.limits.max_spread_bps=5"),
        click.option("--journal", default=None, metavar="DIR", help="Folder of the journal (default: live.journal)."),
        click.option("--bars", "n_bars", type=click.IntRange(min=1), default=None, help="End after so many bars."),
        click.option("--dry-run", is_flag=True, help="Check everything an entry would meet, send nothing, and end."),
        click.option("--no-view", is_flag=True, help="Print lines instead of the terminal view."),
        click.option("--metrics-port", type=click.IntRange(0, 65535), default=None, metavar="PORT",
                     help="Serve Prometheus metrics on 127.0.0.1."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def trade(
    config: str,
    *,
    mode: Literal["paper", "live"],
    settings: tuple[str, ...],
    journal: str | None,
    n_bars: int | None,
    dry_run: bool,
    no_view: bool,
    metrics_port: int | None,
    confirm: bool = False,
) -> int:
    """Run a session; the exit code is 1 where a person has to look: the breaker needs a reset."""
    from basis_bt.core.config import load_config
    from basis_bt.live.session import check_tradable

    checked = load_config(config, read_settings(settings))
    check_tradable(checked, mode)
    folder = None if journal is None else Path(journal)
    work = _session(
        checked, mode=mode, folder=folder, n_bars=n_bars, dry_only=dry_run, no_view=no_view,
        metrics_port=metrics_port, confirm=confirm,
    )  # fmt: skip
    return asyncio.run(work)


async def _session(
    config: Any, *, mode: Literal["paper", "live"], folder: Path | None, n_bars: int | None, dry_only: bool,
    no_view: bool, metrics_port: int | None, confirm: bool,
) -> int:  # fmt: skip
    from basis_bt.core.errors import DataError
    from basis_bt.live.dry_run import dry_run
    from basis_bt.live.session import open_session
    from basis_bt.live.venue import VenueDown

    session = None
    try:
        if dry_only or confirm:
            session = await open_session(config, mode=mode, journal=folder, is_dry=True)
            _print_dry_run(await dry_run(session))
            await session.close()
        if dry_only:
            return 0
        if confirm and not await asyncio.to_thread(click.confirm, "Trade this for real?", default=False):
            click.echo("nothing was sent", err=True)
            return 1
        session = await open_session(config, mode=mode, journal=folder, n_bars=n_bars)
        why = await _watched(session, no_view=no_view, metrics_port=metrics_port)
        click.echo(f"ended: {why}; journal: {session.journal.path}")
        breaker = session.guard.breaker
        return 1 if breaker is not None and breaker.needs_reset else 0
    except VenueDown as error:
        raise DataError(str(error), fix="nothing was sent; see that the venue can be reached, and try again") from None
    finally:
        if session is not None:
            await session.close()


async def _watched(session: Any, *, no_view: bool, metrics_port: int | None) -> str:
    """Run it, showing how it stands: a page on a terminal, a line an event elsewhere."""
    import contextlib

    from rich.console import Console
    from rich.live import Live as RichLive

    from basis_bt.live.metrics_page import MetricsPage
    from basis_bt.live.snapshot import Watch
    from basis_bt.live.view import render

    console, watch, told = Console(), Watch(session.journal), [session.journal.last_seq]
    with contextlib.ExitStack() as stack:
        page = None if metrics_port is None else stack.enter_context(MetricsPage(metrics_port))
        if page is not None:
            click.echo(f"metrics: http://127.0.0.1:{page.port}/metrics", err=True)
        is_page = not no_view and sys.stdout.isatty()
        shown = stack.enter_context(RichLive(console=console, screen=True, auto_refresh=False)) if is_page else None

        def look(_: Any) -> None:
            if page is not None or shown is not None:
                stand = watch.at(session.clock.now_us())
                if page is not None:
                    page.update(stand)
                if shown is not None:
                    shown.update(render(stand), refresh=True)
            if shown is None:
                _print_events(session.journal, told)

        return await session.run(on_look=look)


def _print_events(journal: Any, told: list[int]) -> None:
    """What a person would want to read of the events since the last time."""
    from basis_bt.core.units import from_us

    kinds = ("decision", "refused", "combo_result", "incident", "breaker_open", "late_fill", "funding", "session_end")
    for event in journal.events(kinds, since_seq=told[0]):
        facts = {key: value for key, value in event.payload.items() if key not in ("facts", "bar_us") and value}
        said = ", ".join(f"{key}={value}" for key, value in facts.items())
        click.echo(f"{from_us(event.ts_us):%Y-%m-%d %H:%M:%S}  {event.type:<12}  {said}"[:300])
    told[0] = journal.last_seq


def _print_dry_run(found: Any) -> None:
    from basis_bt.cli._output import print_frame

    print_frame(found.legs, title="an entry now")
    for objection in found.objections:
        click.echo(f"would be refused: {objection}")
    if not found.objections:
        click.echo("nothing stands against it")
