"""What the users saw, counted: per phase and upstream, and over time.

Every request ends in one of four ways: the upstream answered (anything below 500), a fallback stood in, the proxy
refused at once, or it was an error (the upstream's own 5xx, a time-out, a broken connection). Good is what the user
could use: any answer below 500, whoever gave it.
"""

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field

from sidecar.base.names import Decision

KINDS = ("answered", "fallback", "refused", "error")
_ANSWERED, _FALLBACK, _REFUSED, _ERROR = range(4)

TIERS = {
    Decision.FALLBACK_UPSTREAM: "upstream",
    Decision.FALLBACK_CACHE: "cache",
    Decision.FALLBACK_RESPOND: "respond",
}
REFUSALS = frozenset(
    {
        Decision.BREAKER_OPEN,
        Decision.MANUAL_OPEN,
        Decision.OVERFLOW,
        Decision.NO_HEALTHY_ENDPOINT,
        Decision.NO_ROUTE,
    }
)

_STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)
_MOST_STEPS = 240


@dataclass(slots=True)
class Row:
    """The requests of one phase to one upstream."""

    requests: int = 0
    good: int = 0
    answered: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    """By tier."""
    refused: Counter[str] = field(default_factory=Counter)
    """By decision word."""
    errors: Counter[str] = field(default_factory=Counter)
    """By decision word, or status_NNN for the upstream's own."""
    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    """How long each user waited."""

    def add(self, other: "Row") -> None:
        """Count the other's requests as well."""
        self.requests += other.requests
        self.good += other.good
        self.answered += other.answered
        self.fallbacks += other.fallbacks
        self.refused += other.refused
        self.errors += other.errors
        self.seconds += other.seconds

    def quantiles(self, *shares: float) -> list[float]:
        """The waits that these shares of the users did not exceed (nearest rank); 0 without requests."""
        waits = sorted(self.seconds)
        return [waits[max(0, math.ceil(share * len(waits)) - 1)] if waits else 0.0 for share in shares]


class Tally:
    """All that is counted in one run."""

    def __init__(self, seconds: float) -> None:
        self.rows: dict[tuple[int, str], Row] = {}
        self.step = next((step for step in _STEPS if seconds / step <= _MOST_STEPS), _STEPS[-1])
        """Seconds of one point of the timeline."""
        self.points: list[list[int]] = []
        """Requests that ended within each step, one count per kind."""

    def count(
        self, phase: int, upstream: str, status: int, decision: Decision | None, started: float, ended: float
    ) -> None:
        """A request of `phase` ended."""
        row = self.rows.get((phase, upstream))
        if row is None:
            row = self.rows[phase, upstream] = Row()
        row.requests += 1
        row.seconds.append(ended - started)
        if status < 500:
            row.good += decision is not Decision.NO_ROUTE
        if decision is None:
            if status < 500:
                kind = _ANSWERED
                row.answered += 1
            else:
                kind = _ERROR
                row.errors[f"status_{status}"] += 1
        elif decision in TIERS:
            kind = _FALLBACK
            row.fallbacks[TIERS[decision]] += 1
        elif decision in REFUSALS:
            kind = _REFUSED
            row.refused[decision.value] += 1
        else:
            kind = _ERROR
            row.errors[decision.value] += 1
        point = int(ended / self.step)
        while len(self.points) <= point:
            self.points.append([0, 0, 0, 0])
        self.points[point][kind] += 1

    def whole(self) -> Row:
        """All requests together."""
        total = Row()
        for row in self.rows.values():
            total.add(row)
        return total
