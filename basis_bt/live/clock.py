"""Time as the live adapter sees it, so that tests can bring their own."""

import asyncio
import time


class Clock:
    """The wall clock in UTC, a monotonic one for durations, and waiting."""

    def now_us(self) -> int:
        """UTC, epoch microseconds."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
