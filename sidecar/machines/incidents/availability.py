"""Figures about ourselves: availability, MTTA, MTTR, MTBF, and how fast the error budget burns.

* Availability = 1 − union of downtime ÷ observed time. Down is when requests failed because of an incident, however
  many incidents that were at once. Observed is when a sidecar ran and looked; what lies between its runs is unknown,
  and in neither. With nothing observed there is no availability.
* MTTA is the mean from detection to acknowledgement, MTTR from start to resolution, over what was acknowledged or
  resolved within the window. MTBF is uptime ÷ failures; a failure is an incident in which requests failed, so without
  one there is no MTBF yet, and the uptime is the least that it can be.
* A burn rate is the share of failed requests ÷ the share that the objective allows: 1 uses the budget up exactly at the
  end of its period. Two windows must both burn, the long one so that it matters, the short one so that it is still
  going on (Google, The Site Reliability Workbook, chapter 5, table 5-8).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sidecar.machines.incidents.incident import Incident, Severity

WINDOW = 30 * 24 * 3600.0
"""Seconds that availability and means look back."""
_STEP = 10.0
"""Seconds between two counts that are kept."""

Span = tuple[float, float]


class Burn(NamedTuple):
    """Burns at `rate` or faster over both windows (seconds) are worth an incident of this severity."""

    rate: float
    long: float
    short: float
    severity: Severity


BURNS = (Burn(14.4, 3600.0, 300.0, Severity.CRITICAL), Burn(6.0, 21600.0, 1800.0, Severity.ERROR))
FEWEST_ERRORS = 10
"""Failed requests within the short window, before which no burn is an incident."""


class Figures(NamedTuple):
    """Over the last WINDOW; seconds, and None where nothing is known."""

    observed: float
    unknown: float
    down: float
    availability: float | None
    incidents: int
    failures: int
    mtta: float | None
    mttr: float | None
    mtbf: float | None


def union(spans: Iterable[Span]) -> list[Span]:
    """The same times without overlaps, in order; empty and reversed spans are left out."""
    merged: list[Span] = []
    for begin, end in sorted(span for span in spans if span[1] > span[0]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def overlap(left: Sequence[Span], right: Sequence[Span]) -> float:
    """Seconds that are in both; each is a union."""
    seconds, i, j = 0.0, 0, 0
    while i < len(left) and j < len(right):
        seconds += max(0.0, min(left[i][1], right[j][1]) - max(left[i][0], right[j][0]))
        if left[i][1] <= right[j][1]:
            i += 1
        else:
            j += 1
    return seconds


def figures(runs: Iterable[Span], incidents: Iterable[Incident], now: float) -> Figures:
    """The figures at `now`; `runs`: when a sidecar ran and looked."""
    since = now - WINDOW
    seen = union((max(begin, since), min(end, now)) for begin, end in runs)
    observed = sum(end - begin for begin, end in seen)
    unknown = (now - seen[0][0]) - observed if seen else 0.0
    known = [one for one in incidents if (one.resolved or now) >= since]
    outages = [(one, one.down(since, now)) for one in known]
    down = overlap(union(span for _, spans in outages for span in spans), seen)
    failures = sum(1 for one, spans in outages if spans or one.out_since is not None)
    acks = [one.acknowledged - one.detected for one in known if one.acknowledged is not None]
    ends = [one.resolved - one.started for one in known if one.resolved is not None]
    return Figures(
        observed=observed,
        unknown=unknown,
        down=down,
        availability=1.0 - down / observed if observed > 0.0 else None,
        incidents=len(known),
        failures=failures,
        mtta=_mean(acks),
        mttr=_mean(ends),
        mtbf=(observed - down) / failures if failures else None,
    )


def _mean(seconds: list[float]) -> float | None:
    return sum(max(0.0, one) for one in seconds) / len(seconds) if seconds else None


class BudgetBurn:
    """Counts of requests over the last hours, and how fast the budget of `objective` burns. `now` is monotonic."""

    def __init__(self, objective: float, now: float) -> None:
        self._allowed = max(1e-9, 1.0 - objective)
        self._kept: deque[tuple[float, float, float]] = deque([(now, 0.0, 0.0)])
        self._latest = (now, 0.0, 0.0)

    def add(self, now: float, total: float, failed: float) -> None:
        """All requests so far, and those of them that failed; counts that fell back began anew."""
        if total < self._latest[1]:
            self._kept.clear()
            self._kept.append((now, total, failed))
        self._latest = (now, total, failed)
        if now - self._kept[-1][0] >= _STEP:
            self._kept.append(self._latest)
            horizon = now - max(burn.long for burn in BURNS) - _STEP
            while len(self._kept) > 1 and self._kept[1][0] <= horizon:
                self._kept.popleft()

    def counted(self, seconds: float) -> tuple[float, float]:
        """Requests and failed ones within the last so many seconds, or as far as is known."""
        since = self._latest[0] - seconds
        base = self._kept[0]
        for one in self._kept:
            if one[0] > since:
                break
            base = one
        return self._latest[1] - base[1], self._latest[2] - base[2]

    def rate(self, seconds: float) -> float:
        """The burn rate over the last so many seconds; 0 without requests."""
        total, failed = self.counted(seconds)
        return failed / total / self._allowed if total > 0 else 0.0

    def burning(self) -> Burn | None:
        """The first of BURNS that both its windows show."""
        for burn in BURNS:
            if min(self.rate(burn.long), self.rate(burn.short)) >= burn.rate:
                return burn if self.counted(burn.short)[1] >= FEWEST_ERRORS else None
        return None
