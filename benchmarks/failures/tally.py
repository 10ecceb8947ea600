"""From what was seen in a storm to the figures that are asked for. Pure: no clock, no processes."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from benchmarks.failures.storm import Fault, Storm
from benchmarks.rig.client import percentile

REFUSED = "503 breaker_open"
IN_FLIGHT = 0.01
"""Seconds after the breaker opened within which what it let pass before may still reach the upstream."""
STAMP = 0.002
"""The proxy's log knows the time to the millisecond, and the two clocks are set against each other once."""


class Seen(msgspec.Struct, frozen=True):
    """What clients got; times in milliseconds from when a request was due until its answer was whole."""

    requests: int
    good: int
    good_share: float
    words: dict[str, int]
    p50_ms: float
    p99_ms: float


class Refusals(msgspec.Struct, frozen=True):
    """Of the answers `breaker_open`: how many, and how soon they came."""

    count: int
    within_5ms_share: float
    p50_ms: float
    p99_ms: float


class Detection(msgspec.Struct, frozen=True):
    """One fault. `failures_before` were seen by clients until the first refusal; `reached` is the upstream's own count
    until the breaker opened, null when it was dead; `opened_after_ms` runs from the fault to the first refusal.
    """

    kind: str
    failures_before: int
    reached: int | None
    opened_after_ms: float | None


class Outcome(msgspec.Struct, frozen=True):
    """A storm's figures; `detections` is empty where a fallback hid the refusals from the clients."""

    seen: Seen
    refusals: Refusals
    detections: list[Detection]
    trials: int
    """Changes to half open."""
    touched_while_open: int
    """Requests that reached the sick upstream while the breaker was open."""
    closed_at_last: bool


class Decisions(msgspec.Struct, frozen=True):
    """Bounds in microseconds: so large a share of the decisions took no longer."""

    count: int
    p50_us: float
    p99_us: float
    p999_us: float


def outcome(storm: Storm) -> Outcome:
    """The figures of one storm."""
    took = sorted(done - due for due, done, _ in storm.answers)
    words = Counter(word for _, _, word in storm.answers)
    good = sum(count for word, count in words.items() if word.split()[0] == "200")
    refused = sorted(done - due for due, done, word in storm.answers if word == REFUSED)
    return Outcome(
        seen=Seen(
            requests=len(took),
            good=good,
            good_share=good / max(1, len(took)),
            words=dict(words.most_common()),
            p50_ms=percentile(took, 0.5) * 1e3,
            p99_ms=percentile(took, 0.99) * 1e3,
        ),
        refusals=Refusals(
            count=len(refused),
            within_5ms_share=sum(one < 0.005 for one in refused) / max(1, len(refused)),
            p50_ms=percentile(refused, 0.5) * 1e3,
            p99_ms=percentile(refused, 0.99) * 1e3,
        ),
        detections=[_detection(storm, fault) for fault in storm.faults] if refused else [],
        trials=sum(new == "half_open" for _, _, new in storm.changes),
        touched_while_open=_touched(storm),
        closed_at_last=storm.closed_at_last,
    )


def _detection(storm: Storm, fault: Fault) -> Detection:
    failures, opened = 0, None
    for _, done, word in sorted(storm.answers, key=lambda answer: answer[1]):
        if not fault.began <= done <= fault.ended:
            continue
        if word == REFUSED:
            opened = done
            break
        failures += word != "200"
    changed = next((when for when, _, new in storm.changes if new == "open" and when >= fault.began - STAMP), None)
    reached = None
    if fault.kind != "killed" and changed is not None:
        reached = sum(fault.began <= when <= changed + IN_FLIGHT for when in storm.arrivals)
    return Detection(
        kind=fault.kind,
        failures_before=failures,
        reached=reached,
        opened_after_ms=None if opened is None else (opened - fault.began) * 1e3,
    )


def _touched(storm: Storm) -> int:
    """Arrivals within a period in which the breaker was open, its edges left out."""
    spans = [
        (when + IN_FLIGHT, next((later for later, old, _ in storm.changes if old == "open" and later > when), None))
        for when, _, new in storm.changes
        if new == "open"
    ]
    return sum(
        any(begin < when and (end is None or when < end - STAMP) for begin, end in spans) for when in storm.arrivals
    )


def decisions(storms: Iterable[Storm]) -> Decisions:
    """Of all storms together, from the histogram's buckets."""
    buckets: Counter[float] = Counter()
    for storm in storms:
        buckets.update(storm.decisions)
    total = max(buckets.values(), default=0)

    def bound(share: float) -> float:
        return next((le * 1e6 for le in sorted(buckets) if total and buckets[le] >= share * total), 0.0)

    return Decisions(int(total), bound(0.5), bound(0.99), bound(0.999))
