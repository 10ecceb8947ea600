"""How far a copy of a log is behind: what is not known is never told as 0."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.backup.replication_lag import SILENCE, Look, ReplicationLag

AT = datetime(2026, 1, 1, tzinfo=UTC)


def look(now: float, end: int) -> Look:
    return Look(now, AT + timedelta(seconds=now), end)


def test_nothing_is_known_before_the_first_look_and_before_it_caught_up():
    lag = ReplicationLag()
    assert (lag.lag(0.0), lag.behind(0.0), lag.covered_at) == (None, None, None)
    lag.looked(look(10.0, 500))
    assert lag.lag(12.0) is None
    assert lag.behind(12.0) == 2.0, "at least so far"


def test_it_is_as_old_as_the_newest_look_that_it_has_caught_up_with():
    lag = ReplicationLag()
    for now, end in ((0.0, 100), (5.0, 200), (10.0, 300)):
        lag.looked(look(now, end))
    lag.copied(250)
    assert lag.lag(11.0) == 6.0
    assert lag.covered_at == AT + timedelta(seconds=5)
    lag.copied(300)
    assert lag.lag(11.0) == 1.0


def test_a_server_at_rest_keeps_it_fresh():
    lag = ReplicationLag()
    lag.copied(100)
    for now in (0.0, 30.0, 60.0):
        lag.looked(look(now, 100))
        assert lag.lag(now) == 0.0


def test_a_server_that_is_silent_makes_it_unknown():
    lag = ReplicationLag()
    lag.copied(100)
    lag.looked(look(0.0, 100))
    assert lag.lag(SILENCE) == SILENCE
    assert lag.lag(SILENCE + 1) is None
    assert lag.behind(SILENCE + 1) is None


def test_after_a_gap_nothing_is_known():
    lag = ReplicationLag()
    lag.copied(100)
    lag.looked(look(0.0, 100))
    lag.began_anew()
    assert lag.lag(1.0) is None
    assert lag.covered_at is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=40))
def test_what_is_covered_never_goes_back_and_never_ahead_of_a_look(steps: list[tuple[bool, int]]):
    lag, now, end, before = ReplicationLag(), 0.0, 0, None
    for is_look, by in steps:
        now += 1.0
        if is_look:
            end += by
            lag.looked(look(now, end))
        else:
            lag.copied(end - by)
        covered = lag.covered_at
        assert before is None or (covered is not None and covered >= before)
        assert covered is None or covered <= AT + timedelta(seconds=now)
        before = covered
