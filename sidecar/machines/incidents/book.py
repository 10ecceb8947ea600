"""All incidents of one service: which one a condition belongs to, and when each moves on.

* A condition finds the incident of its fingerprint that is not closed, or opens a new one. So there is never more than
  one that is not closed per fingerprint.
* Each has its timeline: entries are only ever added. What happened just before it was opened is taken over from
  `before`; once it is FULL, only its own changes of status are still written, so that a fault that flaps for a week
  costs what one that flaps for an hour does.
* Bounded: MAX_OPEN incidents that are not closed (what would be one more is refused and counted), and the last
  `keep_closed` closed ones, KEEP_TIMELINES of them with their timelines; a store may have written down more.

Every call returns the `Change`s it made, each with the entry that went onto the timeline; the shell writes them down,
counts them and tells people.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from sidecar.machines.incidents.incident import Condition, Incident, Patience, Severity, Status, fingerprint
from sidecar.machines.transition import Transition

MAX_OPEN = 200
FULL = 300
"""Entries of a timeline, before only changes of status are added, up to twice as many."""
KEEP_CLOSED = 200
KEEP_TIMELINES = 20
"""Closed incidents whose timelines stay in memory."""


class Entry(msgspec.Struct, frozen=True):
    """One line of a timeline."""

    at: float
    kind: str
    """The happening's word, or `incident_` and what became of the incident."""
    subject: str
    text: str
    level: str = "info"
    fields: dict[str, Any] = {}


class What(StrEnum):
    """What became of an incident."""

    OPENED = "opened"
    WORSENED = "worsened"
    ACKNOWLEDGED = "acknowledged"
    MITIGATED = "mitigated"
    RELAPSED = "relapsed"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    CLOSED = "closed"
    NOTED = "noted"
    """Only an entry was added."""


_WHATS = {
    "ack": What.ACKNOWLEDGED,
    "gone": What.MITIGATED,
    "relapsed": What.RELAPSED,
    "stayed_gone": What.RESOLVED,
    "resolve": What.RESOLVED,
    "came_back": What.REOPENED,
    "still_there": What.REOPENED,
    "over": What.CLOSED,
}


class Change(NamedTuple):
    """One incident changed."""

    incident: Incident
    what: What
    entry: Entry | None
    """What was added to the timeline; None: it is full."""
    number: int
    """The entry's place on the timeline."""


