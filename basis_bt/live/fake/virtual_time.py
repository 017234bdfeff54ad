"""An asyncio event loop on which waiting costs nothing: when nobody is ready, time jumps to the next timer.

Sockets are real. Loopback data arrives within the system call that sends it, all but always; before time moves the loop
looks at the sockets twice, and it moves in steps that double, so that a late byte meets an early clock.
"""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from basis_bt.live.clock import Clock

Result = TypeVar("Result")
START_US = 1_700_000_000_000_000
_LOOK_S = 0.0003
_FIRST_STEP_S = 0.1
_TICK_S = 1e-6


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set, and no socket has spoken for some real seconds."""


class _Selector(selectors.DefaultSelector):
    """Looks at the sockets for real and, where there is nothing, moves the loop's time instead of waiting."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            self.loop.step_s = _FIRST_STEP_S
            return events
        if timeout is None or self.loop.jobs_in_threads:
            return self._wait_for_others()
        time.sleep(_LOOK_S)
        events = super().select(0)
        if not events:
            self.loop.now_s += min(timeout, self.loop.step_s)
            self.loop.step_s *= 2.0
        return events

    def _wait_for_others(self) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(self.loop.deadlock_s)
        if not events:
            raise DeadlockError(f"nothing was ready for {self.loop.deadlock_s} s, and no timer is set")
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at zero. Work handed to threads takes no virtual time."""

    def __init__(self, *, deadlock_s: float = 10.0) -> None:
        self.now_s = 0.0
        self.step_s = _FIRST_STEP_S
        self.deadlock_s = deadlock_s
        self.jobs_in_threads = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = _TICK_S  # a sum of steps may miss a timer by a rounding error

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As usual; time stands still until the thread is done."""
        self.jobs_in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_is_done)
        return future

    def _thread_is_done(self, _: asyncio.Future[Any]) -> None:
        self.jobs_in_threads -= 1


class VirtualClock(Clock):
    """The clock of a ``VirtualLoop``: the start plus the loop's time."""

    def __init__(self, loop: VirtualLoop, *, start_us: int = START_US) -> None:
        self._loop = loop
        self._start_us = start_us

    def now_us(self) -> int:
        """Epoch microseconds on the loop."""
        return self._start_us + round(self._loop.time() * 1e6)

    def monotonic_s(self) -> float:
        """Seconds since the loop began."""
        return self._loop.time()


def run_virtual(
    main: Callable[[VirtualClock], Awaitable[Result]], *, start_us: int = START_US, deadlock_s: float = 10.0
) -> Result:
    """Run ``main(clock)`` on a virtual loop of its own, as ``asyncio.run`` would.

    Raises
    ------
    DeadlockError
        If nobody can ever wake up again.
    """
    loop = VirtualLoop(deadlock_s=deadlock_s)
    clock = VirtualClock(loop, start_us=start_us)

    async def entry() -> Result:
        return await main(clock)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(entry())
