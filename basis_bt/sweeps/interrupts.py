"""Ctrl-C and SIGTERM, carried out between two steps of a sweep and never within one.

An exception that leaves the standard library's waiting in the middle would leave its locks held, and the threads that
need them waiting for ever.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Note the signals that Python code handles; the function that is given carries out the first one.

    A second signal is carried out at once. Outside the main thread, where no signals arrive, nothing is held.
    """
    told: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1:
            before[number](number, frame)

    def carry_out() -> None:
        if told:
            before[told[0]](told[0], None)

    if threading.current_thread() is threading.main_thread():
        for number in HELD:
            handler = signal.getsignal(number)
            if callable(handler):  # not the system's own way, which ends the process at once
                before[number] = handler
                signal.signal(number, note)
    try:
        yield carry_out
    finally:
        for held, handler in before.items():
            signal.signal(held, handler)
    carry_out()
