"""The breaker that shares its state: what it follows, what it may do by lease, and what it does when the tie is cut."""

from typing import Any

import msgspec

from sidecar.base.names import Decision
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Breaker, Refusal, Snapshot, Trial
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.leases import Ended, Lease, TrialEnd

T0 = 1000.0
OPEN = Snapshot(BreakerState.OPEN, "consecutive_failures", "5 failures in a row", remaining=60.0)
HALF_OPEN = Snapshot(BreakerState.HALF_OPEN, "open_period_over")
CLOSED = Snapshot(BreakerState.CLOSED, "recovered", "3 trial calls succeeded")
HELD = Snapshot(BreakerState.FORCED_OPEN, "manual", "maintenance", ordered_by="ann", ordered_why="maintenance")


def build(*told: Snapshot, **changes: Any) -> Breaker:
    breaker = Breaker(msgspec.structs.replace(BreakerPolicy(), **changes), lambda: 0.5)
    for one in told:
        breaker.adopt(one, T0)
    return breaker


def lease(token: str, at: float = T0) -> Lease:
    return Lease(token, at + 1.0, at + 30.0)


def trial(breaker: Breaker, at: float = T0) -> Trial:
    permit = breaker.admit(at)
    assert isinstance(permit, Trial)
    return permit


def refused(breaker: Breaker, at: float = T0) -> Refusal:
    permit = breaker.admit(at)
    assert isinstance(permit, Refusal)
    return permit


class TestWhatOthersSay:
    def test_open_refuses_though_nothing_failed_here(self) -> None:
        breaker = build()
        change = breaker.adopt(OPEN, T0)
        assert change is not None
        assert (change.old, change.new, change.reason) == ("closed", "open", "shared")
        assert change.detail == "consecutive_failures: 5 failures in a row"
        assert breaker.admit(T0) == Refusal(Decision.BREAKER_OPEN, 60)
        assert breaker.ready == 0

    def test_its_end_comes_from_outside_too(self) -> None:
        breaker = build(OPEN)
        assert refused(breaker, T0 + 61.0).retry_after == 1
        assert breaker.state is BreakerState.OPEN
        assert breaker.adopt(HALF_OPEN, T0 + 61.0) is not None
        change = breaker.adopt(CLOSED, T0 + 62.0)
        assert change is not None
        assert (change.old, change.new) == ("half_open", "closed")
        assert breaker.ready
        assert not breaker.led

    def test_an_own_trip_is_led_once_others_agree(self) -> None:
        breaker = build(consecutive_failures=1)
        permit = breaker.admit(T0)
        assert not isinstance(permit, Refusal)
        breaker.record(permit, T0, ok=False)
        assert breaker.state is BreakerState.OPEN
        assert not breaker.led
        assert breaker.adopt(OPEN, T0 + 5.0) is None
        assert breaker.snapshot(T0 + 5.0).remaining == 60.0
        assert breaker.led

    def test_an_order_given_here_stands_above(self) -> None:
        breaker = build()
        breaker.force(BreakerState.FORCED_CLOSED, T0, until=T0 + 10.0, by="bob")
        assert breaker.adopt(OPEN, T0) is None
        assert breaker.adopt(HELD, T0) is None
        assert breaker.ready
        breaker.expire(T0 + 10.0)
        assert breaker.adopt(OPEN, T0 + 10.0) is not None

    def test_an_order_for_all_is_held_and_ends(self) -> None:
        breaker = build(OPEN, HELD)
        assert refused(breaker).reason is Decision.MANUAL_OPEN
        assert breaker.snapshot(T0).ordered_by == "ann"
        breaker.adopt(CLOSED, T0)
        assert breaker.state is BreakerState.CLOSED

    def test_observing_it_refuses_nobody_and_disabled_it_obeys_orders_alone(self) -> None:
        observing = build(OPEN, mode="observe")
        assert observing.admit(T0) == -1
        assert observing.refused == 1
        disabled = build(OPEN, mode="disabled")
        assert disabled.state is BreakerState.CLOSED
        disabled.adopt(HELD, T0)
        assert refused(disabled).reason is Decision.MANUAL_OPEN
        disabled.adopt(OPEN, T0)
        assert disabled.ready

    def test_the_ramp_follows_a_recovery(self) -> None:
        breaker = build(HALF_OPEN, CLOSED, ramp=10.0)
        assert refused(breaker).reason is Decision.BREAKER_OPEN
        assert not isinstance(breaker.admit(T0 + 9.0), Refusal)


