"""The journal of an engine: every intent before it is sent, and everything that came of it, safe from a kill.

A folder with ``journal.sqlite`` (the truth, ``event_store.py``), ``events.jsonl`` (the same to read, ``event_log.py``)
and ``lock``. When ``append`` returns, the event is on disk. Positions, cash and open orders are not stored: they are
what the events add up to (``holdings.py``), so they cannot disagree with them.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from basis_bt.core.errors import StoreError
from basis_bt.live import event_log
from basis_bt.live.event_store import DATABASE, EventStore
from basis_bt.live.event_types import FILL, FUNDING, INTENT, LEG_RESULT, STATE, TERMINAL, TRANSFER, TYPES, Event
from basis_bt.live.holdings import Holdings
from basis_bt.live.lock import FileLock
from basis_bt.live.orders import FundingPayment, LegOrder, LegResult, VenueTrade
from basis_bt.live.redaction import Redactor
from basis_bt.store.folder import sync_folder

LOG, LOCK = "events.jsonl", "lock"


class Journal:
    """An append-only store of events, and a few values that survive a restart; a context manager, or ``close`` it.

    Parameters
    ----------
    path : its folder, made if it is missing; None keeps everything in memory, for a replay
    secrets : values that are masked wherever they turn up (see ``redaction.py``)
    durable : whether a commit is flushed to disk before ``append`` returns; False only where nothing is at stake
    read_only : look at a journal that another process writes; no lock, and nothing is put right. Positions and cash are
        those at the opening, events are read as they are by then

    Attributes
    ----------
    notes : sentences on what was found and put right on opening: a torn line, missing lines, a rebuilt database

    Raises
    ------
    StoreError
        If another instance has it open, or its file is damaged, not a journal, or of a later version of basis_bt.
    """

    def __init__(
        self, path: str | Path | None, *, secrets: Iterable[str] = (), durable: bool = True, read_only: bool = False
    ) -> None:
        self.path = None if path is None else Path(path)
        self.notes: list[str] = []
        self._redactor, self._durable = Redactor(secrets), durable
        self._holdings, self._depth = Holdings(), 0
        self._last_seq, self._last_ts_us = 0, 0
        self._pending: list[Event] = []
        self._open_files = contextlib.ExitStack()
        self._log: event_log.EventLog | None = None
        try:
            self._open(read_only)
        except OSError as error:
            self.close()
            raise StoreError(
                f"the journal cannot be opened: {error.strerror or error}",
                where={"path": self.path},
                fix="check the folder, its permissions and free space",
            ) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close files and let go of the lock; a second time does nothing."""
        self._open_files.close()

    def append(
        self,
        type: str,
        *,
        ts_us: int,
        intent: str | None = None,
        client_order_id: str | None = None,
        venue: str | None = None,
        instrument: str | None = None,
        **payload: Any,
    ) -> int:
        """Record an event; when this returns it is on disk. Returns its ``seq``.

        Raises
        ------
        StoreError
            If it cannot be written (nothing of it is kept then), its type is unknown, a key of the payload is one
            under which secrets travel, or it is a fill or a funding payment that is there already.
        """
        named = {"intent": intent, "client_order_id": client_order_id, "venue": venue, "instrument": instrument}
        seq = self._record(type, ts_us, payload, **named)
        if seq is None:
            raise StoreError(
                f"this {type} is in the journal already",
                where={"venue": venue, "instrument": instrument},
                fix="record it with Journal.fill or Journal.funding, which pass over what is known",
            )
        return seq

    def record(self, type: str, record: Any, *, ts_us: int, intent: str | None = None, **facts: Any) -> int:
        """Record a dataclass (a ``Mark``, a ``RoundTrip``, a ``ComboResult``, ...) as an event, with facts beside."""
        return _sure(self._record(type, ts_us, {**_fields(record), **facts}, intent=intent))

    def order_intent(self, order: LegOrder, *, ts_us: int | None = None) -> int:
        """Record an order before it is sent, all of it."""
        at_us = ts_us if ts_us is not None else order.sent_us or order.decided_us
        return _sure(self._record(
            INTENT, at_us, _fields(order), intent=order.intent, client_order_id=order.client_order_id,
            venue=order.venue, instrument=order.instrument,
        ))  # fmt: skip

    def fill(
        self, trade: VenueTrade, *, client_order_id: str | None = None, intent: str | None = None, **facts: Any
    ) -> int | None:
        """Record one trade of a venue; None, and nothing is written, if it is there already.

        Raises
        ------
        StoreError
            If its quantity, price or fee is not a number: positions and cash could not be derived any more.
        """
        _check_finite(trade, "quantity_base", "price", "fee")
        return self._record(
            FILL, trade.ts_us, {**_fields(trade), **facts}, intent=intent, client_order_id=client_order_id,
            venue=_venue(trade.instrument), instrument=trade.instrument,
        )  # fmt: skip

    def funding(self, payment: FundingPayment, **facts: Any) -> int | None:
        """Record one funding payment, with what is known of it beside (``marks.FUNDING_FACTS``); None if known."""
        _check_finite(payment, "amount")
        return self._record(
            FUNDING, payment.ts_us, {**_fields(payment), **facts}, venue=_venue(payment.instrument),
            instrument=payment.instrument,
        )  # fmt: skip

    def leg_result(self, result: LegResult, *, intent: str | None = None, **facts: Any) -> int:
        """Record what an order came to, with what the fills table needs beside (``marks.RESULT_FACTS``)."""
        return _sure(self._record(
            LEG_RESULT, result.done_us, {**_fields(result), **facts}, intent=intent,
            client_order_id=result.client_order_id, venue=result.venue, instrument=result.instrument,
        ))  # fmt: skip

    def put(self, key: str, value: Any, *, ts_us: int | None = None) -> None:
        """Keep a value (anything JSON has) under a key, as of the last event if no instant is given.

        It is an event too, so that a rebuilt journal has it again; a value that is there already is not written twice.
        """
        ((name, plain),) = self._redactor.payload({key: value}).items()
        if self._store.value(name) != json.dumps(plain):
            self._record(STATE, self._last_ts_us if ts_us is None else ts_us, {"key": name, "value": plain})

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Everything recorded inside is on disk as a whole or not at all; on an exception nothing of it is kept.

        Never await inside: what another task records meanwhile would wait for this commit, or be undone with it.
        """
        first_seq, first_ts_us = self._last_seq, self._last_ts_us
        if self._depth == 0:
            self._store.begin()
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._store.commit()
        except BaseException:
            if self._depth == 1:
                self._store.rollback()
                self._pending, self._last_seq, self._last_ts_us = [], first_seq, first_ts_us
            raise
        finally:
            self._depth -= 1
        if self._depth == 0:
            self._take_in()

    @property
    def last_seq(self) -> int:
        """``seq`` of the last event; 0 without any."""
        return self._last_seq

    def events(self, type: str | Collection[str] | None = None, since_seq: int = 0) -> list[Event]:
        """Events after a ``seq``, of one type, of several, or all, in the order of ``seq``."""
        return list(self._store.events([type] if isinstance(type, str) else type, since_seq))

    def get(self, key: str, default: Any = None) -> Any:
        """The value last put under a key."""
        text = self._store.value(key)
        return default if text is None else json.loads(text)

    def positions_base(self) -> dict[str, float]:
        """By instrument, from all fills recorded, net of fees taken in base (see ``holdings.py``)."""
        return self._holdings.positions_base()

    def cash(self) -> dict[str, dict[str, float]]:
        """By venue and asset, from all fills, funding payments and transfers recorded; counted from zero."""
        return self._holdings.cash()

    def open_intents(self) -> list[LegOrder]:
        """Orders that may exist at their venue: an intent and nothing terminal; to be settled after a restart."""
        return self._holdings.open_intents()

    def digest(self) -> str:
        """The sha256 of all events: equal for journals that say the same."""
        total = hashlib.sha256()
        for event in self._store.events():
            total.update(event_log.line_of(event))
        return total.hexdigest()

    def _record(self, type: str, ts_us: int, payload: Mapping[str, Any], **named: str | None) -> int | None:
        if type not in TYPES:
            raise StoreError(f"{type!r} is no type of event", fix=f"the types are {', '.join(TYPES)}")
        plain = self._redactor.payload(payload)
        with contextlib.nullcontext() if self._depth else self.together():
            event = Event(seq=self._last_seq + 1, ts_us=int(ts_us), type=type, payload=plain, **named)
            return event.seq if self._insert(event) else None

    def _insert(self, event: Event) -> bool:
        if not self._store.insert(event):
            return False
        self._pending.append(event)
        self._last_seq, self._last_ts_us = event.seq, event.ts_us
        return True

    def _take_in(self) -> None:
        """What follows a commit: positions and the log."""
        events, self._pending = self._pending, []
        for event in events:
            self._holdings.apply(event)
        if self._log is None or not events:
            return
        try:
            self._log.append(b"".join(map(event_log.line_of, events)))
        except OSError as error:  # the events are safe in the database; the next opening completes the log
            self.notes.append(f"{LOG} is not written any more: {error.strerror or error}")
            self._log = None

    def _open(self, read_only: bool) -> None:
        if self.path is not None and self.path.exists() and not self.path.is_dir():
            raise StoreError("a journal is a folder, and this is a file", where={"path": self.path},
                             fix="give the folder of the journal")  # fmt: skip
        if self.path is not None and not read_only:
            self.path.mkdir(parents=True, exist_ok=True)
            self._open_files.enter_context(FileLock(self.path / LOCK, what=f"the journal {self.path.name!r}"))
        self._store = EventStore(self.path, durable=self._durable, read_only=read_only)
        self._open_files.callback(self._store.close)
        self._last_seq, self._last_ts_us = self._store.last()
        for event in self._store.events((FILL, FUNDING, TRANSFER, INTENT, *TERMINAL)):
            self._holdings.apply(event)
        if self.path is not None and not read_only:
            self._settle_log(self.path / LOG)
            self._log = event_log.EventLog(self.path / LOG, durable=self._durable)
            self._open_files.callback(self._log.close)
            if self._durable:  # the names of the files, too
                sync_folder(self.path)
                sync_folder(self.path.parent)

    def _settle_log(self, path: Path) -> None:
        """Make both say the same: events that the database lacks come from the log, lines that it lacks from there."""
        n_known, n_bytes, n_same = self._last_seq, 0, 0
        known = self._store.events()
        with self.together():
            for event, line in event_log.whole_lines(path):
                if event.seq <= n_known and event_log.line_of(next(known)) != line:
                    break
                if event.seq > n_known and not self._insert(event):
                    break
                n_bytes, n_same = n_bytes + len(line), event.seq
        n_taken = self._last_seq - n_known
        if n_taken and self._store.is_new:
            self.notes.append(f"{DATABASE} was missing: it was rebuilt from the {n_taken} events of {LOG}")
        elif n_taken:
            self.notes.append(f"{DATABASE} lacked its last {n_taken} events: they were taken from {LOG}")
        note = event_log.what_follows(path, n_bytes)
        if note:
            self.notes.append(note)
            event_log.cut(path, n_bytes)
        if n_same < self._last_seq:
            self.notes.append(f"{LOG} lacked {self._last_seq - n_same} events that {DATABASE} has: they were added")
            with contextlib.closing(event_log.EventLog(path, durable=self._durable)) as log:
                log.append(b"".join(map(event_log.line_of, self._store.events(since_seq=n_same))))


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _venue(instrument: str) -> str:
    return instrument.split(":")[1]


def _sure(seq: int | None) -> int:
    """The ``seq`` of an event of a type that is never passed over."""
    if seq is None:
        raise StoreError("this fill or payment is in the journal already", fix="use Journal.fill or Journal.funding")
    return seq


def _check_finite(record: Any, *names: str) -> None:
    wrong = [name for name in names if not math.isfinite(getattr(record, name))]
    if wrong:
        raise StoreError(
            f"{wrong[0]} of a {type(record).__name__} must be a finite number, found {getattr(record, wrong[0])}",
            where={"instrument": record.instrument},
            fix="ask the venue again: without this number positions and cash cannot be derived",
        )
