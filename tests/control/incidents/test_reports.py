"""Reports from the admin socket: whatever comes is taken or refused with a reason, and never breaks the keeper."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.control.incidents import reports
from sidecar.machines.incidents.incident import Severity
from sidecar.runtime.observer import Happening
from tests.control.incidents.test_keeper import Stage

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
known = {
    "holds": st.booleans() | values,
    "expires_seconds": st.floats(0.1, 1e6) | values,
    "severity": st.sampled_from([*map(str, Severity)]) | values,
    "upstream": values,
    "old": values,
    "new": values,
}
report = st.fixed_dictionaries(
    {"kind": st.sampled_from(["agent_condition", "agent_event"]), "subject": st.text(min_size=1, max_size=10)},
    optional={
        "level": st.sampled_from(["info", "warning", "error"]),
        "reason": st.sampled_from(["backup_failed", "x"]) | st.text(max_size=10),
        "detail": st.text(max_size=20),
        "at": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "fields": st.fixed_dictionaries({}, optional=known) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    },
)


def taken(body: bytes) -> list[Happening]:
    """What is taken; nothing when it is refused, in words."""
    try:
        return reports.parse(body)
    except ValueError as refusal:
        if not str(refusal):
            raise
        return []


@settings(max_examples=60, deadline=None)
@given(report | st.lists(report, max_size=3))
def test_what_is_taken_never_breaks_the_keeper(body: object) -> None:
    stage = Stage()
    for one in taken(msgspec.json.encode(body)):
        stage.keeper._take_in(one)
    for one in stage.keeper.view():
        assert one["failure"].isidentifier()


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    taken(body)


@pytest.mark.parametrize("around", [b"%b", b'{"kind":"agent_event","subject":"x","fields":{"a":%b}}'])
def test_what_is_nested_deeply_is_refused(around: bytes) -> None:
    with pytest.raises(ValueError, match="not a report"):
        reports.parse(around % (b"[" * 30_000 + b"]" * 30_000))
