"""Active health: what results lead to which state, and when the next check is due."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.health import CHANGES, Health, HealthCheck, HealthPolicy, aggregate

T0 = 1000.0
POLICY = HealthPolicy(interval=30.0, unhealthy_after=3, healthy_after=2, degraded_above=1.0)
MIDDLE = 0.5
"""The uniform number that jitters nothing."""


def build(u: float = MIDDLE, **changes: Any) -> HealthCheck:
    fields = {name: getattr(POLICY, name) for name in HealthPolicy.__slots__}
    return HealthCheck(HealthPolicy(**(fields | changes)), lambda: u, T0)


def feed(check: HealthCheck, results: str) -> list[str]:
    """A letter per result: + good, s slow, - bad; the states afterwards."""
    states = []
    for letter in results:
        change = check.result(T0, ok=letter != "-", seconds=1.0 if letter == "s" else 0.01)
        if change is not None:
            assert change.reason in CHANGES[change.old, change.new]
            assert change.new is check.state
        states.append(str(check.state))
    return states


class TestStates:
    def test_it_begins_unknown_and_in_use(self) -> None:
        check = build()
        assert check.state is Health.UNKNOWN
        assert check.available

    def test_the_first_good_check_settles_it(self) -> None:
        assert feed(build(), "+") == ["healthy"]
        assert feed(build(), "s") == ["degraded"]

    def test_from_unknown_it_takes_the_whole_row_to_be_unhealthy(self) -> None:
        assert feed(build(), "---") == ["unknown", "unknown", "unhealthy"]
        assert feed(build(), "--+") == ["unknown", "unknown", "healthy"]

    def test_three_bad_checks_in_a_row_make_it_unhealthy(self) -> None:
        check = build()
        assert feed(check, "+--+---")[-4:] == ["healthy", "healthy", "healthy", "unhealthy"]
        assert not check.available

    def test_two_good_checks_in_a_row_make_it_healthy_again(self) -> None:
        assert feed(build(), "---+-++")[-4:] == ["unhealthy", "unhealthy", "unhealthy", "healthy"]

    def test_a_slow_answer_degrades_at_once_and_stays_in_use(self) -> None:
        check = build()
        assert feed(check, "+s") == ["healthy", "degraded"]
        assert check.available
        assert feed(check, "+s++") == ["degraded", "degraded", "degraded", "healthy"]
        assert feed(check, "s+-++") == ["degraded", "degraded", "degraded", "degraded", "healthy"]

    def test_slow_answers_end_unhealthiness_too(self) -> None:
        assert feed(build(), "---ss") == ["unknown", "unknown", "unhealthy", "unhealthy", "degraded"]

    def test_a_degraded_thing_can_fail(self) -> None:
        assert feed(build(), "s---")[-1] == "unhealthy"

    def test_without_a_limit_nothing_is_slow(self) -> None:
        check = build(degraded_above=None)
        check.result(T0, ok=True, seconds=9.0)
        assert check.state is Health.HEALTHY

    def test_the_change_tells_what_the_check_said(self) -> None:
        change = build(unhealthy_after=1).result(T0, ok=False, seconds=3.0, detail="connection refused")
        assert change is not None
        assert (change.new, change.reason, change.detail) == ("unhealthy", "fails", "connection refused")


def plain(results: str, unhealthy_after: int, healthy_after: int) -> str:
    """The rules once more, over the whole history."""
    state = "unknown"
    for end in range(1, len(results) + 1):
        seen = results[:end]
        bad = len(seen) - len(seen.rstrip("-"))
        good = len(seen) - len(seen.rstrip("+s"))
        quick = len(seen) - len(seen.rstrip("+"))
        if bad:
            state = "unhealthy" if bad >= unhealthy_after else state
        elif state == "unhealthy" and good < healthy_after:
            pass
        elif seen.endswith("s"):
            state = "degraded"
        elif state != "degraded" or quick >= healthy_after:
            state = "healthy"
    return state


@given(st.text("+-s", max_size=25), st.integers(1, 4), st.integers(1, 4))
def test_any_history_leads_where_the_rules_say(results: str, unhealthy_after: int, healthy_after: int) -> None:
    check = build(unhealthy_after=unhealthy_after, healthy_after=healthy_after)
    feed(check, results)
    assert check.state == plain(results, unhealthy_after, healthy_after)


class TestWhen:
    def wait(self, check: HealthCheck, letter: str, **kwargs: Any) -> float:
        seconds = kwargs.pop("seconds", 0.0)
        check.result(T0, ok=letter != "-", seconds=seconds, **kwargs)
        return check.next_check - T0

    def test_settled_it_is_asked_every_interval(self) -> None:
        check = build()
        assert [self.wait(check, "+") for _ in range(3)] == [30.0, 30.0, 30.0]

    def test_in_transition_it_is_asked_ten_times_as_often(self) -> None:
        check = build()
        assert [self.wait(check, letter) for letter in "+---"] == [30.0, 3.0, 3.0, 30.0]
        assert [self.wait(check, letter) for letter in "+-++"] == [3.0, 30.0, 3.0, 30.0]
        degraded = build(degraded_above=0.0)
        assert [self.wait(degraded, letter) for letter in "+-+"] == [30.0, 3.0, 30.0]
        degraded.reconfigure(POLICY, T0)
        assert [self.wait(degraded, letter) for letter in "++"] == [3.0, 30.0]

    def test_a_default_check_sees_a_death_well_within_a_minute(self) -> None:
        check = build(u=0.99)
        now = T0
        check.result(now, ok=True, seconds=0.0)
        while check.available:
            now = check.next_check
            check.result(now, ok=False, seconds=0.0)
        assert now - T0 < 45.0

    def test_without_traffic_it_is_asked_half_as_often_but_never_when_sick(self) -> None:
        check = build()
        assert self.wait(check, "+", traffic=False) == 60.0
        assert [self.wait(check, "-", traffic=False) for _ in range(3)] == [3.0, 3.0, 30.0]

    @pytest.mark.parametrize(("u", "wait"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
    def test_waits_are_jittered_by_a_tenth(self, u: float, wait: float) -> None:
        assert self.wait(build(u), "+") == pytest.approx(wait)

    def test_the_period_runs_from_the_checks_start(self) -> None:
        check = build(degraded_above=None)
        assert self.wait(check, "+", seconds=10.0) == pytest.approx(20.0)
        assert self.wait(check, "+", seconds=100.0) == 0.0

    def test_first_checks_are_spread(self) -> None:
        assert [build(u).next_check - T0 for u in (0.0, 0.5)] == [0.0, 1.5]

    def test_a_reload_keeps_the_state_and_takes_the_shorter_wait(self) -> None:
        check = build()
        self.wait(check, "+")
        check.reconfigure(HealthPolicy(interval=5.0, unhealthy_after=1, healthy_after=1), T0)
        assert check.state is Health.HEALTHY
        assert check.next_check == T0 + 5.0


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([], "unknown"),
        (["unknown"], "unknown"),
        (["healthy", "healthy"], "healthy"),
        (["healthy", "unknown"], "healthy"),
        (["healthy", "unhealthy"], "degraded"),
        (["healthy", "degraded"], "degraded"),
        (["degraded", "unhealthy"], "degraded"),
        (["unhealthy", "unhealthy"], "unhealthy"),
    ],
)
def test_several_services_as_one(states: list[str], whole: str) -> None:
    assert aggregate(Health(state) for state in states) == whole


def test_every_pair_of_known_states_has_a_change() -> None:
    known = set(Health) - {Health.UNKNOWN}
    assert set(CHANGES) == {(old, new) for old in Health for new in known if old is not new}
