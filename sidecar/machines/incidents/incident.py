"""One incident: from the first sign that something is wrong to the day nobody asks about it any more.

    detected ──ack──▶ acknowledged ──gone──▶ mitigated ──stayed_gone──▶ resolved ──over──▶ closed
       ▲  └────────────────gone────────────────▲ │                        │
       └───────── relapsed (if it was acknowledged: back to that) ◀───────┤
       └──────────────── came_back, still_there ──────────────────────────┘

* An incident is about one subject (an upstream, a dependency, the service's process). Several conditions may hold for
  it at once (breaker open, endpoint unhealthy, many errors); it lasts while any of them does, and is as severe as the
  worst that ever held in it.
* When the last condition is gone it is mitigated: whoever was hurt is not any more. It is resolved once that has
  lasted, and each relapse doubles the time that it has to last: what flaps is one long incident and not fifty.
* A condition that comes back within `reopen_within` of the resolution reopens the incident: the fault was not gone.
  So does one that held on although somebody resolved the incident, when it still holds by then, or worsens.
* Closed is the end: the next fault of the kind is a new incident.

All times are Unix seconds: an incident outlives the process that saw it begin, and people read them. A clock that was
set back makes a duration 0, never negative.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec

from sidecar.base.backoff import exponential
from sidecar.machines.transition import Transition

MAX_OUTAGES = 200
"""Outages of one incident that are told apart; later ones prolong the last."""


class Status(StrEnum):
    """How far it is."""

    DETECTED = "detected"
    ACKNOWLEDGED = "acknowledged"
    MITIGATED = "mitigated"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Severity(StrEnum):
    """How bad it is, in PagerDuty's words."""

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


MEANING = {
    Status.DETECTED: "Something is wrong and nobody said yet that they look at it.",
    Status.ACKNOWLEDGED: "Somebody looks at it: nobody else is told.",
    Status.MITIGATED: "What was wrong is not any more; it has to stay so for a while.",
    Status.RESOLVED: "It stayed so, or somebody resolved it. If it comes back soon, it is the same incident.",
    Status.CLOSED: "Over: whatever comes now is another incident.",
}

CHANGES: dict[tuple[Status, Status], tuple[str, ...]] = {
    (Status.DETECTED, Status.ACKNOWLEDGED): ("ack",),
    (Status.DETECTED, Status.MITIGATED): ("gone",),
    (Status.ACKNOWLEDGED, Status.MITIGATED): ("gone",),
    (Status.MITIGATED, Status.DETECTED): ("relapsed",),
    (Status.MITIGATED, Status.ACKNOWLEDGED): ("relapsed",),
    (Status.MITIGATED, Status.RESOLVED): ("stayed_gone", "resolve"),
    (Status.DETECTED, Status.RESOLVED): ("resolve",),
    (Status.ACKNOWLEDGED, Status.RESOLVED): ("resolve",),
    (Status.RESOLVED, Status.DETECTED): ("came_back", "still_there"),
    (Status.RESOLVED, Status.CLOSED): ("over",),
}
"""Every change, and the reasons that bring it about."""

REASONS = {
    "ack": "Somebody said that they look at it.",
    "gone": "The last condition that held in it does not hold any more.",
    "relapsed": "A condition came back before it was resolved; each time doubles how long it has to stay well.",
    "stayed_gone": "Nothing came back for `incidents.resolve_after`, doubled at each relapse.",
    "resolve": "Somebody said that it is over.",
    "came_back": "A condition came back, or a worse one came, within `incidents.reopen_within` of the resolution.",
    "still_there": "What held when somebody resolved it still holds after `incidents.reopen_within`.",
    "over": "Nothing came back for `incidents.reopen_within` after the resolution.",
}

OPEN = frozenset({Status.DETECTED, Status.ACKNOWLEDGED, Status.MITIGATED})
_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class Patience(NamedTuple):
    """How long is long; seconds."""

    resolve_after: float = 15.0
    """What is gone has to stay gone for so long; doubled at each relapse, at most `reopen_within`."""
    reopen_within: float = 900.0
    """What comes back so soon after the resolution is the same incident."""


class Condition(msgspec.Struct, frozen=True):
    """Something that is wrong, as a detector says it."""

    failure: str
    """The failure class: with the subject it says which incident this belongs to."""
    subject: str
    key: str
    """Tells the conditions of one incident apart."""
    severity: Severity
    text: str
    """For people, one sentence."""
    outage: bool = False
    """Requests fail while it holds: the time counts against the availability."""
    since: float | None = None
    """When it began, if that was before it was noticed."""
    expires: float | None = None
    """It counts as gone at this time unless it is said again before; None: until it is said to be gone."""


