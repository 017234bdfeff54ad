"""``basis-bt stop``: end a session, or take its stop back."""

import time
from pathlib import Path

import click

WAIT_S = 60.0
POLL_S = 0.2


@click.command("stop")
@click.argument("journal", default="journal")
@click.option("--reset", "by", default=None, metavar="NAME", help="Close the breaker again; NAME is who looked.")
def command(journal: str, by: str | None) -> None:
    """Cancel all orders and close all positions of the session that writes JOURNAL, and end it.

    A session that is running does it itself; of one that is not, this does it. Safe to call twice. After a stop nothing
    is entered until a person resets it: --reset NAME.
    """
    import asyncio

    from basis_bt.core.errors import StoreError
    from basis_bt.live.journal import DATABASE, LOCK
    from basis_bt.live.lock import FileLock
    from basis_bt.live.session import STOP_FILE

    folder = Path(journal)
    if not (folder / DATABASE).exists():
        raise StoreError("there is no journal here", where={"path": folder}, fix="name the folder of a journal")
    try:
        FileLock(folder / LOCK, what="the journal").close()
        is_running = False
    except StoreError:
        is_running = True
    if by is not None:
        if is_running:
            raise StoreError("the session is running", where={"path": folder}, fix="stop it first, then reset it")
        _reset(folder, by)
        click.echo(f"reset by {by}: the next session may enter again")
        return
    if not is_running:
        notes = asyncio.run(_stop_now(folder))
        click.echo("stopped: " + ("; ".join(notes) or "nothing is open"))
        return
    (folder / STOP_FILE).write_text("basis-bt stop\n", encoding="utf-8")
    deadline = time.monotonic() + WAIT_S
    while (folder / STOP_FILE).exists():
        if time.monotonic() > deadline:
            raise StoreError(
                f"the session has not ended within {WAIT_S:g} s", where={"path": folder},
                fix="look at basis-bt status; it goes on trying, and so may you at the venue",
            )  # fmt: skip
        time.sleep(POLL_S)
    click.echo("stopped")


async def _stop_now(folder: Path) -> list[str]:
    """Do for a session that is not running what it would have done."""
    from basis_bt.core.config import build_config
    from basis_bt.live.journal import Journal
    from basis_bt.live.session import open_session

    with Journal(folder, read_only=True) as book:
        start = book.events("session_start")[-1].payload
    session = await open_session(build_config(start["config"]), mode=start["mode"], journal=folder)
    try:
        return await session.stop_now("basis-bt stop")
    finally:
        await session.close()


def _reset(folder: Path, by: str) -> None:
    from basis_bt.core.config import build_config
    from basis_bt.core.live_models import Live
    from basis_bt.live import event_types
    from basis_bt.live.guard import RiskGuard
    from basis_bt.live.journal import Journal

    with Journal(folder) as book:
        config = build_config(book.events("session_start")[-1].payload["config"])
        limits = (config.live or Live()).limits
        state = book.get("guard")
        guard = (
            RiskGuard(limits, config.size.capital_usd)
            if state is None
            else RiskGuard.from_state(state, limits, config.size.capital_usd)
        )
        now_us = time.time_ns() // 1000
        guard.reset(by, now_us)
        with book.together():
            book.append(event_types.BREAKER_RESET, ts_us=now_us, by=by)
            book.put("guard", guard.to_state(), ts_us=now_us)
