"""How incidents and what happened around them are told: entries of the timeline, and the API's JSON shapes."""

from datetime import UTC, datetime
from typing import Any

from sidecar.machines.incidents.availability import WINDOW, Figures
from sidecar.machines.incidents.book import Entry
from sidecar.machines.incidents.incident import Incident
from sidecar.runtime.observer import Happening

MAX_TEXT = 500
_CHANGES = (("old", "new"), ("before", "now"))
_SAID_ELSEWHERE = frozenset(
    {"upstream", "dependency", "program", "old", "new", "before", "now", "config_hash", "advice", "holds"}
)


def entry(one: Happening) -> Entry:
    """A happening as a line of a timeline."""
    return Entry(one.at, str(one.kind), one.subject, _sentence(one)[:MAX_TEXT], str(one.level))


def _sentence(one: Happening) -> str:
    fields = one.fields
    words = [
        f"{key.replace('_', ' ')} {_plain(value)}"
        for key, value in fields.items()
        if key not in _SAID_ELSEWHERE and value not in (None, "", [], False)
    ]
    words[:0] = [f"{fields[old]} → {fields[new]}" for old, new in _CHANGES if old in fields and new in fields]
    said = ": ".join(part for part in (one.reason, one.detail) if part)
    return "; ".join([*words, said] if said else words) or str(one.kind).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def summary(one: Incident, now: float) -> dict[str, Any]:
    """One incident as `/api/v1/incidents` lists it. Times are UTC in ISO form, or null."""
    times = ("started", "detected", "acknowledged", "notified", "mitigated", "resolved", "closed")
    return {
        "id": one.id,
        "service": one.service,
        "instance": one.instance,
        "fingerprint": one.fingerprint,
        "failure": one.failure,
        "subject": one.subject,
        "title": one.title,
        "severity": str(one.severity),
        "status": str(one.status),
        "open": one.open,
        **{name: utc(getattr(one, name)) for name in times},
        "acknowledged_by": one.acknowledged_by,
        "resolved_by": one.resolved_by,
        "relapses": one.relapses,
        "reopened": one.reopened,
        "escalated": one.escalated,
        "open_seconds": round(max(0.0, (one.resolved or now) - one.started), 3),
        "down_seconds": round(sum(end - begin for begin, end in one.down(0.0, now)), 3),
        "holds": [condition.text for condition in one.conditions.values()],
        "impact": {key: value for key, value in one.impact.items() if not key.startswith("_")},
        "shared_id": one.shared_id,
        "led_by": one.led_by,
        "sharers": one.sharers,
        "entries": one.entries,
    }


def whole(one: Incident, timeline: list[Entry], now: float) -> dict[str, Any]:
    """One incident with its timeline, as `/api/v1/incidents/ID` gives it."""
    return {
        **summary(one, now),
        "timeline": [
            {"at": utc(line.at), "kind": line.kind, "subject": line.subject, "level": line.level, "text": line.text}
            for line in timeline
        ],
    }


def figures_view(known: Figures) -> dict[str, Any]:
    """`/api/v1/figures`: seconds, rounded; null is not known."""
    seconds = {"observed": known.observed, "unknown": known.unknown, "down": known.down, "mtta": known.mtta,
               "mttr": known.mttr, "mtbf": known.mtbf}  # fmt: skip
    return {
        "window_seconds": WINDOW,
        "availability": None if known.availability is None else round(known.availability, 7),
        **{f"{name}_seconds": None if value is None else round(value, 3) for name, value in seconds.items()},
        "incidents": known.incidents,
        "failures": known.failures,
    }


def utc(seconds: float | None) -> str | None:
    """UTC in ISO form, to the millisecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