class Incident(msgspec.Struct):
    """Everything about one incident but its timeline. Changed only by its own methods."""

    id: str
    service: str
    instance: str
    failure: str
    subject: str
    title: str
    started: float
    """When it began, as far as that is known."""
    detected: float
    """When it was noticed."""
    alerted: float
    """When it was noticed, or came back after a resolution: escalation counts from here."""
    severity: Severity = Severity.WARNING
    status: Status = Status.DETECTED
    conditions: dict[str, Condition] = {}
    """What holds now."""
    acknowledged: float | None = None
    """The first time that somebody said so."""
    acknowledged_by: str = ""
    acked: bool = False
    """Somebody looks at it now."""
    notified: float | None = None
    """When somebody was first told."""
    mitigated: float | None = None
    """Since when nothing is wrong any more; None while something is."""
    resolved: float | None = None
    resolved_by: str = ""
    closed: float | None = None
    relapses: int = 0
    """How often it came back, before or after a resolution."""
    reopened: int = 0
    """How often after one."""
    escalated: int = 0
    """Steps of the escalation that were taken since `alerted`."""
    outages: list[tuple[float, float]] = []
    """When requests failed, as far as that is over."""
    out_since: float | None = None
    """Requests fail since; None: they do not."""
    impact: dict[str, float] = {}
    """What was counted while it was open."""
    entries: int = 0
    """Length of the timeline."""
    shared_id: str = ""
    """The id that all replicas use towards people; empty: it is not shared."""
    led_by: str = ""
    """The replica that tells people; empty: this one."""
    sharers: int = 0
    """Replicas that see it."""

    @property
    def fingerprint(self) -> str:
        """What makes another fault the same one."""
        return fingerprint(self.service, self.failure, self.subject)

    @property
    def open(self) -> bool:
        """Not resolved yet."""
        return self.status in OPEN

    def hold(self, condition: Condition, now: float) -> Transition[Status] | None:
        """A condition holds. Said again, it only takes the new text and expiry."""
        self.conditions[condition.key] = condition
        worse = _RANKS[condition.severity] > _RANKS[self.severity]
        if worse:
            self.severity = condition.severity
        self.count_outage(now)
        if self.status is Status.MITIGATED:
            self.relapses += 1
            self.mitigated = None
            return self._go(Status.ACKNOWLEDGED if self.acked else Status.DETECTED, "relapsed", now, condition.text)
        if self.status is Status.RESOLVED and (worse or self.mitigated is not None):
            return self._reopen("came_back", now, condition.text)
        return None

    def clear(self, key: str, now: float) -> Transition[Status] | None:
        """A condition is gone."""
        gone = self.conditions.pop(key, None)
        self.count_outage(now)
        if gone is None or self.conditions:
            return None
        self.mitigated = now
        return self._go(Status.MITIGATED, "gone", now, gone.text) if self.open else None

    def ack(self, now: float, by: str) -> Transition[Status] | None:
        """Somebody looks at it."""
        if not self.open:
            return None
        self.acked = True
        if self.acknowledged is None:
            self.acknowledged, self.acknowledged_by = now, by
        return self._go(Status.ACKNOWLEDGED, "ack", now, by) if self.status is Status.DETECTED else None

    def resolve(self, now: float, by: str) -> Transition[Status] | None:
        """Somebody says that it is over, whatever we see."""
        return self._resolve("resolve", now, by) if self.open else None

    def tick(self, now: float, patience: Patience) -> Transition[Status] | None:
        """Time went on; expired conditions are the caller's to clear."""
        due = self.due(patience)
        if due is None or now < due:
            return None
        if self.status is Status.MITIGATED:
            return self._resolve("stayed_gone", now, "")
        if self.conditions:
            return self._reopen("still_there", now, next(iter(self.conditions.values())).text)
        self.closed = now
        return self._go(Status.CLOSED, "over", now)

    def due(self, patience: Patience) -> float | None:
        """When `tick` has something to do; None: only when something happens."""
        if self.status is Status.MITIGATED:
            assert self.mitigated is not None, "that is what it means"
            longest = max(patience.resolve_after, patience.reopen_within)
            return self.mitigated + exponential(self.relapses, patience.resolve_after, longest)
        if self.status is Status.RESOLVED:
            return max(self.resolved or 0.0, self.mitigated or 0.0) + patience.reopen_within
        return None

    def down(self, since: float, until: float) -> list[tuple[float, float]]:
        """The times within [since, until] when requests failed."""
        spans = [*self.outages, *([(self.out_since, until)] if self.out_since is not None else [])]
        return [(max(a, since), min(b, until)) for a, b in spans if b > since and a < until]

    def _resolve(self, reason: str, now: float, by: str) -> Transition[Status]:
        self.resolved, self.resolved_by, self.acked = now, by, False
        return self._go(Status.RESOLVED, reason, now, by)

    def _reopen(self, reason: str, now: float, detail: str) -> Transition[Status]:
        self.resolved, self.resolved_by, self.mitigated = None, "", None
        self.alerted, self.escalated = now, 0
        self.relapses += 1
        self.reopened += 1
        return self._go(Status.DETECTED, reason, now, detail)

    def count_outage(self, now: float) -> None:
        """Requests fail, or do not any more, as the conditions say."""
        began = [one.since if one.since is not None else now for one in self.conditions.values() if one.outage]
        if began and self.out_since is None:
            last = self.outages[-1][1] if self.outages else 0.0
            self.out_since = max(last, min(now, *began))
        elif not began and self.out_since is not None:
            span = (self.out_since, max(self.out_since, now))
            self.out_since = None
            if len(self.outages) < MAX_OUTAGES:
                self.outages.append(span)
            else:
                self.outages[-1] = (self.outages[-1][0], span[1])

    def _go(self, new: Status, reason: str, now: float, detail: str = "") -> Transition[Status]:
        change = Transition(self.status, new, reason, now, detail)
        self.status = new
        return change


def fingerprint(service: str, failure: str, subject: str) -> str:
    """The name of a fault: whatever has the same is the same."""
    return f"{service}/{failure}/{subject}"
