"""A drill always clears away what it made, and says what it took."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.backup.drill import CHANGES, Drill, DrillState, Due, extrapolate, pick
from sidecar.machines.diagram import mermaid


def test_a_good_one():
    drill = Drill()
    for now in (0.0, 1.0, 11.0, 13.0, 16.0):
        drill.done(now)
    assert drill.state is DrillState.CLEARING
    assert drill.rto == 16.0
    assert drill.seconds == {"choosing": 1.0, "restoring": 10.0, "starting": 2.0, "checking": 3.0}
    assert drill.cleared(17.0).new is DrillState.PASSED


@given(st.integers(1, 4))
def test_a_failure_anywhere_clears_away_and_fails(steps: int):
    drill = Drill()
    for now in range(steps):
        drill.done(float(now))
    drill.failed(9.0, "no space")
    assert drill.state is DrillState.CLEARING
    change = drill.cleared(10.0)
    assert (change.new, change.detail, drill.rto) == (DrillState.FAILED, "no space", None)


def test_what_is_left_behind_is_a_failure_too():
    drill = Drill()
    for now in range(5):
        drill.done(float(now))
    assert drill.cleared(6.0, "a PostgreSQL still runs").new is DrillState.FAILED
    with pytest.raises(ValueError, match="cannot go"):
        drill.done(7.0)


def test_only_what_grows_with_the_bytes_is_stretched():
    forecast = extrapolate(30.0, 20.0, 1 << 30, 100 << 30, 14_400.0)
    assert forecast.seconds == 10.0 + 20.0 * 100
    assert forecast.within
    assert not extrapolate(300.0, 290.0, 1 << 30, 100 << 30, 14_400.0).within
    assert extrapolate(30.0, 20.0, 1 << 30, 1, 60.0).seconds == 30.0, "never less than what was measured"
    assert extrapolate(5.0, 0.0, 0, 100, 60.0).seconds == 5.0


def test_mostly_the_newest_now_and_then_any():
    rolls = iter([0.9, 0.1, 0.99, 0.1, 0.0])
    points = ["c", "b", "a"]
    assert pick(points, 0.25, lambda: next(rolls)) == "c"
    assert pick(points, 0.25, lambda: next(rolls)) == "a"
    assert pick(points, 0.25, lambda: next(rolls)) == "c"
    assert pick([], 0.25, lambda: 0.0) is None
    assert pick(["only"], 1.0, lambda: 0.0) == "only"


def test_the_next_one_is_due_once_however_long_nobody_looked():
    due = Due(100.0, 1000.0, 30.0)
    assert due.due_at == 1070.0
    due.done(5000.0)
    assert due.due_at == 5100.0
    assert Due(100.0, 1000.0).due(1000.0)


def test_its_diagram_can_be_drawn():
    assert "clearing --> passed: cleared" in mermaid(CHANGES, DrillState.WAITING)