class IncidentBook:
    """The incidents of `service`, as this `instance` sees them."""

    def __init__(
        self, service: str, instance: str, new_id: Callable[[float], str], keep_closed: int = KEEP_CLOSED
    ) -> None:
        self.patience = Patience()
        self.refused = 0
        """Conditions that found no room."""
        self._service = service
        self._instance = instance
        self._new_id = new_id
        self._keep_closed = keep_closed
        self._live: dict[str, Incident] = {}  # by fingerprint; not closed
        self._closed: dict[str, Incident] = {}  # by id, the oldest first
        self._timelines: dict[str, list[Entry]] = {}

    # What happens ---------------------------------------------------------------------------------------------------

    def hold(self, condition: Condition, now: float, before: Iterable[Entry] = ()) -> list[Change]:
        """A condition holds; `before`: what led to it, should an incident be opened."""
        name = fingerprint(self._service, condition.failure, condition.subject)
        incident = self._live.get(name)
        if incident is None:
            if len(self._live) >= MAX_OPEN:
                self.refused += 1
                return []
            return self._open(name, condition, now, before)
        known = incident.conditions.get(condition.key)
        severity = incident.severity
        moved = incident.hold(condition, now)
        if moved is not None:
            return [self._changed(incident, moved)]
        if incident.severity is not severity:
            return [self._add(incident, What.WORSENED, now, f"{incident.severity}: {condition.text}")]
        if known is None:
            return [self._add(incident, What.NOTED, now, condition.text, kind="incident_condition")]
        return []

    def clear(self, failure: str, subject: str, key: str, now: float) -> list[Change]:
        """A condition is gone; unknown ones are nobody's concern."""
        incident = self._live.get(fingerprint(self._service, failure, subject))
        held = incident.conditions.get(key) if incident is not None else None
        if incident is None or held is None:
            return []
        moved = incident.clear(key, now)
        if moved is not None:
            return [self._changed(incident, moved)]
        return [self._add(incident, What.NOTED, now, f"not any more: {held.text}", kind="incident_condition")]

    def note(self, incident: Incident, entry: Entry) -> list[Change]:
        """Something happened that belongs to its story."""
        added = self._append(incident, entry, FULL)
        return [] if added is None else [Change(incident, What.NOTED, added, incident.entries - 1)]

    def ack(self, one: str, now: float, by: str, why: str = "") -> list[Change] | None:
        """Somebody looks at the incident with this id; None: there is none that could be looked at."""
        incident = self.find(one)
        if incident is None or not incident.open:
            return None
        moved = incident.ack(now, by)
        if moved is not None:
            return [self._changed(incident, moved, why)]
        return [self._add(incident, What.NOTED, now, _said(f"acknowledged by {by}", why), kind="incident_acknowledged")]

    def resolve(self, one: str, now: float, by: str, why: str = "") -> list[Change] | None:
        """Somebody ends the incident with this id; None: there is none that is open."""
        incident = self.find(one)
        moved = None if incident is None else incident.resolve(now, by)
        return None if incident is None or moved is None else [self._changed(incident, moved, why)]

    def tick(self, now: float) -> list[Change]:
        """Time went on."""
        changes: list[Change] = []
        for incident in list(self._live.values()):
            for condition in list(incident.conditions.values()):
                if condition.expires is not None and now >= condition.expires:
                    changes += self.clear(incident.failure, incident.subject, condition.key, now)
            moved = incident.tick(now, self.patience)
            if moved is not None:
                changes.append(self._changed(incident, moved))
        return changes

    def due(self) -> float | None:
        """When `tick` has something to do."""
        times = [incident.due(self.patience) for incident in self._live.values()]
        times += [one.expires for incident in self._live.values() for one in incident.conditions.values()]
        return min((time for time in times if time is not None), default=None)

    # What is known ----------------------------------------------------------------------------------------------------

    def take_over(self, incident: Incident, timeline: Iterable[Entry], expires: float, seen: float) -> None:
        """An incident of an earlier run that watched until `seen`. What held in it counts as gone at `expires`, and as
        no outage from `seen` on, unless it is seen again.
        """
        for key, one in incident.conditions.items():
            until = expires if one.expires is None else one.expires
            incident.conditions[key] = msgspec.structs.replace(one, expires=until, outage=False)
        incident.count_outage(seen)
        if incident.status is Status.CLOSED:
            self._closed[incident.id] = incident
            self._trim()
        elif len(self._live) < MAX_OPEN:
            self._live[incident.fingerprint] = incident
        self._timelines[incident.id] = list(timeline)

    def find(self, one: str) -> Incident | None:
        """The incident with this id."""
        live = next((incident for incident in self._live.values() if incident.id == one), None)
        return live or self._closed.get(one)

    def timeline(self, one: str) -> list[Entry]:
        """Its entries in the order in which they were added."""
        return list(self._timelines.get(one, ()))

    def live(self) -> list[Incident]:
        """Those that are not closed, the oldest first."""
        return list(self._live.values())

    def open(self) -> list[Incident]:
        """Those that are not resolved, the oldest first."""
        return [incident for incident in self._live.values() if incident.open]

    def __iter__(self) -> Iterator[Incident]:
        """All that are in memory: open ones first, then the latest first."""
        known = [*self._live.values(), *self._closed.values()]
        return iter(sorted(known, key=lambda one: (not one.open, -one.alerted)))

    # How it is written ------------------------------------------------------------------------------------------------

    def _open(self, name: str, condition: Condition, now: float, before: Iterable[Entry]) -> list[Change]:
        started = min(now, condition.since if condition.since is not None else now)
        incident = Incident(
            id=self._new_id(now),
            service=self._service,
            instance=self._instance,
            failure=condition.failure,
            subject=condition.subject,
            title=condition.text,
            started=started,
            detected=now,
            alerted=now,
            severity=condition.severity,
        )
        incident.hold(condition, now)
        self._live[name] = incident
        led = [change for entry in before for change in self.note(incident, entry)]
        return [*led, self._add(incident, What.OPENED, now, f"{condition.severity}: {condition.text}")]

    def _changed(self, incident: Incident, moved: Transition[Status], why: str = "") -> Change:
        what = _WHATS[moved.reason]
        text = {
            "ack": f"acknowledged by {moved.detail}",
            "gone": f"nothing is wrong any more; the last was: {moved.detail}",
            "relapsed": f"came back: {moved.detail}",
            "stayed_gone": "stayed well",
            "resolve": f"resolved by {moved.detail}",
            "came_back": f"came back: {moved.detail}",
            "still_there": f"was resolved, but is still there: {moved.detail}",
            "over": "over",
        }[moved.reason]
        change = self._add(incident, what, moved.at, _said(text, why))
        if what is What.CLOSED:
            del self._live[incident.fingerprint]
            self._closed[incident.id] = incident
            self._trim()
        return change

    def _add(self, incident: Incident, what: What, now: float, text: str, *, kind: str = "") -> Change:
        bad = what in {What.OPENED, What.WORSENED, What.RELAPSED, What.REOPENED}
        level = "error" if bad and incident.severity is not Severity.WARNING else "warning" if bad else "info"
        entry = Entry(now, kind or f"incident_{what}", incident.subject, text, level)
        added = self._append(incident, entry, FULL if what is What.NOTED else 2 * FULL)
        return Change(incident, what, added, incident.entries - 1)

    def _append(self, incident: Incident, entry: Entry, limit: int) -> Entry | None:
        timeline = self._timelines.setdefault(incident.id, [])
        if len(timeline) >= limit:
            return None
        if len(timeline) == limit - 1:
            entry = Entry(entry.at, "timeline_full", incident.subject, "further entries are left out", "warning")
        timeline.append(entry)
        incident.entries = len(timeline)
        return entry

    def _trim(self) -> None:
        while len(self._closed) > self._keep_closed:
            oldest = next(iter(self._closed))
            del self._closed[oldest]
            self._timelines.pop(oldest, None)
        for one in list(self._closed)[:-KEEP_TIMELINES]:
            self._timelines.pop(one, None)


def _said(text: str, why: str) -> str:
    return f"{text}: {why}" if why else text
