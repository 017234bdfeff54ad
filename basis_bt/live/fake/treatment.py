"""From the faults of one request to how it is executed and what its answer shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from basis_bt.live.fake.faults import Event, Fault
from basis_bt.live.fake.lens import TRUTH, Lens
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.wire import Treatment

#: how early a request may have left and still be no abuse of a Retry-After it could not know
_ON_THE_WIRE_US = 250_000


def prepare(sim: SimVenue, event: Event, faults: Sequence[Fault]) -> tuple[Treatment, Fault | None]:
    """Apply what happens to the venue first; returns the treatment, and the fault of the reply if there is one."""
    treatment, lens, of_reply = Treatment(), TRUTH, None
    for fault in faults:
        match fault.kind:
            case "fill_share":
                treatment = replace(treatment, fill_share=fault.share)
            case "fill_before_cancel":
                treatment = replace(treatment, fill_share_before_cancel=fault.share)
            case "move_book":
                if event.instrument:
                    sim.move_book(event.instrument, fault.share)
            case "close_position":
                for instrument in sim.positions:
                    sim.close_by_venue(instrument)
            case "clock_offset":
                sim.clock_offset_ms = round(fault.seconds * 1000)
            case _:
                changed = _lens(lens, fault)
                of_reply = fault if changed is None else of_reply
                lens = changed or lens
    return replace(treatment, lens=lens), of_reply


def _lens(lens: Lens, fault: Fault) -> Lens | None:
    match fault.kind:
        case "hide_order":
            return replace(lens, is_order_hidden=True)
        case "stale_order":
            return replace(lens, orders_lag=fault.lag)
        case "stale_fill":
            return replace(lens, fills_lag=fault.lag)
        case "stale_positions":
            return replace(lens, positions_lag=fault.lag)
        case "copies":
            return replace(lens, copies=fault.copies)
        case "stale_book":
            return replace(lens, book_age_us=round(fault.seconds * 1e6), book_shift=fault.share)
        case "empty_side":
            return replace(lens, empty_side=fault.side)
        case "crossed_book":
            return replace(lens, is_crossed=True)
        case "wide_spread":
            return replace(lens, spread_bps=fault.bps)
        case "thin_book":
            return replace(lens, depth_base=fault.base)
    return None


@dataclass(slots=True)
class Closed:
    """Whether a venue is answering at all: a Retry-After window, and an outage."""

    limited_until_us: int = 0
    noticed_us: int = 0
    down_until_us: int = 0

    def limit(self, now_us: int, seconds: float) -> None:
        """Open a Retry-After window."""
        self.noticed_us, self.limited_until_us = now_us, now_us + round(seconds * 1e6)

    def down(self, now_us: int, seconds: float) -> None:
        """Begin an outage."""
        self.down_until_us = now_us + round(seconds * 1e6)

    def seconds_left(self, now_us: int) -> float:
        """Of the Retry-After window."""
        return max(0.0, (self.limited_until_us - now_us) / 1e6)

    def is_abuse(self, now_us: int) -> bool:
        """Whether whoever asks now must have known about the window."""
        return self.seconds_left(now_us) > 0.0 and now_us - self.noticed_us > _ON_THE_WIRE_US
