"""What can go wrong with a request, and a plan of which requests it goes wrong with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FaultKind = Literal[
    # the request or its reply is lost; all but the first and "late" after the venue has executed it
    "cut_before", "late", "cut_after", "hang", "half_body", "empty_body", "html_body", "status", "status_unknown",
    "duplicate",
    # the venue says no, or says nothing to anybody for a while
    "refuse", "rate_limit", "down",
    # the venue executes less, or something else first
    "fill_share", "fill_before_cancel", "move_book", "close_position", "clock_offset",
    # the answer departs from the truth
    "hide_order", "stale_order", "stale_fill", "stale_positions", "copies", "stale_book", "empty_side",
    "crossed_book", "wide_spread", "thin_book",
]  # fmt: skip
#: the reply to these is lost or says nothing
LOST = ("cut_before", "late", "cut_after", "hang", "half_body", "empty_body", "html_body", "status", "status_unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Parameters
    ----------
    kind : see ``FaultKind``
    seconds : ``late`` until it is executed, ``hang`` until the connection ends, ``rate_limit`` and ``down`` how long,
        ``stale_book`` its age, ``clock_offset`` how far the venue's clock is ahead
    share : of an order that is filled, of what rests that fills before a cancel, of a price that a book moves or is off
    status : HTTP status of ``status``
    reason : of ``refuse``, see ``records.REFUSALS``
    bps, base, side, copies, lag : of ``wide_spread``, ``thin_book``, ``empty_side``, ``copies``, ``stale_...``
    """

    kind: FaultKind
    seconds: float = 0.0
    share: float = 0.0
    status: int = 0
    reason: str = ""
    bps: float = 0.0
    base: float = 0.0
    side: int = 1
    copies: int = 2
    lag: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A request as a plan sees it; ``order_kind`` is ``limit`` for orders that can rest, else ``market``."""

    ts_us: int
    venue: str
    operation: str
    instrument: str | None
    order_kind: str | None = None
    side: int | None = None

    @property
    def market(self) -> str | None:
        """Kind of the instrument: ``spot`` or ``perp``."""
        return self.instrument.split(":")[0] if self.instrument else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """A fault, and the requests it strikes; None matches anything.

    The first ``skip`` matches are spared, then ``count`` of them are struck (None: all), each with ``probability``.
    With ``after`` only requests count that come after such an operation on the same instrument or, for requests about
    no instrument, on any of the venue.
    """

    fault: Fault
    operation: str | tuple[str, ...] | None = None
    venue: str | None = None
    market: str | None = None
    order_kind: str | None = None
    side: int | None = None
    after: str | None = None
    skip: int = 0
    count: int | None = 1
    probability: float = 1.0

    def matches(self, event: Event) -> bool:
        """Whether the rule is about such a request."""
        operations = (self.operation,) if isinstance(self.operation, str) else self.operation
        return (
            (operations is None or event.operation in operations)
            and self.venue in (None, event.venue)
            and self.market in (None, event.market)
            and self.order_kind in (None, event.order_kind)
            and self.side in (None, event.side)
        )


class Plan(Protocol):
    """Whatever decides which requests are struck."""

    fired: list[tuple[Event, Fault]]

    def strike(self, event: Event) -> list[Fault]:
        """The faults of this request."""


@dataclass(slots=True)
class FaultPlan:
    """Rules with their counts; ``fired`` is what has struck, in order. The same seed strikes the same requests."""

    rules: Sequence[FaultRule] = ()
    seed: int = 0
    fired: list[tuple[Event, Fault]] = field(default_factory=list)
    _matched: dict[int, int] = field(default_factory=dict)
    _struck: dict[int, int] = field(default_factory=dict)
    _seen: set[tuple[str, str | None, str]] = field(default_factory=set)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def strike(self, event: Event) -> list[Fault]:
        """The faults of this request."""
        faults = []
        for place, rule in enumerate(self.rules):
            if not rule.matches(event) or not self._is_after(rule, event):
                continue
            self._matched[place] = self._matched.get(place, 0) + 1
            is_due = self._matched[place] > rule.skip
            is_left = rule.count is None or self._struck.get(place, 0) < rule.count
            if is_due and is_left and (rule.probability >= 1.0 or self._rng.random() < rule.probability):
                self._struck[place] = self._struck.get(place, 0) + 1
                self.fired.append((event, rule.fault))
                faults.append(rule.fault)
        self._seen |= {(event.venue, event.instrument, event.operation), (event.venue, None, event.operation)}
        return faults

    def _is_after(self, rule: FaultRule, event: Event) -> bool:
        return rule.after is None or (event.venue, event.instrument, rule.after) in self._seen

    @property
    def last_us(self) -> int | None:
        """When a fault last struck."""
        return self.fired[-1][0].ts_us if self.fired else None
