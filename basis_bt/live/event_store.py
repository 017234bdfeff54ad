"""The SQLite file of a journal: events that are never changed, and the values of its state."""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from basis_bt.core.errors import StoreError
from basis_bt.live.event_types import FILL, FUNDING, STATE, Event

DATABASE = "journal.sqlite"
APPLICATION_ID = 0x62617342  # "basB" in the header of the file: tells a journal from any other database
VERSION = 1  # of the schema; a journal of a later one is not opened

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, ts_us INTEGER NOT NULL, type TEXT NOT NULL, intent TEXT, client_order_id TEXT, venue TEXT,
    instrument TEXT, payload TEXT NOT NULL
);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE INDEX events_by_type ON events (type, seq);
CREATE UNIQUE INDEX one_fill ON events (venue, instrument, json_extract(payload, '$.trade_id')) WHERE type = '{FILL}';
CREATE UNIQUE INDEX one_payment ON events (venue, instrument, json_extract(payload, '$.payment_id'))
    WHERE type = '{FUNDING}';
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class EventStore:
    """One connection to the file; ``is_new`` tells that there was none.

    Parameters
    ----------
    folder : of the journal; None for a database in memory
    durable : flush each commit to disk (write-ahead log, ``synchronous = FULL``)
    read_only : change nothing, and raise if there is nothing

    Raises
    ------
    StoreError
        If the file is damaged, no journal, or of a later version.
    """

    def __init__(self, folder: Path | None, *, durable: bool = True, read_only: bool = False) -> None:
        self._where = {"path": ":memory:" if folder is None else folder / DATABASE}
        path = None if folder is None else folder / DATABASE
        self.is_new = path is None or not path.exists() or path.stat().st_size == 0
        if read_only and self.is_new:
            raise StoreError("there is no journal", where=self._where, fix="give the folder of a journal")
        try:
            if read_only and path is not None:
                uri = f"{path.resolve().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            else:
                self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        try:
            if not self.is_new:
                self._check()
            if not read_only:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
                if self.is_new:
                    self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self.close()
            raise self._damaged(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def last(self) -> tuple[int, int]:
        """``seq`` and ``ts_us`` of the last event; zeros without any."""
        row = self._connection.execute("SELECT seq, ts_us FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, 0) if row is None else row

    def begin(self) -> None:
        """Begin a transaction."""
        self._guarded(lambda: self._connection.execute("BEGIN IMMEDIATE"))

    def commit(self) -> None:
        """End it; what was inserted is on disk when this returns. Nothing of it is kept if it raises."""
        try:
            self._guarded(lambda: self._connection.execute("COMMIT"))  # an error, too, if SQLite undid it by itself
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Undo it."""
        self._connection.rollback()

    def insert(self, event: Event) -> bool:
        """Add an event within a transaction; False if it is a fill or a payment that is there already."""
        row = (event.seq, event.ts_us, event.type, event.intent, event.client_order_id, event.venue, event.instrument,
               json.dumps(event.payload, allow_nan=False))  # fmt: skip
        known = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        if event.type in (FILL, FUNDING):
            known += " ON CONFLICT DO NOTHING"
        if self._guarded(lambda: self._connection.execute(known, row)).rowcount == 0:
            return False
        if event.type == STATE:
            value = (event.payload["key"], json.dumps(event.payload["value"]))
            self._guarded(lambda: self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", value))
        return True

    def events(self, types: Collection[str] | None = None, since_seq: int = 0) -> Iterator[Event]:
        """Events after a ``seq``, all or of some types, in the order of ``seq``."""
        query, values = "SELECT * FROM events WHERE seq > ?", [since_seq, *(types or ())]
        if types is not None:
            query += f" AND type IN ({', '.join('?' * len(types))})"
        for seq, ts_us, kind, intent, client_order_id, venue, instrument, payload in self._connection.execute(
            query + " ORDER BY seq", values
        ):
            yield Event(
                seq=seq, ts_us=ts_us, type=kind, intent=intent, client_order_id=client_order_id, venue=venue,
                instrument=instrument, payload=json.loads(payload),
            )  # fmt: skip

    def value(self, key: str) -> str | None:
        """The JSON text of a value of the state."""
        row = self._connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _check(self) -> None:
        application_id, version = (self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                                   for name in ("application_id", "user_version"))  # fmt: skip
        if application_id != APPLICATION_ID:
            raise StoreError(f"{DATABASE} is a database, but not a journal of basis_bt", where=self._where,
                             fix="choose another folder for the journal")  # fmt: skip
        if version > VERSION:
            raise StoreError(
                f"the journal was written by a later version of basis_bt (schema {version}, this one knows {VERSION})",
                where=self._where,
                fix="update basis_bt; a journal is never written by an earlier version",
            )
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(found)
        n_events, last = self._connection.execute("SELECT COUNT(*), COALESCE(MAX(seq), 0) FROM events").fetchone()
        if n_events != last:
            raise self._damaged(f"{last - n_events} of {last} events are missing")

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except sqlite3.Error as error:
            raise StoreError(
                f"the journal could not be written: {error}",
                where=self._where,
                fix="check free space and permissions; nothing was kept of this event, so nothing may be sent for it",
            ) from error

    def _damaged(self, found: object) -> StoreError:
        return StoreError(
            f"{DATABASE} is damaged or no database: {found}",
            where=self._where,
            fix=f"move {DATABASE} (and its -wal and -shm) away and open the journal again: it is rebuilt from its log",
        )
