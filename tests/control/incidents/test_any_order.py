"""Whatever happens in whatever order: one incident per fault, and each ends once nothing is wrong any more."""

from itertools import count

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.machines.incidents.book import FULL
from sidecar.machines.incidents.incident import OPEN
from sidecar.runtime.observer import Kind
from tests.control.incidents.test_keeper import Stage

NAMES = st.sampled_from(["app", "pay", "db"])
STATES = ["unknown", "healthy", "degraded", "unhealthy"]
FIELDS = {
    "upstream": NAMES,
    "endpoint": st.sampled_from(["e0", "e1"]),
    "old": st.sampled_from(["closed", "open", "half_open"]),
    "new": st.sampled_from(["closed", "open", "half_open", "forced_open"]),
    "now": st.sampled_from(STATES),
    "enforced": st.booleans(),
    "seconds": st.sampled_from([1.0, 30.0]),
    "pid": st.sampled_from([7, 8]),
    "rule": st.sampled_from(["fix", "other"]),
    "holds": st.booleans(),
    "expires_seconds": st.sampled_from([5.0, 900.0]),
}
happening = st.tuples(
    st.sampled_from([kind for kind in Kind if kind is not Kind.INCIDENT_CHANGED]),
    NAMES,
    st.sampled_from([7, 8]),
    st.fixed_dictionaries({}, optional=FIELDS),
    st.sampled_from(["", "word"]),
    st.tuples(st.sampled_from(STATES), st.sampled_from(STATES)),
    st.sampled_from([0.0, 1.0, 20.0, 1000.0]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(happening, max_size=40))
def test_one_incident_per_fault_and_each_has_an_end(story: list) -> None:
    stage, numbers = Stage(), count()
    for kind, subject, seen_by, fields, reason, states, wait in story:
        stage.health = [
            {
                "kind": "endpoint",
                "upstream": subject,
                "endpoint": f"e{place}",
                "state": state,
                "detail": f"{next(numbers)}",
            }
            for place, state in enumerate(states)
        ]
        stage.keeper._take_in(stage.happening(kind, subject, seen_by, reason, fields))
        stage.now += wait
        stage.keeper.catch_up()
        live = [one.fingerprint for one in stage.book.live()]
        assert len(live) == len(set(live))
        for one in stage.book.open():
            assert bool(one.conditions) == (one.status in OPEN and one.mitigated is None)
            assert (one.out_since is not None) == any(held.outage for held in one.conditions.values())
            assert len(stage.book.timeline(one.id)) == one.entries <= 2 * FULL
    msgspec.json.encode([stage.keeper.view(), stage.keeper.open_ones()])
    for one in stage.book.live():
        for key in list(one.conditions):
            stage.book.clear(one.failure, one.subject, key, stage.now)
    for _ in range(10):
        stage.now += 1000.0
        stage.keeper.catch_up()
    assert stage.book.live() == []
