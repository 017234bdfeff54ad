"""From pages to a whole span: the next page starts where the rows that came back end, never where they should have.

Venues page forwards from a start or backwards from an end. One that jumps over holes by itself answers an empty page
only when nothing is left; because some of them do so within a hole too, the rest is probed in growing steps, and if a
probe finds rows, what was skipped is gone through window by window.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from basis_bt.market.venue_history import Row

Fetch = Callable[[int, int], Awaitable[Sequence[Row]]]


class Page(NamedTuple):
    """Rows inside ``[from_ms, to_ms)``, sorted, and that they are all the venue has there."""

    rows: list[Row]
    from_ms: int
    to_ms: int


async def pages(
    fetch: Fetch, *, from_ms: int, to_ms: int, step_ms: int, window_ms: int, newest_first: bool, windowed: bool = False
) -> AsyncIterator[Page]:
    """Pages that together cover ``[from_ms, to_ms)`` without overlap, in the venue's direction.

    Parameters
    ----------
    fetch : asks one page of ``[from_ms, to_ms)``; rows outside are dropped, but tell that the near part is complete
    step_ms : the least distance of two rows: a bar, or 1 for settlements
    window_ms : time that a page can span
    newest_first : pages come from the end of the span backwards
    windowed : a page looks at ``window_ms`` only, so that an empty one says nothing of the rest
    """
    start, end = from_ms, to_ms  # what is left
    known = end if newest_first else start  # up to where the pages given so far reach
    empties = 0
    while start < end:
        rows = sorted(await fetch(start, end), key=lambda row: row.ts_ms)
        inside = [row for row in rows if start <= row.ts_ms < end]
        past = bool(rows) and (rows[0].ts_ms < start if newest_first else rows[-1].ts_ms >= end)
        if inside and empties > 1 and not windowed:
            start, end, empties, windowed = *((from_ms, known) if newest_first else (known, to_ms)), 0, True
        elif inside or past:
            reach = _reach(inside, past, start, end, step_ms, newest_first)
            yield Page(inside, reach, known) if newest_first else Page(inside, known, reach)
            start, end = (start, reach) if newest_first else (reach, end)
            known, empties = reach, 0
        else:
            skip_ms = window_ms if windowed else window_ms << empties
            start, end = (start, end - skip_ms) if newest_first else (start + skip_ms, end)
            empties += 1
    if empties:
        yield Page([], from_ms, known) if newest_first else Page([], known, to_ms)


def _reach(inside: list[Row], past: bool, start: int, end: int, step_ms: int, newest_first: bool) -> int:
    """How far a page proves to be complete."""
    if newest_first:
        return start if past else inside[0].ts_ms
    return end if past else min(inside[-1].ts_ms + step_ms, end)
