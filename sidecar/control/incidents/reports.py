"""What the backup agent reports: `POST /api/v1/happenings`, one object or an array of at most MAX_REPORTS.

`kind` is `agent_condition` (something is wrong, or with `fields.holds` false not any more; `reason` is the condition's
word; it clears by itself `fields.expires_seconds` after its last report) or `agent_event` (something was done).
`subject` says what it is about; `level`, `reason`, `detail`, `fields` and `at` (Unix seconds) as a happening has them.
"""

import time
from typing import Annotated, Any

import msgspec

from sidecar.machines.incidents.incident import Severity
from sidecar.runtime.observer import Happening, Kind, Level

PATH = "/api/v1/happenings"
MAX_REPORTS = 100
MAX_BYTES = 65536
_MAX_FIELDS = 20
_AHEAD, _BEHIND = 60.0, 86400.0
"""What is dated further ahead or back counts as of now: clocks differ."""

_Word = Annotated[str, msgspec.Meta(max_length=100)]
_SEVERITIES = (None, *map(str, Severity))
_LONGEST_EXPIRY = 7 * 86400.0


class Report(msgspec.Struct, forbid_unknown_fields=True):
    """One report as it comes."""

    kind: str
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    level: Level = Level.INFO
    reason: _Word = ""
    detail: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    fields: dict[_Word, Any] = {}
    at: float | None = None


def parse(body: bytes) -> list[Happening]:
    """The happenings that are reported; raises ValueError with the reason in plain words."""
    if len(body) > MAX_BYTES:
        raise ValueError(f"{len(body)} bytes are too many; at most {MAX_BYTES} at once")
    try:
        found = msgspec.json.decode(body, type=Report | list[Report])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a report: {error}") from None
    except RecursionError:
        raise ValueError("not a report: nested too deeply") from None
    reports = found if isinstance(found, list) else [found]
    if len(reports) > MAX_REPORTS:
        raise ValueError(f"{len(reports)} reports are too many; at most {MAX_REPORTS} at once")
    return [_happening(one) for one in reports]


def _happening(one: Report) -> Happening:
    if one.kind not in {Kind.AGENT_CONDITION, Kind.AGENT_EVENT}:
        raise ValueError(f"kind is agent_condition or agent_event, not {one.kind[:50]!r}")
    if one.kind == Kind.AGENT_CONDITION and not (one.reason.isascii() and one.reason.isidentifier()):
        raise ValueError("an agent_condition needs its word as reason, like backup_failed")
    expires = one.fields.get("expires_seconds", 1.0)
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0.0 < expires <= _LONGEST_EXPIRY:
        raise ValueError("fields.expires_seconds is more than 0 and at most 7 days")
    if one.fields.get("holds", True) not in (True, False):
        raise ValueError("fields.holds is true or false")
    if one.fields.get("severity") not in _SEVERITIES:
        raise ValueError(f"fields.severity is one of {', '.join(Severity)}")
    if len(one.fields) > _MAX_FIELDS or not all(_plain(value) for value in one.fields.values()):
        raise ValueError(f"fields are at most {_MAX_FIELDS} strings, numbers, truth values, or lists of strings")
    now = time.time()
    at = now if one.at is None or not now - _BEHIND <= one.at <= now + _AHEAD else min(one.at, now)
    return Happening(Kind(one.kind), one.subject, at, one.level, one.reason, one.detail, one.fields)


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _MAX_FIELDS and all(isinstance(one, str) and len(one) <= 200 for one in value)
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 1000)
