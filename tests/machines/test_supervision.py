"""When a supervised process is started again: at once, then ever later, and never after a stop."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.machines.supervision import (
    CHANGES,
    FIRST_WAIT,
    LONGEST_WAIT,
    WELL_AFTER,
    ChildState,
    Supervision,
)
from sidecar.machines.transition import Transition

STARTING, RUNNING, BACKING_OFF, RESTARTING, STOPPING, ENDED = ChildState


def running(now: float = 0.0) -> Supervision:
    child = Supervision()
    assert child.started(now) == Transition(STARTING, RUNNING, "started", now)
    return child


def live_again(child: Supervision, now: float) -> float:
    """Let it die and start it as soon as it may; returns the time that this took."""
    child.exited(now, 1)
    wait = 0.0 if child.due is None else child.due - now
    if child.due is not None:
        child.tick(child.due)
    child.started(now + wait)
    return wait


def test_the_first_death_is_answered_at_once():
    child = running()
    assert child.exited(5.0, -9) == Transition(RUNNING, STARTING, "died", 5.0)
    assert child.due is None
    child.started(5.0)
    assert child.restarts == 1


def test_who_keeps_dying_waits_from_one_second_to_a_minute():
    child = running()
    now = 0.0
    waits = []
    for _ in range(10):
        waits.append(live_again(child, now + 1.0))
        now += 1.0 + waits[-1]
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert child.restarts == 10


def test_ten_good_minutes_are_forgiveness():
    child = running()
    now = 0.0
    for _ in range(5):
        now += live_again(child, now)
    assert live_again(child, now + WELL_AFTER - 0.001) == 16.0
    now += WELL_AFTER - 0.001 + 16.0
    assert live_again(child, now + WELL_AFTER) == 0.0


def test_nothing_starts_before_its_time():
    child = running()
    live_again(child, 1.0)
    child.exited(2.0, 1)
    assert child.due == 3.0
    assert child.tick(2.999) is None
    assert child.tick(3.0) == Transition(BACKING_OFF, STARTING, "wait_over", 3.0)


def test_a_start_that_fails_counts_as_a_death():
    child = running()
    child.exited(1.0, 1)
    assert child.start_failed(1.0) == Transition(STARTING, BACKING_OFF, "start_failed", 1.0)
    assert child.due == 2.0
    assert child.restarts == 0
    child.tick(2.0)
    child.start_failed(2.0)
    assert child.due == 4.0


def test_exit_0_is_the_end_and_no_death():
    child = running()
    assert child.exited(1.0, 0) == Transition(RUNNING, ENDED, "finished", 1.0)


@pytest.mark.parametrize("code", [0, 1, -15])
def test_however_it_ends_after_a_stop_it_is_not_started(code: int):
    child = running()
    assert child.stop(1.0) == Transition(RUNNING, STOPPING, "stop", 1.0)
    assert child.stop(1.5) is None
    assert child.exited(2.0, code) == Transition(STOPPING, ENDED, "stopped", 2.0)


def test_who_waits_need_not_be_told():
    child = running()
    live_again(child, 1.0)
    child.exited(2.0, 1)
    assert child.stop(2.5) == Transition(BACKING_OFF, ENDED, "stop", 2.5)
    assert child.tick(100.0) is None


@pytest.mark.parametrize("code", [0, 1, -9])
def test_an_ordered_restart_is_no_death_however_it_ends(code: int):
    child = running()
    assert child.order(1.0) == Transition(RUNNING, RESTARTING, "ordered", 1.0)
    assert child.order(1.5) is None
    assert child.exited(2.0, code) == Transition(RESTARTING, STARTING, "ended", 2.0)
    child.started(2.0)
    assert child.exited(3.0, 1) == Transition(RUNNING, STARTING, "died", 3.0)  # the first one


def test_an_order_ends_a_wait_and_a_stop_ends_an_ordered_restart():
    child = running()
    live_again(child, 1.0)
    child.exited(2.0, 1)
    assert child.order(2.5) == Transition(BACKING_OFF, STARTING, "ordered", 2.5)
    child.started(2.5)
    child.order(3.0)
    assert child.stop(3.5) == Transition(RESTARTING, STOPPING, "stop", 3.5)
    assert child.order(3.6) is None


def test_whoever_has_a_say_holds_a_start_back():
    child = running()
    child.exited(1.0, 1)
    assert child.held(1.0, 100.0) == Transition(STARTING, BACKING_OFF, "held", 1.0)
    assert child.tick(99.9) is None
    assert child.tick(100.0) == Transition(BACKING_OFF, STARTING, "wait_over", 100.0)


def test_a_life_that_was_proved_good_forgets_earlier_deaths():
    child = running()
    live_again(child, 1.0)
    child.exited(2.0, 1)
    assert child.due == 3.0
    child.tick(3.0)
    child.started(3.0)
    child.proved()
    assert live_again(child, 4.0) == 0.0


def test_a_long_good_life_counts_however_it_ends():
    child = running()
    live_again(child, 1.0)
    child.exited(2.0, 1)
    child.tick(3.0)
    child.started(3.0)
    child.order(3.0 + WELL_AFTER)
    child.exited(4.0 + WELL_AFTER, -15)
    child.started(4.0 + WELL_AFTER)
    assert live_again(child, 5.0 + WELL_AFTER) == 0.0


class AnyOrder(RuleBasedStateMachine):
    """Whatever is reported, in whatever order: only listed changes, waits within bounds, no life after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.child = Supervision()
        self.stopped = False
        self.starts = 0
        self.at_once = 0  # restarts without a wait since the last good life
        self.began = 0.0

    def took(self, before: ChildState, change: Transition[ChildState] | None) -> None:
        if change is None:
            assert self.child.state is before
            return
        assert (change.old, change.new) == (before, self.child.state)
        assert change.reason in CHANGES[change.old, change.new]
        assert before is not ENDED
        if change.new is RUNNING:
            assert not self.stopped
            self.starts += 1
            self.began = self.now
        if before is RUNNING and self.now - self.began >= WELL_AFTER:
            self.at_once = 0
        if change.new is STARTING and change.reason == "died":
            self.at_once += 1
            assert self.at_once <= 1
        if change.new is BACKING_OFF and change.reason != "held":
            assert self.child.due is not None
            assert FIRST_WAIT <= self.child.due - self.now <= LONGEST_WAIT
        if change.reason == "wait_over":
            assert not self.stopped

    @rule(wait=st.sampled_from([0.0, 0.5, 1.0, 3.0, 70.0, WELL_AFTER]))
    def time_goes_on(self, wait: float) -> None:
        self.now += wait
        self.took(self.child.state, self.child.tick(self.now))

    @rule()
    def it_starts(self) -> None:
        self.took(self.child.state, self.child.started(self.now))

    @rule()
    def it_cannot_start(self) -> None:
        self.took(self.child.state, self.child.start_failed(self.now))

    @rule(code=st.sampled_from([0, 1, 1, 1, -9, -15]))
    def it_exits(self, code: int) -> None:
        before = self.child.state
        self.took(before, self.child.exited(self.now, code))
        if code == 0 and before is RUNNING:
            assert self.child.state is ENDED

    @rule()
    def it_is_proved(self) -> None:
        if self.child.state is RUNNING:
            self.at_once = 0
        self.took(self.child.state, self.child.proved())

    @rule()
    def it_is_held(self) -> None:
        self.took(self.child.state, self.child.held(self.now, self.now + 5.0))

    @rule()
    def it_is_ordered(self) -> None:
        self.took(self.child.state, self.child.order(self.now))

    @precondition(lambda self: self.starts > 2)
    @rule()
    def it_is_stopped(self) -> None:
        self.stopped = True
        self.took(self.child.state, self.child.stop(self.now))
        assert self.child.state in {STOPPING, ENDED}

    @invariant()
    def the_wait_has_an_end_and_the_rest_has_none(self) -> None:
        assert (self.child.due is not None) == (self.child.state is BACKING_OFF)

    @invariant()
    def restarts_are_starts_beyond_the_first(self) -> None:
        assert self.child.restarts == max(0, self.starts - 1)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_every_state_is_reached_and_only_the_end_is_final():
    assert {new for _, new in CHANGES} | {STARTING} == set(ChildState)
    assert {old for old, _ in CHANGES} == set(ChildState) - {ENDED}