class TestLeases:
    def test_only_a_lease_is_a_trial(self) -> None:
        breaker = build(HALF_OPEN)
        assert refused(breaker).retry_after == 1
        breaker.grant([lease("a"), lease("b")])
        first, second = trial(breaker), trial(breaker)
        assert {first.token, second.token} == {"a", "b"}
        refused(breaker)
        assert breaker.record(first, T0 + 0.1, ok=True) == Ended("a", TrialEnd.OK, T0 + 0.1)
        assert breaker.record(second, T0 + 0.2, ok=False) == Ended("b", TrialEnd.FAILED, T0 + 0.2)
        assert breaker.state is BreakerState.HALF_OPEN, "what follows from it, others say"

    def test_it_comes_back_once(self) -> None:
        breaker = build(HALF_OPEN)
        breaker.grant([lease("a")])
        only = trial(breaker)
        assert breaker.cancel(only, T0) == Ended("a", TrialEnd.UNUSED, T0)
        assert breaker.cancel(only, T0) is None
        assert breaker.record(only, T0, ok=True) is None

    def test_unused_it_goes_back_after_its_second(self) -> None:
        breaker = build(HALF_OPEN)
        breaker.grant([lease("a")])
        assert breaker.deadline == T0 + 1.0
        refused(breaker, T0 + 1.0)
        assert breaker.expire(T0 + 1.0) == Ended("a", TrialEnd.UNUSED, T0 + 1.0)
        assert breaker.expire(T0 + 1.0) is None

    def test_a_trial_that_never_ends_has_failed(self) -> None:
        breaker = build(HALF_OPEN)
        breaker.grant([lease("a")])
        only = trial(breaker)
        assert breaker.expire(T0 + 30.0) == Ended("a", TrialEnd.TIMEOUT, T0 + 30.0)
        assert breaker.record(only, T0 + 31.0, ok=True) is None

    def test_a_new_word_voids_what_is_in_hand_and_what_runs_but_all_come_back(self) -> None:
        breaker = build(HALF_OPEN)
        breaker.grant([lease("a"), lease("b")])
        running = trial(breaker)
        breaker.adopt(OPEN, T0)
        assert breaker.expire(T0) == Ended("b" if running.token == "a" else "a", TrialEnd.UNUSED, T0)
        late = breaker.record(running, T0 + 5.0, ok=False)
        assert isinstance(late, Ended)
        assert late.end is TrialEnd.UNUSED
        assert breaker.snapshot(T0 + 5.0).remaining == 55.0

    def test_taking_for_others_counts_nobody_as_refused(self) -> None:
        breaker = build(half_open_permits=1)
        assert breaker.take(T0) is None
        breaker.adopt(OPEN, T0)
        assert breaker.take(T0 + 61.0) is None
        assert breaker.refused == 0


class TestAlone:
    def test_an_open_one_stays_so_to_its_end_then_one_call_at_a_time(self) -> None:
        breaker = build(OPEN, open_for=60.0)
        assert breaker.alone(T0 + 10.0) is None
        refused(breaker, T0 + 62.0)
        first = trial(breaker, T0 + 63.0)
        assert not first.token
        refused(breaker, T0 + 63.0)
        for _ in range(2):
            breaker.record(first, T0 + 63.0, ok=True)
            first = trial(breaker, T0 + 63.0)
        assert breaker.record(first, T0 + 63.0, ok=True) is not None
        assert breaker.state is BreakerState.CLOSED

    def test_a_half_open_one_waits_a_moment(self) -> None:
        breaker = build(HALF_OPEN)
        change = breaker.alone(T0)
        assert change is not None
        assert change.new is BreakerState.OPEN
        refused(breaker, T0 + 2.9)
        trial(breaker, T0 + 3.0)

    def test_an_order_for_all_stands(self) -> None:
        breaker = build(HELD)
        assert breaker.alone(T0) is None
        assert refused(breaker, T0 + 10_000.0).reason is Decision.MANUAL_OPEN
        breaker.adopt(CLOSED, T0 + 10_000.0)
        assert breaker.ready
