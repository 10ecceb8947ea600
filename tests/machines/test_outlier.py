"""Outliers: who is ejected, for how long, and who must never be."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.config.breaker import Outlier as OutlierPolicy
from sidecar.machines.outlier import MINIMUM_CALLS, Ejection, Outliers, Standing

T0 = 1000.0


def build(count: int, **changes: Any) -> tuple[Outliers, list[Standing]]:
    outliers = Outliers(msgspec.structs.replace(OutlierPolicy(), **changes), T0)
    return outliers, [outliers.watch(f"10.0.0.{number}:80") for number in range(count)]


def calls(
    outliers: Outliers, standing: Standing, results: str, now: float = T0, *, gateway: bool = False
) -> Ejection | None:
    """`results`: a letter per call, + good, ~ good but slow, and - bad; the last change."""
    change = None
    for letter in results:
        change = outliers.record(standing, now, now, letter != "-", gateway, letter == "~") or change
    return change


class TestInARow:
    def test_five_failures_in_a_row_eject(self) -> None:
        outliers, (first, *_) = build(10)
        assert calls(outliers, first, "----+----") is None
        change = calls(outliers, first, "-")
        assert change is not None
        assert (change.out, change.reason, change.enforced) == (True, "consecutive_failures", True)
        assert outliers.excludes(first)
        assert (first.until, first.detail) == (T0 + 30.0, "5 failures in a row")

    def test_a_row_of_gateway_failures_is_named(self) -> None:
        outliers, (first, second, *_) = build(20)
        change = calls(outliers, first, "-----", gateway=True)
        assert change is not None
        assert change.reason == "consecutive_gateway_failures"
        calls(outliers, second, "--+", gateway=True)
        calls(outliers, second, "-", gateway=False)
        calls(outliers, second, "-", gateway=False)
        change = calls(outliers, second, "---", gateway=True)
        assert change is not None
        assert change.reason == "consecutive_failures"

    def test_zero_switches_the_rule_off(self) -> None:
        outliers, (first, *_) = build(10, consecutive_failures=0)
        assert calls(outliers, first, "-" * 50) is None
        assert calls(outliers, first, "-" * 50, gateway=True) is None

    def test_gateway_failures_have_a_number_of_their_own(self) -> None:
        outliers, (first, second, *_) = build(20, consecutive_failures=0, consecutive_gateway_failures=3)
        assert calls(outliers, first, "-" * 50) is None
        assert calls(outliers, first, "--", gateway=True) is None
        assert calls(outliers, first, "-") is None  # a plain 500 says that something is there, and begins the row anew
        assert calls(outliers, first, "--", gateway=True) is None
        change = calls(outliers, first, "-", gateway=True)
        assert change is not None
        assert (change.reason, first.detail) == ("consecutive_gateway_failures", "3 gateway failures in a row")
        assert calls(outliers, second, "--+--", gateway=True) is None

    def test_gateway_failures_may_be_left_to_the_other_rule(self) -> None:
        outliers, (first, *_) = build(10, consecutive_failures=5, consecutive_gateway_failures=0)
        change = calls(outliers, first, "-----", gateway=True)
        assert change is not None
        assert change.reason == "consecutive_failures"


class TestRate:
    def test_the_share_of_an_interval_ejects_at_its_end(self) -> None:
        outliers, (first, *_) = build(10, consecutive_failures=0, failure_rate=0.85)
        calls(outliers, first, "-" * 17 + "+" * 3)
        assert outliers.sweep(T0 + 9.9) == []
        (change,) = outliers.sweep(T0 + 10.0)
        assert (change.standing, change.reason) == (first, "failure_rate")
        assert first.detail == "17 of 20 calls failed"

    def test_few_calls_are_not_judged_and_intervals_do_not_add_up(self) -> None:
        outliers, (first, *_) = build(10, consecutive_failures=0)
        for interval in range(1, 4):
            calls(outliers, first, "-" * (MINIMUM_CALLS - 1))
            assert outliers.sweep(T0 + 10.0 * interval) == []

    def test_the_worst_goes_first(self) -> None:
        outliers, (first, second) = build(2, consecutive_failures=0)
        calls(outliers, first, "-" * 18 + "+" * 2)
        calls(outliers, second, "-" * 20)
        assert [change.standing for change in outliers.sweep(T0 + 10.0)] == [second]
        assert outliers.withheld == 1


class TestLatency:
    def test_the_share_of_slow_calls_ejects_at_the_end_of_an_interval(self) -> None:
        outliers, (first, *_) = build(10, slow_rate=0.5, slow_after=0.2)
        assert outliers.slow_after == 0.2
        assert calls(outliers, first, "~" * 10 + "+" * 10) is None
        (change,) = outliers.sweep(T0 + 10.0)
        assert (change.standing, change.reason) == (first, "slow_rate")
        assert first.detail == "10 of 20 calls were slow"

    def test_by_default_nobody_is_judged_by_it(self) -> None:
        outliers, (first, *_) = build(10)
        assert outliers.slow_after == math.inf
        calls(outliers, first, "~" * 20)
        assert outliers.sweep(T0 + 10.0) == []
        outliers.reconfigure(msgspec.structs.replace(OutlierPolicy(), slow_rate=1.0, slow_after=1.0), T0 + 11.0)
        assert outliers.slow_after == 1.0

    def test_who_fails_goes_before_who_is_slow(self) -> None:
        outliers, (slow, failing) = build(2, consecutive_failures=0, slow_rate=0.1)
        calls(outliers, slow, "~" * 20)
        calls(outliers, failing, "-" * 18 + "++")
        assert [change.standing for change in outliers.sweep(T0 + 10.0)] == [failing]
        assert outliers.withheld == 1

    def test_an_interval_with_slow_calls_forgives_nothing(self) -> None:
        outliers, (first, *_) = build(10, slow_rate=1.0)
        calls(outliers, first, "-----")
        outliers.sweep(T0 + 30.0)
        calls(outliers, first, "+++~", T0 + 31.0)
        outliers.sweep(T0 + 40.0)
        assert first.ejections == 1
        calls(outliers, first, "+++", T0 + 41.0)
        outliers.sweep(T0 + 50.0)
        assert first.ejections == 0


class TestHowLong:
    def eject(self, outliers: Outliers, standing: Standing, now: float) -> float:
        assert calls(outliers, standing, "-----", now) is not None
        assert standing.until is not None
        return standing.until - now

    def test_each_ejection_lasts_longer_up_to_the_cap(self) -> None:
        outliers, (first, *_) = build(10, max_ejection=70.0)
        now, lasted = T0, []
        for _ in range(4):
            lasted.append(self.eject(outliers, first, now))
            now += lasted[-1]
            (change,) = outliers.sweep(now)
            assert (change.out, change.reason) == (False, "expired")
        assert lasted == [30.0, 60.0, 70.0, 70.0]

    def test_good_intervals_forgive_and_silent_ones_do_not(self) -> None:
        outliers, (first, *_) = build(10)
        for now in (T0, T0 + 100.0):
            self.eject(outliers, first, now)
            outliers.sweep(now + 60.0)
        outliers.sweep(T0 + 170.0)
        assert first.ejections == 2
        calls(outliers, first, "+++", T0 + 171.0)
        outliers.sweep(T0 + 180.0)
        assert first.ejections == 1

    def test_calls_from_before_the_return_are_not_counted(self) -> None:
        outliers, (first, *_) = build(10)
        self.eject(outliers, first, T0)
        assert outliers.record(first, T0 + 1.0, began=T0, ok=False) is None
        outliers.sweep(T0 + 30.0)
        for _ in range(20):
            assert outliers.record(first, T0 + 31.0, began=T0 + 29.0, ok=False) is None
        assert first.row == 0
        assert calls(outliers, first, "-----", T0 + 31.0) is not None

    def test_the_deadline_is_the_next_end_or_judgement(self) -> None:
        outliers, (first, *_) = build(10, base_ejection=4.0)
        assert outliers.deadline == T0 + 10.0
        calls(outliers, first, "-----")
        assert outliers.deadline == T0 + 4.0
        outliers.sweep(T0 + 4.0)
        assert outliers.deadline == T0 + 10.0


class TestHowMany:
    def test_a_lone_endpoint_is_never_ejected(self) -> None:
        outliers, (only,) = build(1, max_ejected=1.0)
        assert calls(outliers, only, "-" * 50) is None
        assert outliers.sweep(T0 + 10.0) == []

    @pytest.mark.parametrize(
        ("count", "share", "most"), [(2, 0.1, 1), (10, 0.1, 1), (30, 0.1, 3), (4, 1.0, 3), (9, 0.0, 0)]
    )
    def test_at_most_the_share_but_one_at_least_and_never_all(self, count: int, share: float, most: int) -> None:
        outliers, standings = build(count, max_ejected=share)
        ejected = [standing for standing in standings if calls(outliers, standing, "-----") is not None]
        assert len(ejected) == most
        assert outliers.withheld == count - most

    def test_one_kept_in_may_go_once_there_is_room(self) -> None:
        outliers, (first, second) = build(2)
        calls(outliers, first, "-----")
        assert calls(outliers, second, "-----") is None
        outliers.sweep(T0 + 30.0)
        assert calls(outliers, second, "-", T0 + 30.0) is not None

    def test_the_last_one_comes_back_when_its_peers_are_gone(self) -> None:
        outliers, (first, second) = build(2)
        calls(outliers, first, "-----")
        (change,) = outliers.forget(second.address, T0 + 1.0)
        assert (change.standing, change.out, change.reason) == (first, False, "too_few_left")
        assert outliers.forget("never seen", T0 + 1.0) == []

    def test_the_longest_out_come_back_first(self) -> None:
        outliers, standings = build(30)
        for order, standing in enumerate(standings[:3]):
            calls(outliers, standing, "-----", T0 + order)
        back = [change for gone in standings[20:] for change in outliers.forget(gone.address, T0 + 5.0)]
        assert [change.standing for change in back] == [standings[0]]

    def test_watching_again_keeps_the_standing(self) -> None:
        outliers, (first, _) = build(2)
        calls(outliers, first, "-----")
        assert outliers.watch(first.address) is first


class TestModes:
    def test_observe_decides_and_enforces_nothing(self) -> None:
        outliers, (first, *_) = build(10, mode="observe")
        change = calls(outliers, first, "-----")
        assert change is not None
        assert not change.enforced
        assert first.until == T0 + 30.0
        assert not outliers.excludes(first)

    def test_disabled_counts_nothing(self) -> None:
        outliers, (first, *_) = build(10, mode="disabled")
        assert calls(outliers, first, "-" * 50) is None
        assert first.failures == 0

    @pytest.mark.parametrize("mode", ["observe", "disabled"])
    def test_leaving_enforce_brings_everybody_back(self, mode: str) -> None:
        outliers, (first, *_) = build(10)
        calls(outliers, first, "-----")
        (change,) = outliers.reconfigure(msgspec.structs.replace(OutlierPolicy(), mode=mode), T0 + 1.0)
        assert (change.out, change.enforced, change.reason) == (False, True, "mode_changed")
        again = calls(outliers, first, "-----", T0 + 2.0)
        assert (again is None) == (mode == "disabled")

    def test_from_disabled_it_counts_from_now_on(self) -> None:
        outliers, (first, *_) = build(10, mode="disabled")
        outliers.reconfigure(OutlierPolicy(), T0 + 5.0)
        assert outliers.record(first, T0 + 6.0, began=T0 + 4.0, ok=False) is None
        assert first.row == 0
        assert calls(outliers, first, "-----", T0 + 6.0) is not None

    def test_a_reload_keeps_running_ejections_within_the_new_limit(self) -> None:
        outliers, standings = build(10, max_ejected=0.5)
        for standing in standings[:5]:
            calls(outliers, standing, "-----")
        back = outliers.reconfigure(msgspec.structs.replace(OutlierPolicy(), max_ejected=0.2), T0 + 1.0)
        assert len(back) == 3
        assert sum(standing.until == T0 + 30.0 for standing in standings) == 2


class Invariants(RuleBasedStateMachine):
    """Whatever happens: the limit holds, what is told adds up, and everybody comes back."""

    @initialize(
        share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), failures=st.integers(0, 3), rate=st.sampled_from([0.0, 0.5, 1.0])
    )
    def begin(self, share: float, failures: int, rate: float) -> None:
        self.now = T0
        self.policy = OutlierPolicy(max_ejected=share, consecutive_failures=failures, failure_rate=rate)
        self.outliers = Outliers(self.policy, self.now)
        self.standings: dict[str, Standing] = {}
        self.out: set[str] = set()

    def told(self, changes: list[Ejection]) -> None:
        for change in changes:
            if change.out:
                assert change.standing.address not in self.out
                self.out.add(change.standing.address)
            else:
                self.out.remove(change.standing.address)

    @rule(number=st.integers(0, 12))
    def discovered(self, number: int) -> None:
        self.standings[str(number)] = self.outliers.watch(str(number))

    @precondition(lambda self: self.standings)
    @rule(data=st.data())
    def gone(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.standings)))
        changes = self.outliers.forget(address, self.now)
        del self.standings[address]
        self.out.discard(address)
        self.told(changes)

    @precondition(lambda self: self.standings)
    @rule(data=st.data(), good=st.integers(0, 3), bad=st.integers(0, 30), age=st.sampled_from([0.0, 50.0]))
    def called(self, data: st.DataObject, good: int, bad: int, age: float) -> None:
        standing = self.standings[data.draw(st.sampled_from(sorted(self.standings)))]
        for ok in [True] * good + [False] * bad:
            change = self.outliers.record(standing, self.now, began=self.now - age, ok=ok)
            self.told([change] if change else [])

    @rule(wait=st.sampled_from([1.0, 10.0, 31.0, 400.0]))
    def swept(self, wait: float) -> None:
        self.now += wait
        self.told(self.outliers.sweep(self.now))
        assert self.outliers.deadline > self.now

    @invariant()
    def the_limit_holds(self) -> None:
        if not hasattr(self, "standings"):
            return
        count = len(self.standings)
        limit = 0 if self.policy.max_ejected == 0 else max(1, math.floor(self.policy.max_ejected * count))
        assert {name for name, standing in self.standings.items() if standing.until is not None} == self.out
        assert len(self.out) <= limit
        assert not count or len(self.out) < count
        for standing in self.standings.values():
            assert standing.until is None or standing.until <= self.now + self.policy.max_ejection

    def teardown(self) -> None:
        if hasattr(self, "standings"):
            judged = self.now + self.policy.interval
            self.told(self.outliers.sweep(judged))  # may eject for what was counted last
            self.told(self.outliers.sweep(judged + self.policy.max_ejection))
            assert not self.out


TestInvariants = Invariants.TestCase
TestInvariants.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
