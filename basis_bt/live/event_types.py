"""What the journal records: the types of events, and an event itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SESSION_START = "session_start"  # the engine begins: mode, versions, configuration hash
SESSION_END = "session_end"  # the engine ended by itself; a session without one was killed
DECISION = "decision"  # what the rule asked for, before anything is sent
REFUSED = "refused"  # a decision that was not carried out; nothing was sent
INTENT = "intent"  # a whole LegOrder, on disk before it is sent
SENT = "sent"  # the request is about to leave
ACK = "ack"  # the venue has the order
UNKNOWN = "unknown"  # nobody can tell whether the venue has the order
FOUND = "found"  # an unknown order was met at the venue
MISSING = "missing"  # an unknown order was asked for past its time: the venue never had it; terminal
ORDER_REFUSED = "order_refused"  # the venue said no; terminal
CANCEL_ASKED = "cancel_asked"  # a cancel is about to leave
ORDER_DONE = "order_done"  # the order can fill no more: filled quantity and status; terminal
FILL = "fill"  # one trade of the venue, once per (venue, instrument, trade_id)
LATE_FILL = "late_fill"  # a fill of an order that was taken to be over
LEG_RESULT = "leg_result"  # what an order came to
COMBO_RESULT = "combo_result"  # what an instruction for all legs came to
TRADE = "trade"  # a round trip as it stands; the last one of its number holds
FUNDING = "funding"  # one funding payment, once per (venue, instrument, payment_id)
TRANSFER = "transfer"  # cash moved between wallets or venues
INCIDENT = "incident"  # something a person should look at
BREAKER_OPEN = "breaker_open"  # the circuit breaker opened: no entries
BREAKER_RESET = "breaker_reset"  # and was closed again
RECONCILE = "reconcile"  # journal against venues: what was compared, what was found
MARK = "mark"  # one row of the equity curve: prices, positions, cash, books
STATE = "state"  # a key of the state was given a value

TYPES = (
    SESSION_START, SESSION_END, DECISION, REFUSED, INTENT, SENT, ACK, UNKNOWN, FOUND, MISSING, ORDER_REFUSED,
    CANCEL_ASKED, ORDER_DONE, FILL, LATE_FILL, LEG_RESULT, COMBO_RESULT, TRADE, FUNDING, TRANSFER, INCIDENT,
    BREAKER_OPEN, BREAKER_RESET, RECONCILE, MARK, STATE,
)  # fmt: skip
#: after one of these nothing more is expected of an order
TERMINAL = (ORDER_DONE, ORDER_REFUSED, MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the journal. ``ts_us`` is when it happened, ``seq`` the order in which it was learnt, without gaps.

    A fill that is learnt late has an earlier ``ts_us`` than the event before it; ``seq`` alone is the order to replay.
    """

    seq: int
    ts_us: int
    type: str
    intent: str | None = None
    client_order_id: str | None = None
    venue: str | None = None
    instrument: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
