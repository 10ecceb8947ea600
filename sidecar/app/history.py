"""The last minutes of traffic, for the plots of the status page: what came and failed per second, and how long it took.

A look every PERIOD seconds; each becomes a point that tells of the time since the look before it. Latencies are those
of that time alone, not of all time, so a slow minute shows and goes. KEPT points are held: ten minutes.
Pure: who looks brings the time and the numbers.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from sidecar.app.view import errors_of
from sidecar.runtime import series
from sidecar.runtime.metrics import Snapshot, quantile

PERIOD = 2.0
KEPT = 300


class Point(NamedTuple):
    """One stretch of time."""

    number: int
    """Counts up; never used twice."""
    at: float
    """Its end, Unix seconds."""
    requests: float
    """Per second; so are errors."""
    errors: float
    p50: float | None
    """Milliseconds; None: nothing came. So is p99."""
    p99: float | None


class History:
    """The points that are kept."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._number = 0
        self._before: tuple[float, float, float, Sequence[int]] | None = None

    def take(self, at: float, now: float, snapshot: Snapshot) -> None:
        """Look: `at` in Unix seconds for people, `now` in monotonic ones to divide by."""
        durations = snapshot.select(series.REQUEST_DURATION)
        counts = [sum(column) for column in zip(*(one.counts for one in durations), strict=True)]
        total, errors = snapshot.total(series.REQUESTS), errors_of(snapshot)
        before, self._before = self._before, (now, total, errors, counts)
        if before is None or now <= before[0]:
            return
        seconds = now - before[0]
        grown = [max(0, new - old) for new, old in zip(counts, before[3] or [0] * len(counts), strict=False)]
        p50, p99 = (_milliseconds(grown, share) for share in (0.5, 0.99))
        self._number += 1
        came, failed = max(0.0, total - before[1]) / seconds, max(0.0, errors - before[2]) / seconds
        self._points.append(Point(self._number, round(at, 1), round(came, 2), round(failed, 2), p50, p99))

    def after(self, number: int) -> list[Point]:
        """The points that came after this one."""
        return [point for point in self._points if point.number > number]


def _milliseconds(counts: list[int], share: float) -> float | None:
    seconds = quantile(series.REQUEST_DURATION.bounds, counts, share)
    return None if seconds is None else round(1000 * seconds, 2)
