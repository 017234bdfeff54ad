"""Client order ids: letters and digits, at most 28, the same again after a restart, so that an order can be found."""

import hashlib

from basis_bt.live.orders import PURPOSES

PREFIX_LENGTH = 6


def prefix_of(session: str) -> str:
    """What all orders of an engine begin with: ``b`` and a hash of what makes it this engine (accounts, journal)."""
    return "b" + hashlib.sha256(session.encode()).hexdigest()[: PREFIX_LENGTH - 1]


def client_order_id(prefix: str, intent: str, *, purpose: str, leg: int, attempt: int) -> str:
    """The id of one order: derived from the instruction it serves, what it is for, its leg and attempt.

    All venues take letters and digits; the shortest limit is 32. ``intent`` is ``"<number>-<action>"``, unique in a
    journal.
    """
    digest = hashlib.sha256(f"{intent}/{purpose}/{leg}/{attempt}".encode()).hexdigest()[:16]
    return f"{prefix}{purpose[0] if purpose in PURPOSES else 'z'}{leg % 10}{digest}"


def is_ours(client_id: str, prefix: str) -> bool:
    """Whether an order that was met at a venue was sent by this engine."""
    return client_id.startswith(prefix)
