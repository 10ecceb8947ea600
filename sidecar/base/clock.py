"""Time as the floors above receive it: monotonic seconds for decisions, aware UTC for people."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from. Machines never hold one; shells do."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def utc(self) -> datetime:
        """The wall clock, time zone aware, for what people read."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)


def since_boot() -> float:
    """Monotonic seconds that also pass while the machine sleeps: what is missed asleep is seen as missed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
