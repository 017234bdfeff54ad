"""The events as JSON lines beside the database: for ``tail -f``, ``jq``, and to rebuild the database from.

A line has ``seq, ts, type, intent, client_order_id, venue, instrument, payload``; ``ts`` is UTC to the microsecond.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from basis_bt.core.errors import StoreError
from basis_bt.live.event_types import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = ("intent", "client_order_id", "venue", "instrument")


def line_of(event: Event) -> bytes:
    """An event as one line of ASCII, the newline included; equal events give equal bytes."""
    ts = (_EPOCH + timedelta(microseconds=event.ts_us)).replace(tzinfo=None).isoformat(timespec="microseconds")
    row = {"seq": event.seq, "ts": f"{ts}Z", "type": event.type}
    row |= {name: getattr(event, name) for name in _FIELDS}
    return json.dumps({**row, "payload": event.payload}, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def event_of(line: bytes) -> Event:
    """The event of a line; a ValueError if it is none."""
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("payload"), dict):
        raise ValueError("no event")
    try:
        ts_us = (datetime.fromisoformat(row["ts"]) - _EPOCH) // timedelta(microseconds=1)
        named: dict[str, Any] = {name: row.get(name) for name in _FIELDS}
        return Event(seq=int(row["seq"]), ts_us=ts_us, type=str(row["type"]), payload=row["payload"], **named)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no event: {error}") from error


def whole_lines(path: Path) -> Iterator[tuple[Event, bytes]]:
    """The events of a log with their bytes, as far as lines are whole and ``seq`` goes 1, 2, 3, ..."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - a missing log is an empty one
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            try:
                event = event_of(line)
            except ValueError:
                return
            if event.seq != number or not line.endswith(b"\n"):
                return
            yield event, line


def read_log(path: Path) -> tuple[list[Event], str | None]:
    """The events of a log, and a sentence if it does not end where they end.

    A torn last line (the process died while writing it) is left out, and everything before it is kept; so is what comes
    after a line that is damaged or whose ``seq`` does not follow, because replaying past a gap gives wrong positions.

    Raises
    ------
    StoreError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError("there is no event log", where={"path": path}, fix="give the events.jsonl of a journal")
    events, n_bytes = [], 0
    for event, line in whole_lines(path):
        events.append(event)
        n_bytes += len(line)
    return events, what_follows(path, n_bytes)


def what_follows(path: Path, n_bytes: int) -> str | None:
    """A sentence on what stands in a log after its sound part; None if that is all of it."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        file.seek(n_bytes)
        rest = file.read()
    if not rest:
        return None
    n_lines = rest.count(b"\n")
    if n_lines == 0:
        return f"the last line of {path.name} was torn ({len(rest)} bytes); everything before it was kept"
    return f"{path.name} is damaged after byte {n_bytes}: {n_lines} lines from there on were left out"


class EventLog:
    """The end of a log that is being written.

    Parameters
    ----------
    path : the file; made if it is missing
    durable : flush every line to disk before ``append`` returns
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = Path(path), durable
        self._file: Any = open(self.path, "ab", buffering=0)  # noqa: SIM115 - held as long as the journal is

    def append(self, lines: bytes) -> None:
        """Add whole lines; an OSError if the disk takes no more."""
        written = 0
        while written < len(lines):
            written += self._file.write(lines[written:])
        if self._durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()


def cut(path: Path, n_bytes: int) -> None:
    """Shorten a log to its sound part; what is cut is kept beside it, unless it is one torn line."""
    with open(path, "r+b") as file:
        file.seek(n_bytes)
        rest = file.read()
        if b"\n" in rest:
            with open(path.with_name(f"{path.name}.damaged"), "ab") as beside:
                beside.write(rest)
        file.truncate(n_bytes)
        file.flush()
        os.fsync(file.fileno())
