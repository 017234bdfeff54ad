"""Series of a venue, downloaded: what is missing is planned, asked page by page, and written as it comes.

The file of a series says which spans were asked, so a second call, or one after a kill at any moment, asks for the rest
only. Bars are kept when they are over, by the clock and by the venue's own flag where it has one.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from basis_bt.core.errors import BasisBtError, ConfigError
from basis_bt.core.units import US_PER_DAY, US_PER_HOUR, from_us, to_us
from basis_bt.market.exchange import Exchange, open_client
from basis_bt.market.paging import pages
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.series_file import SeriesFile, Span, left_over
from basis_bt.market.venue_history import Row, nearest, venue_named

P = ParamSpec("P")
R = TypeVar("R")
KINDS = ("spot", "perp", "mark", "index", "premium", "funding")
PAGES_PER_WRITE = 50
WRITE_EVERY_S = 20.0
CLOCK_MARGIN_MS = 10_000  # by so much our clock may be ahead of the venue's


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one series; instants are epoch microseconds, ``error`` is the message of what stopped it.

    While it is running, ``reached_us`` counts how much of ``wanted_us`` was asked.
    """

    series: str
    status: str = "waiting"  # then: running, done, none (the venue has no such series), failed, interrupted
    rows_new: int = 0
    rows: int = 0
    first_us: int | None = None
    last_us: int | None = None
    wanted_us: int = 0
    reached_us: int = 0
    pages: int = 0
    at_us: int | None = None
    notes: list[str] = field(default_factory=list)
    error: str = ""


