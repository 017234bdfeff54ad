"""The faults of a plan as they reach whoever calls the simulator directly, without a connection in between.

Behaves as a careful adapter and its venue together: a pause that is asked for is kept, a wrong clock is set right, and
then the request goes out once more.
"""

import asyncio
from collections.abc import Awaitable, Callable

from basis_bt.live.clock import Clock
from basis_bt.live.fake.faults import Event, Fault, Plan
from basis_bt.live.fake.records import Refused
from basis_bt.live.fake.simulator import SimVenue
from basis_bt.live.fake.treatment import Closed, prepare
from basis_bt.live.fake.wire import Treatment
from basis_bt.live.venue import VenueDown

_ATTEMPTS = 3
_CLOSING_FIRST_S = 0.25


class Gate:
    """What stands between a caller and one account.

    Parameters
    ----------
    timeout_s : how long a reply that never comes is waited for
    """

    def __init__(self, sim: SimVenue, plan: Plan, *, clock: Clock, timeout_s: float) -> None:
        self.sim, self.plan, self._clock, self._timeout_s = sim, plan, clock, timeout_s
        self._closed = Closed()
        self._known_offset_ms = sim.clock_offset_ms
        self._late: set[asyncio.TimerHandle] = set()

    async def enter(
        self, operation: str, instrument: str | None, *, closing: bool = False, side: int | None = None,
        order_kind: str | None = None, first: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Treatment, Fault | None]:  # fmt: skip
        """How the request is treated, and the fault of its reply; ``first`` is awaited before each attempt.

        Raises
        ------
        VenueDown
            In an outage; of kind ``rate`` where pauses were asked for again and again.
        """
        for _ in range(_ATTEMPTS):
            await self._keep_quiet(closing)
            if first is not None:
                await first()
            now_us = self._clock.now_us()
            event = Event(
                ts_us=now_us, venue=self.sim.name, operation=operation, instrument=instrument, side=side,
                order_kind=order_kind,
            )  # fmt: skip
            if operation == "create" and instrument is not None:
                self.sim.creates[instrument] += 1
            if now_us < self._closed.down_until_us:
                raise VenueDown(f"{self.sim.name}: service unavailable")
            treatment, fault = prepare(self.sim, event, self.plan.strike(event))
            if not self._is_clock_right():
                continue
            match fault.kind if fault else "":
                case "rate_limit":
                    assert fault is not None
                    self._closed.limit(now_us, fault.seconds)
                    continue
                case "down":
                    assert fault is not None
                    self._closed.down(now_us, fault.seconds)
                    raise VenueDown(f"{self.sim.name}: service unavailable")
                case "cut_before" if operation == "create" and instrument is not None:
                    self.sim.creates[instrument] -= 1
            return treatment, fault
        raise VenueDown(f"{self.sim.name}: too many requests", kind="rate")

    async def lose(self, fault: Fault | None) -> None:
        """Wait as long as a caller waits for the reply."""
        if fault is not None and fault.kind == "hang":
            await self._clock.sleep(min(fault.seconds, self._timeout_s))

    def execute_late(self, seconds: float, execute: Callable[[], object]) -> None:
        """Execute when nobody waits for it any more."""

        def run() -> None:
            self._late.discard(handle)
            try:
                execute()
            except Refused:
                return  # the account has counted it

        handle = asyncio.get_running_loop().call_later(seconds, run)
        self._late.add(handle)

    def close(self) -> None:
        """Forget what was to be executed late."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()

    def _is_clock_right(self) -> bool:
        """A wrong clock is noticed by a refusal, and set right for the next attempt."""
        behind_ms = self.sim.clock_offset_ms - self._known_offset_ms
        self._known_offset_ms = self.sim.clock_offset_ms
        return -self.sim.rules.ahead_ms < behind_ms <= self.sim.rules.recv_window_ms

    async def _keep_quiet(self, closing: bool) -> None:
        """Wait until the pause is over; what closes goes first."""
        while left_s := self._closed.seconds_left(self._clock.now_us()):
            await self._clock.sleep(left_s + (0.0 if closing else _CLOSING_FIRST_S))
