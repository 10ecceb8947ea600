"""How far the copy of a log is behind. Pure.

Every now and then the server is asked how far its log goes; what is copied catches up with that later. The copy is as
old as the newest look at the server that it has caught up with. Two things are not known, and then no number is told:
how old a copy is that never caught up with a look, and how far one is behind a server that has not answered for long.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime

SILENCE = 75.0
"""Seconds without a look after which nothing is known: two of the looks every 30 s, and some."""


@dataclass(frozen=True, slots=True)
class Look:
    """The server's end of the log, when it was asked."""

    now: float
    """Monotonic seconds."""
    at: datetime
    """By the server's clock."""
    end: int
    old: float = 0.0
    """Seconds by which what the server itself has is older: a standby is behind its primary."""


class ReplicationLag:
    """Of one source. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ahead: deque[Look] = deque(maxlen=10_000)
        """Looks that the copy has not caught up with, oldest first."""
        self._caught_up: Look | None = None
        self._looked_at: float | None = None
        self._end = 0

    def looked(self, look: Look) -> None:
        """The server was asked."""
        self._looked_at = look.now
        self._ahead.append(look)
        self.copied(self._end)

    def copied(self, end: int) -> None:
        """Everything before `end` is copied."""
        self._end = max(self._end, end)
        while self._ahead and self._ahead[0].end <= self._end:
            self._caught_up = self._ahead.popleft()

    def began_anew(self) -> None:
        """What was copied does not join what comes now."""
        self._ahead.clear()
        self._caught_up, self._end = None, 0

    @property
    def covered_at(self) -> datetime | None:
        """All that was committed before this moment of the server's clock is copied."""
        return None if self._caught_up is None else self._caught_up.at

    def lag(self, now: float) -> float | None:
        """Seconds; None: it is not known."""
        if self._caught_up is None or self._looked_at is None or now - self._looked_at > SILENCE:
            return None
        return max(0.0, now - self._caught_up.now) + self._caught_up.old

    def behind(self, now: float) -> float | None:
        """At least so far, even when it never caught up; None: it is not known."""
        if self._looked_at is None or now - self._looked_at > SILENCE:
            return None
        known = self.lag(now)
        if known is not None or not self._ahead:
            return known
        return now - self._ahead[0].now + self._ahead[0].old