async def download_async(
    venue: str,
    symbols: Sequence[str],
    kinds: Sequence[str],
    *,
    root: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    update: bool = False,
    bar_hours: float = 1.0,
    concurrency: int = 4,
    client_factory: Callable[[str], Any] = open_client,
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    pages_per_write: int = PAGES_PER_WRITE,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Download series of one venue into a market folder, one outcome for each; a failing one does not stop the others.

    Parameters
    ----------
    symbols : ``BASE`` (quoted in the venue's usual currency) or ``BASE-QUOTE``
    kinds : of ``KINDS``
    start, end : UTC instants, ``[start, end)``; the end is now where none is given
    update : go on from the last instant that was asked; ``start`` is for series that are not there yet
    bar_hours : length of the bars
    concurrency : series at the same time, all behind one rate limiter
    client_factory : venue -> ccxt client
    clock : now, in epoch microseconds
    sleep : waits a number of seconds
    progress : is told every outcome as it changes

    Raises
    ------
    ConfigError
        If the venue, a kind or the span means nothing, before anything is asked.
    DataError
        If the venue does not answer at all.
    KeyboardInterrupt
        When interrupted; what had come until then is written.
    """
    facts = venue_named(venue)
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"no kind of series {kind!r} to download", fix=nearest(kind, KINDS, what="kinds"))
    now_us = clock()
    end_us = min(now_us, to_us(end)) if end else now_us
    if start is None and not update:
        raise ConfigError("from when on is not said", fix="give a start, or update series that are there")
    if start is not None and to_us(start) >= end_us:
        raise ConfigError(f"the span is empty: from {start:%Y-%m-%d %H:%M} to {from_us(end_us):%Y-%m-%d %H:%M}",
                          fix="give a start before the end, and before now")  # fmt: skip
    names = [name if "-" in name else f"{name}-{facts.quote}" for name in dict.fromkeys(symbols)]
    keys = [SeriesKey(kind, venue, name) for name in dict.fromkeys(names) for kind in dict.fromkeys(kinds)]
    plan = _Plan(Path(root), None if start is None else to_us(start), end_us, update, bar_hours, pages_per_write, clock,
                 progress or (lambda _: None))  # fmt: skip
    exchange = Exchange(venue, client_factory(venue), sleep=sleep)
    return await _download_all(exchange, keys, plan, concurrency)


def _in_own_loop(work: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """The same work for those who have no loop, or are within one that they cannot wait in, as in a notebook."""

    @functools.wraps(work)
    def run(*args: P.args, **options: P.kwargs) -> R:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work(*args, **options))
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, work(*args, **options)).result()

    return run


download = _in_own_loop(download_async)


@dataclass(frozen=True, slots=True)
class _Plan:
    root: Path
    start_us: int | None
    end_us: int
    update: bool
    bar_hours: float
    pages_per_write: int
    clock: Callable[[], int]
    progress: Callable[[Outcome], None]

    @property
    def bar_us(self) -> int:
        """Length of a bar."""
        return round(self.bar_hours * US_PER_HOUR)


async def _download_all(exchange: Exchange, keys: list[SeriesKey], plan: _Plan, concurrency: int) -> list[Outcome]:
    outcomes = [Outcome(series=str(key)) for key in keys]
    places = asyncio.Semaphore(max(1, concurrency))

    async def one(key: SeriesKey, outcome: Outcome) -> None:
        async with places:
            try:
                await _download_one(exchange, key, plan, outcome)
                outcome.status = outcome.status if outcome.status == "none" else "done"
            except BasisBtError as error:
                outcome.status, outcome.error = "failed", str(error)
            except asyncio.CancelledError:
                outcome.status = "interrupted"
                raise
            finally:
                plan.progress(outcome)

    try:
        await exchange.load()
        exchange.timeframe(plan.bar_hours)
        async with asyncio.TaskGroup() as group:
            for key, outcome in zip(keys, outcomes, strict=True):
                group.create_task(one(key, outcome))
    finally:
        await exchange.close()
    return outcomes


async def _download_one(exchange: Exchange, key: SeriesKey, plan: _Plan, outcome: Outcome) -> None:
    if key.series not in exchange.facts.kinds:
        outcome.status = "none"
        outcome.notes.append(f"{key.venue} serves no history of {key.series}; it has {', '.join(exchange.facts.kinds)}")
        return
    market = exchange.market(key.series, key.symbol)
    file = SeriesFile(plan.root, key)
    file.refuse_other_bars(plan.bar_us)
    holes = left_over(_wanted(file, plan), file.covered)
    outcome.status, outcome.wanted_us = "running", sum(last - first for first, last in holes)
    plan.progress(outcome)
    try:
        for hole in reversed(holes) if exchange.facts.newest_first else holes:
            await _fill(exchange, market, file, hole, plan, outcome)
    finally:
        file.flush(now_us=plan.clock(), bar_us=plan.bar_us)
        outcome.rows_new = file.rows_new
        if file.frame is not None and file.frame.height:
            stamps = file.frame["ts"].to_physical()
            outcome.rows, outcome.first_us, outcome.last_us = len(stamps), int(stamps[0]), int(stamps[-1])


def _wanted(file: SeriesFile, plan: _Plan) -> Span:
    """The span to have in the end, whole bars for bars."""
    start_us, end_us = plan.start_us, plan.end_us
    if plan.update:
        known = [last for _, last in file.covered] or ([] if file.last_us is None else [file.last_us])
        start_us = max(known, default=start_us)
    if start_us is None:
        raise ConfigError(f"{file.key} is not there yet, so there is nothing to go on from", fix="give a start")
    if file.key.spec.is_bars:
        start_us, end_us = -(-start_us // plan.bar_us) * plan.bar_us, end_us // plan.bar_us * plan.bar_us
    return start_us, max(start_us, end_us)


async def _fill(
    exchange: Exchange, market: dict[str, Any], file: SeriesFile, hole: Span, plan: _Plan, outcome: Outcome
) -> None:
    """Ask for one span and write it in pieces."""
    facts, is_bars = exchange.facts, file.key.spec.is_bars
    bar_ms = plan.bar_us // 1000
    from_ms, to_ms = -(-hole[0] // 1000), -(-hole[1] // 1000)
    listed_ms = market.get("created") or 0
    begin_ms = min(max(from_ms, listed_ms - 7 * US_PER_DAY // 1000), to_ms) if facts.window_days else from_ms
    now_ms = plan.clock() // 1000
    timeframe = exchange.timeframe(plan.bar_hours)

    async def fetch(first_ms: int, end_ms: int) -> list[Row]:
        if not is_bars:
            return await exchange.funding(market, from_ms=first_ms, to_ms=end_ms)
        recent = end_ms >= now_ms - 100 * bar_ms
        rows = await exchange.bars(
            market, file.key.series, timeframe=timeframe, from_ms=first_ms, to_ms=end_ms, recent=recent
        )
        last_ms = now_ms - CLOCK_MARGIN_MS - bar_ms
        return [row for row in rows if (row.ts_ms <= last_ms if row.complete is None else row.complete)]

    kept_ms = (facts.bars_kept or 0) * bar_ms if is_bars else (facts.funding_days_kept or 0) * US_PER_DAY // 1000
    horizon_ms = now_ms - kept_ms if kept_ms else from_ms
    oldest_ms = to_ms
    written_s = time.monotonic()
    async for page in pages(
        fetch, from_ms=begin_ms, to_ms=to_ms, step_ms=bar_ms if is_bars else 1,
        window_ms=facts.window_ms(file.key.series, bar_ms),
        newest_first=facts.newest_first, windowed=facts.window_days is not None,
    ):  # fmt: skip
        first_ms = page.from_ms
        oldest_ms = min([oldest_ms, *(row.ts_ms for row in page.rows[:1])])
        if first_ms < horizon_ms:  # what the venue keeps no longer was not asked: another source may have it
            first_ms = max(first_ms, oldest_ms)
        elif first_ms == begin_ms:
            first_ms = from_ms
        file.add(page.rows, (first_ms * 1000, page.to_ms * 1000))
        outcome.pages += 1
        outcome.reached_us += (page.to_ms - page.from_ms) * 1000
        outcome.at_us = (page.from_ms if facts.newest_first else page.to_ms) * 1000
        if outcome.pages % plan.pages_per_write == 0 or time.monotonic() - written_s > WRITE_EVERY_S:
            file.flush(now_us=plan.clock(), bar_us=plan.bar_us)
            written_s = time.monotonic()
        outcome.rows_new = file.rows_new + file.n_pending
        plan.progress(outcome)
    if from_ms < min(horizon_ms, oldest_ms - (bar_ms if is_bars else 8 * US_PER_HOUR // 1000)):
        limit = f"its newest {facts.bars_kept} bars" if is_bars else f"about {facts.funding_days_kept} days of funding"
        outcome.notes.append(
            f"{file.key.venue} serves {limit} only: nothing before {from_us(oldest_ms * 1000):%Y-%m-%d %H:%M};"
            " import what is older from its dumps"
        )
