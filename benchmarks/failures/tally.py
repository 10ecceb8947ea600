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
    generator_late_p99_ms: float


class Refusals(msgspec.Struct, frozen=True):
    """Of the answers `breaker_open`: how many, and how soon they came."""

    count: int
    within_5ms_share: float
    p50_ms: float
    p99_ms: float


class Detection(msgspec.Struct, frozen=True):
    """One fault. `why` is the proxy's own word for opening. `failures` were seen by clients until the first refusal;
    those beyond what opened it were on their way already, and `let_through` counts the ones that were not: due
    after the breaker had opened, and failed all the same. `reached` is the upstream's count until it opened, null when
    it was dead. `opened_after_ms` runs from the fault to the first refusal.
    """

    kind: str
    why: str
    failures: int
    let_through: int
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
            generator_late_p99_ms=storm.late_p99_ms,
        ),
        refusals=Refusals(
            count=len(refused),
            within_5ms_share=sum(one < 0.005 for one in refused) / max(1, len(refused)),
            p50_ms=percentile(refused, 0.5) * 1e3,
            p99_ms=percentile(refused, 0.99) * 1e3,
        ),
        detections=[_detection(storm, fault) for fault in storm.faults] if refused else [],
        trials=sum(new == "half_open" for _, _, new, _ in storm.changes),
        touched_while_open=_touched(storm),
        closed_at_last=storm.closed_at_last,
    )


def _detection(storm: Storm, fault: Fault) -> Detection:
    opening = next(
        (at for at, change in enumerate(storm.changes) if change[2] == "open" and change[0] >= fault.began - STAMP),
        None,
    )
    opened = storm.changes[opening][0] if opening is not None else fault.ended
    why = storm.changes[opening][3] if opening is not None else "never"
    tried = next((when for when, old, _, _ in storm.changes if old == "open" and when > opened), fault.ended)
    within = sorted((done, due, word) for due, done, word in storm.answers if fault.began <= done <= fault.ended)
    refused = next((done for done, _, word in within if word == REFUSED), None)
    failed = [(done, due) for done, due, word in within if word not in ("200", REFUSED)]
    return Detection(
        kind=fault.kind,
        why=why,
        failures=sum(refused is None or done < refused for done, _ in failed),
        let_through=sum(opened + STAMP < due < tried - IN_FLIGHT for _, due in failed),
        reached=None
        if fault.kind == "killed"
        else sum(fault.began <= when <= opened + IN_FLIGHT for when in storm.arrivals),
        opened_after_ms=None if refused is None else (refused - fault.began) * 1e3,
    )


def _touched(storm: Storm) -> int:
    """Arrivals within a period in which the breaker was open, its edges left out."""
    spans = [
        (when + IN_FLIGHT, next((later for later, old, _, _ in storm.changes if old == "open" and later > when), None))
        for when, _, new, _ in storm.changes
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
