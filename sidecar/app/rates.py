"""Rates: how fast counters grow, between one look and another that is at least a second before. Pure.

Whoever looks, and however often: a look right after another's is compared with the one before that. The first is
compared with the start, when everything was zero.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

SHORTEST = 1.0
"""Seconds; over less, a rate is noise."""

Key = TypeVar("Key")


class Rates(Generic[Key]):
    """The last two looks."""

    def __init__(self, now: float) -> None:
        """`now`: monotonic seconds."""
        self._earlier: tuple[float, Mapping[Key, float]] = (now, {})
        self._last = self._earlier

    def take(self, now: float, totals: Mapping[Key, float]) -> dict[Key, float]:
        """Growth per second of each of `totals`, as they are at `now`."""
        if now - self._last[0] >= SHORTEST:
            self._earlier, self._last = self._last, (now, dict(totals))
        since, before = self._earlier
        seconds = max(now - since, SHORTEST)
        return {key: max(0.0, total - before.get(key, 0.0)) / seconds for key, total in totals.items()}
