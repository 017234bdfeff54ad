"""F34: a random fault for one request in twenty, of the kinds of sections A, C and D."""

import random
from dataclasses import dataclass, field

from basis_bt.live.fake.faults import Event, Fault

_LOST_CREATES = (
    Fault(kind="cut_before"), Fault(kind="late", seconds=3.0), Fault(kind="cut_after"),
    Fault(kind="hang", seconds=30.0), Fault(kind="half_body"), Fault(kind="empty_body"), Fault(kind="html_body"),
    Fault(kind="status", status=500), Fault(kind="status", status=502), Fault(kind="status", status=503),
    Fault(kind="status", status=504), Fault(kind="status_unknown"), Fault(kind="duplicate"),
    Fault(kind="fill_share", share=0.4), Fault(kind="refuse", reason="price_band"),
)  # fmt: skip
_LOST_ANSWERS = (
    Fault(kind="cut_before"), Fault(kind="cut_after"), Fault(kind="hang", seconds=30.0), Fault(kind="half_body"),
    Fault(kind="html_body"), Fault(kind="status", status=502), Fault(kind="status", status=503),
)  # fmt: skip
_ANY = (Fault(kind="rate_limit", seconds=1.0), Fault(kind="clock_offset", seconds=60.0), Fault(kind="clock_offset"))
_BY_OPERATION: dict[str, tuple[Fault, ...]] = {
    "create": _LOST_CREATES,
    "cancel": (
        Fault(kind="fill_before_cancel", share=1.0), Fault(kind="fill_before_cancel", share=0.5), *_LOST_ANSWERS,
    ),
    "find": (Fault(kind="hide_order"), Fault(kind="stale_order"), *_LOST_ANSWERS),
    "trades": (Fault(kind="copies"), *_LOST_ANSWERS),
    "book": (
        Fault(kind="stale_book", seconds=30.0, share=0.01), Fault(kind="empty_side"), Fault(kind="empty_side", side=-1),
        Fault(kind="crossed_book"), *_LOST_ANSWERS,
    ),
}  # fmt: skip


def random_fault(rng: random.Random, operation: str) -> Fault:
    """One fault that such a request can meet."""
    return rng.choice((*_BY_OPERATION.get(operation, _LOST_ANSWERS), *_ANY))


@dataclass(slots=True)
class SoakPlan:
    """Strikes each request with ``probability``; stands where a ``FaultPlan`` does. The same seed, the same faults."""

    seed: int
    probability: float = 0.05
    is_on: bool = True
    fired: list[tuple[Event, Fault]] = field(default_factory=list)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def strike(self, event: Event) -> list[Fault]:
        """The fault of this request, if it meets one."""
        if not self.is_on or self._rng.random() >= self.probability:
            return []
        fault = random_fault(self._rng, event.operation)
        self.fired.append((event, fault))
        return [fault]

    @property
    def last_us(self) -> int | None:
        """When a fault last struck."""
        return self.fired[-1][0].ts_us if self.fired else None
