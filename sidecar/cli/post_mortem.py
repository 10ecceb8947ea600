"""The skeleton of a post-mortem: what is known of an incident is filled in, what people know is asked for.

As Markdown for people, as data for tools. What others said (answers of endpoints, errors) is quoted, never Markdown.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

_TRIED = ("recovery_", "child_started", "agent_event")
_DECIDED = ("incident_acknowledged", "incident_resolved", "config_reloaded")
_QUESTIONS = (
    ("Cause", "What broke, and why then? What made it possible?"),
    ("Detection", "Could it have been noticed earlier, or without us?"),
    ("What went well", ""),
    ("What went badly", ""),
    ("What was luck", ""),
)


def data(found: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain data: the incident, its durations, its timeline and what was tried."""
    timeline = found["timeline"]
    return {
        "incident": {key: value for key, value in found.items() if key != "timeline"},
        "seconds": durations(found),
        "timeline": timeline,
        "tried": [one for one in timeline if one["kind"].startswith(_TRIED)],
        "said_and_changed": [one for one in timeline if one["kind"] in _DECIDED],
        "questions": [heading for heading, _ in _QUESTIONS],
    }


def durations(found: dict[str, Any]) -> dict[str, float | None]:
    """Seconds to detect, to acknowledge, to tell somebody, to resolve, and in which requests failed."""
    return {
        "to_detect": _between(found["started"], found["detected"]),
        "to_notify": _between(found["detected"], found["notified"]),
        "to_acknowledge": _between(found["detected"], found["acknowledged"]),
        "to_mitigate": _between(found["started"], found["mitigated"]),
        "to_resolve": _between(found["started"], found["resolved"]),
        "requests_failed": found["down_seconds"],
    }


def markdown(found: dict[str, Any]) -> str:
    """The document."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield from (f"# Post-mortem: {_text(found['title'])}", "")
    facts = (
        ("Incident", f"`{found['id']}`"),
        ("Service", _text(found["service"])),
        ("Seen by", _text(found["instance"])),
        ("What failed", f"{_text(found['failure'])} of {_text(found['subject'])}"),
        ("Severity", found["severity"]),
        ("Status", found["status"]),
        ("Began", found["started"]),
        ("Resolved", found["resolved"] or "not yet"),
        ("Resolved by", _text(found["resolved_by"]) or ("itself" if found["resolved"] else "–")),
        ("Acknowledged by", _text(found["acknowledged_by"]) or "nobody"),
        ("Came back", f"{found['relapses']} times, {found['reopened']} of them after it was resolved"),
    )
    yield from ("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts), "")
    yield from ("## Summary", "", "_What happened, in three sentences that a stranger understands._", "")
    yield from ("## Impact", "")
    yield from _impact(found)
    for heading, question in _QUESTIONS[:2]:
        yield from (f"## {heading}", "", f"_{question}_", "")
    seconds = durations(found)
    yield from ("## Response", "")
    for name, value in seconds.items():
        if name != "requests_failed":
            yield f"* {name.replace('_', ' ')}: {'never' if value is None else _duration(value)}"
    yield from ("", "## What was tried", "")
    tried = [one for one in found["timeline"] if one["kind"].startswith(_TRIED) or one["kind"] in _DECIDED]
    yield from (_entry(one) for one in tried)
    yield from ([] if tried else ["Nothing that this sidecar knows of."])
    yield from ("", "## Timeline", "", "Times are UTC.", "")
    yield from (_entry(one) for one in found["timeline"])
    yield ""
    for heading, _ in _QUESTIONS[2:]:
        yield from (f"## {heading}", "", "_…_", "")
    yield from ("## Actions", "", "| What | Who | Until |", "|---|---|---|", "| | | |")


def _impact(found: dict[str, Any]) -> Iterator[str]:
    yield f"* requests could not be served as usual for {_duration(found['down_seconds'])}"
    for name, value in found["impact"].items():
        yield f"* {_text(name.replace('_', ' '))}: {value:,.0f}"
    yield from ("* _Who noticed, and how?_", "")


def _entry(one: dict[str, Any]) -> str:
    mark = {"error": "**error** ", "warning": "**warning** "}.get(one["level"], "")
    return f"* {one['at'][:10]} {one['at'][11:23]} {mark}{_text(one['kind'].replace('_', ' '))}: {_text(one['text'])}"


def _between(begin: str | None, end: str | None) -> float | None:
    if begin is None or end is None:
        return None
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return round(max(0.0, seconds), 3)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _text(value: object) -> str:
    """Words of others as Markdown shows them, not as it reads them."""
    printable = "".join(char if char.isprintable() else " " for char in str(value))
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!" else char for char in printable)
