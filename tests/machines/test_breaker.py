"""The breaker's story, state by state, with the defaults that the requirements ask for."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sidecar.base.names import Decision
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Breaker, BreakerChange, Permit, Refusal, Snapshot, Trial
from sidecar.machines.breaker_states import CHANGES, MEANING, BreakerState, Reason

T0 = 1000.0


def build(u: Callable[[], float] = lambda: 0.0, **changes: Any) -> Breaker:
    return Breaker(msgspec.structs.replace(BreakerPolicy(), **changes), u)


def permit(breaker: Breaker, now: float = T0) -> Permit:
    admission = breaker.admit(now)
    assert not isinstance(admission, Refusal)
    return admission


def trial(breaker: Breaker, now: float) -> Trial:
    admission = permit(breaker, now)
    assert isinstance(admission, Trial)
    return admission


def call(breaker: Breaker, now: float = T0, *, ok: bool = True, slow: bool = False) -> BreakerChange | None:
    return breaker.record(permit(breaker, now), now, ok=ok, slow=slow)


def opened(**changes: Any) -> Breaker:
    """Opened at T0 by five failures."""
    breaker = build(**changes)
    for _ in range(5):
        call(breaker, ok=False)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open(**changes: Any) -> tuple[Breaker, Trial]:
    """With its first trial running since T0 + 60."""
    breaker = opened(**changes)
    return breaker, trial(breaker, T0 + 60.0)


class TestClosed:
    def test_the_fifth_failure_in_a_row_opens_it(self) -> None:
        breaker = build()
        assert [call(breaker, ok=False) for _ in range(4)] == [None] * 4
        change = call(breaker, ok=False)
        assert change is not None
        assert (change.old, change.new, change.reason) == ("closed", "open", "consecutive_failures")
        assert change.at == T0

    def test_a_success_between_starts_the_row_again(self) -> None:
        breaker = build(failure_rate=0.0)
        for _ in range(20):
            assert [call(breaker, ok=ok) for ok in (False, False, False, False, True)] == [None] * 5

    def test_the_failure_rate_triggers_at_its_value_once_there_are_enough(self) -> None:
        breaker = build(consecutive_failures=0)
        for number in range(19):
            assert call(breaker, ok=number % 2 == 1) is None
        change = call(breaker, ok=True)
        assert change is not None
        assert change.reason == "failure_rate"
        assert change.detail == "10 of 20 calls failed"

    def test_below_the_rate_it_stays_closed(self) -> None:
        breaker = build(consecutive_failures=0)
        assert not any(call(breaker, ok=number % 20 >= 9) for number in range(-11, 60))

    def test_slow_answers_open_it_too(self) -> None:
        breaker = build()
        assert [call(breaker, slow=True) for _ in range(19)] == [None] * 19
        change = call(breaker, slow=True)
        assert change is not None
        assert change.reason == "slow_rate"

    def test_old_results_leave_the_window(self) -> None:
        breaker = build(consecutive_failures=0)
        for _ in range(19):
            call(breaker, ok=False)
        assert call(breaker, T0 + 10.0, ok=False) is None
        assert breaker.snapshot(T0 + 10.0).failures == 1

    def test_rules_that_are_off_never_open_it(self) -> None:
        breaker = build(consecutive_failures=0, failure_rate=0.0, slow_rate=0.0)
        assert not any(call(breaker, ok=False, slow=True) for _ in range(100))

    def test_a_cancelled_call_counts_as_neither(self) -> None:
        breaker = build()
        for _ in range(4):
            call(breaker, ok=False)
        breaker.cancel(permit(breaker), T0)
        assert breaker.snapshot(T0).total == 4
        assert call(breaker, ok=False) is not None


class TestOpen:
    def test_it_refuses_and_tells_the_seconds_left(self) -> None:
        breaker = opened()
        assert breaker.admit(T0) == Refusal(Decision.BREAKER_OPEN, 60)
        assert breaker.admit(T0 + 0.1) == Refusal(Decision.BREAKER_OPEN, 60)
        assert breaker.admit(T0 + 59.9) == Refusal(Decision.BREAKER_OPEN, 1)
        assert breaker.refused == 3

    def test_the_first_period_is_exact_and_shown_open_until_a_call_asks(self) -> None:
        breaker = opened(u=lambda: 0.9)
        assert isinstance(breaker.admit(T0 + 59.999), Refusal)
        assert breaker.expire(T0 + 500.0) is None
        assert str(breaker.shown) == "open"
        change = trial(breaker, T0 + 60.0).transition
        assert change is not None
        assert (change.old, change.new) == ("open", "half_open")
        assert str(breaker.shown) == "half_open"

    def test_a_late_result_changes_nothing(self) -> None:
        breaker = build()
        late = permit(breaker)
        for _ in range(5):
            call(breaker, ok=False)
        before = breaker.snapshot(T0)
        assert breaker.record(late, T0, ok=False) is None
        assert breaker.record(late, T0, ok=True) is None
        assert breaker.snapshot(T0) == before


class TestHalfOpen:
    def test_three_trials_at_once_and_no_more(self) -> None:
        breaker, first = half_open()
        others = [trial(breaker, T0 + 60.0) for _ in range(2)]
        assert breaker.admit(T0 + 60.0) == Refusal(Decision.BREAKER_OPEN, 1)
        assert all(other.transition is None for other in others)
        breaker.record(first, T0 + 61.0, ok=True)
        assert isinstance(breaker.admit(T0 + 61.0), Trial)

    def test_three_good_trials_close_it(self) -> None:
        breaker, first = half_open()
        assert breaker.record(first, T0 + 60.0, ok=True) is None
        assert call(breaker, T0 + 61.0) is None
        change = call(breaker, T0 + 62.0)
        assert change is not None
        assert (change.old, change.new, change.reason) == ("half_open", "closed", "recovered")
        assert breaker.snapshot(T0 + 62.0).total == 0

    def test_one_bad_trial_opens_it_again_and_the_others_no_longer_matter(self) -> None:
        breaker, first = half_open()
        second = trial(breaker, T0 + 60.0)
        change = breaker.record(first, T0 + 61.0, ok=False)
        assert change is not None
        assert (change.new, change.reason) == ("open", "trial_failed")
        assert breaker.snapshot(T0 + 61.0).trials == 0
        assert breaker.deadline == float("inf")
        assert breaker.record(second, T0 + 62.0, ok=False) is None
        assert breaker.snapshot(T0 + 61.0).remaining == 60.0

    def test_a_slow_trial_is_a_bad_one_unless_slowness_is_not_judged(self) -> None:
        breaker, first = half_open()
        change = breaker.record(first, T0 + 61.0, ok=True, slow=True)
        assert change is not None
        assert change.reason == "trial_slow"
        breaker, first = half_open(slow_rate=0.0)
        assert breaker.record(first, T0 + 61.0, ok=True, slow=True) is None
        assert breaker.snapshot(T0 + 61.0).successes == 1

    def test_a_trial_that_never_ends_is_a_bad_one(self) -> None:
        breaker, first = half_open()
        assert breaker.deadline == T0 + 90.0
        assert breaker.expire(T0 + 89.9) is None
        change = breaker.expire(T0 + 90.0)
        assert change is not None
        assert (change.new, change.reason) == ("open", "trial_timeout")
        assert breaker.record(first, T0 + 91.0, ok=True) is None

    def test_a_trial_whose_body_takes_long_is_a_good_one(self) -> None:
        breaker, first = half_open(half_open_successes=1)
        first.answered = True
        change = breaker.expire(T0 + 90.0)
        assert change is not None
        assert change.reason == "recovered"
        assert breaker.record(first, T0 + 91.0, ok=False) is None

    def test_a_cancelled_trial_gives_its_permit_back(self) -> None:
        breaker, first = half_open(half_open_permits=1)
        assert isinstance(breaker.admit(T0 + 60.0), Refusal)
        breaker.cancel(first, T0 + 61.0)
        assert breaker.deadline == float("inf")
        second = trial(breaker, T0 + 61.0)
        assert breaker.record(first, T0 + 61.0, ok=False) is None
        breaker.cancel(first, T0 + 61.0)
        assert isinstance(breaker.admit(T0 + 61.0), Refusal), "the second still has the only permit"
        assert breaker.record(second, T0 + 61.0, ok=False) is not None

    def test_a_trial_is_recorded_once(self) -> None:
        breaker, first = half_open()
        breaker.record(first, T0 + 61.0, ok=True)
        breaker.record(first, T0 + 61.0, ok=True)
        breaker.record(first, T0 + 61.0, ok=False)
        assert breaker.snapshot(T0 + 61.0).successes == 1

    def test_a_result_of_the_closed_days_is_no_trial(self) -> None:
        breaker = build()
        late = permit(breaker)
        for _ in range(5):
            call(breaker, ok=False)
        running = trial(breaker, T0 + 60.0)
        assert breaker.record(late, T0 + 60.0, ok=False) is None
        assert breaker.record(late, T0 + 60.0, ok=True) is None
        assert breaker.snapshot(T0 + 60.0).successes == 0
        assert breaker.record(running, T0 + 60.0, ok=True) is None


class TestReopening:
    def periods(self, u: float, **changes: Any) -> list[float]:
        breaker = opened(u=lambda: u, **changes)
        now, found = T0, []
        for _ in range(5):
            remaining = breaker.snapshot(now).remaining
            assert remaining is not None
            found.append(remaining)
            now += remaining + 0.001
            call(breaker, now, ok=False)
        return found

    def test_without_growth_only_the_jitter_is_added(self) -> None:
        assert self.periods(0.0) == [60.0] * 5
        assert self.periods(1.0) == pytest.approx([60.0] + [66.0] * 4)

    def test_it_grows_to_the_cap_and_never_beyond(self) -> None:
        assert self.periods(0.0, open_multiplier=2.0) == pytest.approx([60, 120, 240, 480, 600 / 1.1])
        assert self.periods(1.0, open_multiplier=2.0) == pytest.approx([60, 132, 264, 528, 600])

    def test_closing_forgets_the_growth(self) -> None:
        breaker = opened(open_multiplier=2.0, half_open_successes=1)
        call(breaker, T0 + 60.0, ok=False)
        assert call(breaker, T0 + 180.0) is not None
        for _ in range(5):
            call(breaker, T0 + 181.0, ok=False)
        assert breaker.snapshot(T0 + 181.0).remaining == 60.0


class TestRamp:
    def test_after_closing_a_growing_share_passes(self) -> None:
        chance = [0.0]
        breaker = opened(u=lambda: chance[0], ramp=10.0, half_open_successes=1)
        call(breaker, T0 + 60.0)

        def passes(after: float, u: float) -> bool:
            chance[0] = u
            return not isinstance(breaker.admit(T0 + 60.0 + after), Refusal)

        assert [passes(0.0, u) for u in (0.05, 0.15)] == [True, False]
        assert [passes(5.0, u) for u in (0.5, 0.6)] == [True, False]
        assert passes(10.0, 0.999)
        assert passes(0.0, 0.999), "once over, it stays over"

    def test_the_start_and_a_reset_do_not_ramp(self) -> None:
        breaker = opened(u=lambda: 0.999, ramp=10.0)
        breaker.reset(T0)
        assert not isinstance(breaker.admit(T0), Refusal)
        assert not isinstance(build(u=lambda: 0.999, ramp=10.0).admit(T0), Refusal)


class TestByOrder:
    def test_open_by_order_refuses_in_every_mode(self) -> None:
        for mode in ("enforce", "observe", "disabled"):
            breaker = build(mode=mode)
            change = breaker.force(BreakerState.FORCED_OPEN, T0, until=T0 + 90.0, by="ann", why="migration")
            assert change is not None
            assert change.reason == "manual"
            assert breaker.shown is BreakerState.OPEN
            assert breaker.admit(T0) == Refusal(Decision.MANUAL_OPEN, 90)

    def test_closed_by_order_lets_everything_pass(self) -> None:
        breaker = opened()
        breaker.force(BreakerState.FORCED_CLOSED, T0, by="ann", why="false alarm")
        assert not any(call(breaker, ok=False) for _ in range(50))
        assert breaker.shown is BreakerState.CLOSED
        assert breaker.expire(T0 + 1e9) is None, "without an end it has none"

    def test_an_order_expires_into_a_fresh_closed_state(self) -> None:
        breaker = build()
        breaker.force(BreakerState.FORCED_OPEN, T0, until=T0 + 90.0, by="ann")
        assert breaker.expire(T0 + 89.0) is None
        change = breaker.expire(T0 + 90.0)
        assert change is not None
        assert (change.new, change.reason) == ("closed", "expired")

    def test_repeating_an_order_only_moves_its_end(self) -> None:
        breaker = build()
        breaker.force(BreakerState.FORCED_OPEN, T0, until=T0 + 90.0, by="ann")
        assert breaker.force(BreakerState.FORCED_OPEN, T0 + 1.0, until=None, by="bob") is None
        assert breaker.expire(T0 + 1e9) is None
        assert breaker.snapshot(T0).ordered_by == "bob"

    def test_reset_closes_and_forgets(self) -> None:
        breaker = opened()
        change = breaker.reset(T0)
        assert change is not None
        assert (change.new, change.reason) == ("closed", "reset")
        assert [call(breaker, ok=False) for _ in range(4)] == [None] * 4
        late = permit(breaker)
        assert breaker.reset(T0) is None
        breaker.record(late, T0, ok=False)
        assert breaker.snapshot(T0).total == 0

    def test_only_open_and_closed_can_be_ordered(self) -> None:
        with pytest.raises(ValueError, match="forced"):
            build().force(BreakerState.HALF_OPEN, T0)


class TestModes:
    def test_observe_runs_the_whole_machine_and_refuses_nobody(self) -> None:
        breaker = opened(mode="observe")
        assert breaker.shown is BreakerState.CLOSED
        for _ in range(7):
            call(breaker, ok=False)
        assert breaker.refused == 7
        assert breaker.snapshot(T0).remaining == 60.0
        for _ in range(3):
            call(breaker, T0 + 60.0)
        assert breaker.state is BreakerState.CLOSED

    def test_disabled_counts_nothing(self) -> None:
        breaker = build(mode="disabled")
        assert not any(call(breaker, ok=False) for _ in range(50))
        assert breaker.snapshot(T0).total == 0


class TestGoingOn:
    def test_a_reload_keeps_state_remaining_time_and_permits(self) -> None:
        breaker, first = half_open()
        policy = msgspec.structs.replace(BreakerPolicy(), half_open_successes=1)
        assert breaker.reconfigure(policy, T0 + 61.0) is None
        assert breaker.record(first, T0 + 61.0, ok=True) is not None
        breaker = opened()
        breaker.reconfigure(msgspec.structs.replace(BreakerPolicy(), open_for=5.0, window=30.0), T0 + 10.0)
        assert breaker.snapshot(T0 + 10.0).remaining == 50.0

    def test_disabling_closes_it(self) -> None:
        breaker = opened()
        change = breaker.reconfigure(msgspec.structs.replace(BreakerPolicy(), mode="disabled"), T0)
        assert change is not None
        assert (change.new, change.reason) == ("closed", "disabled")
        assert not isinstance(breaker.admit(T0), Refusal)

    def test_taking_the_ramp_away_ends_it(self) -> None:
        breaker = opened(u=lambda: 0.999, ramp=10.0, half_open_successes=1)
        call(breaker, T0 + 60.0)
        breaker.reconfigure(BreakerPolicy(), T0 + 60.0)
        assert not isinstance(breaker.admit(T0 + 60.0), Refusal)

    def through_json(self, breaker: Breaker, now: float) -> Snapshot:
        return msgspec.json.decode(msgspec.json.encode(breaker.snapshot(now)), type=Snapshot)

    def test_another_process_waits_only_for_the_rest(self) -> None:
        successor = build()
        successor.restore(self.through_json(opened(), T0 + 20.0), 7.0)
        assert successor.admit(7.0) == Refusal(Decision.BREAKER_OPEN, 40)
        assert isinstance(successor.admit(47.0), Trial)

    def test_another_process_keeps_orders_good_trials_and_the_ramp(self) -> None:
        breaker = build()
        breaker.force(BreakerState.FORCED_OPEN, T0, until=T0 + 90.0, by="ann", why="migration")
        successor = build()
        successor.restore(self.through_json(breaker, T0 + 30.0), 7.0)
        assert successor.admit(7.0) == Refusal(Decision.MANUAL_OPEN, 60)
        assert successor.snapshot(7.0).ordered_by == "ann"

        breaker, first = half_open()
        breaker.record(first, T0 + 60.0, ok=True)
        successor.restore(self.through_json(breaker, T0 + 60.0), 7.0)
        assert call(successor, 7.0) is None
        assert call(successor, 7.0) is not None

        breaker = opened(ramp=10.0, half_open_successes=1)
        call(breaker, T0 + 60.0)
        successor = build(u=lambda: 0.5, ramp=10.0)
        successor.restore(self.through_json(breaker, T0 + 61.0), 7.0)
        assert isinstance(successor.admit(7.0), Refusal)
        assert not isinstance(successor.admit(16.0), Refusal)

    def test_restoring_into_a_disabled_breaker_refuses_nobody_later(self) -> None:
        successor = build(mode="disabled")
        successor.restore(opened().snapshot(T0), 7.0)
        successor.reconfigure(BreakerPolicy(), 8.0)
        assert not isinstance(successor.admit(8.0), Refusal)


class TestTable:
    def test_every_state_has_its_meaning_and_can_be_left_and_entered(self) -> None:
        assert set(MEANING) == set(BreakerState)
        assert {old for old, _ in CHANGES} == {new for _, new in CHANGES} == set(BreakerState)

    def test_every_reason_is_used(self) -> None:
        assert {reason for reasons in CHANGES.values() for reason in reasons} == set(Reason)
