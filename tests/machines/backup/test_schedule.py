"""The backup schedule: its figures, its kinds, and a week of virtual time in which the RPO holds whatever fails."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.backup.schedule import Made, Promise, PromiseKeeper, Schedule, choose, d95, period

QUARTER, WEEK = 900.0, 7 * 86_400.0


@pytest.mark.parametrize(
    ("rpo", "typical", "expected"),
    [
        (QUARTER, 0.0, 300.0),  # min(5 min, ...)
        (QUARTER, 100.0, 300.0),
        (QUARTER, 150.0, 270.0),  # 900 - 3 * 150 - 180
        (QUARTER, 240.0, 0.0),
        (180.0, 1.0, 60.0),  # a demo: a backup a minute
        (86_400.0, 600.0, 300.0),
    ],
)
def test_the_period_follows_from_the_rpo_and_what_runs_take(rpo: float, typical: float, expected: float):
    assert period(rpo, typical) == pytest.approx(expected)


def test_d95_is_a_time_that_was_taken():
    assert d95([]) == 0.0
    assert d95([7.0]) == 7.0
    assert d95([float(number) for number in range(1, 101)]) == 95.0


def test_runs_begin_a_period_apart_and_never_two_at_once():
    schedule = Schedule(QUARTER, 1000.0)
    assert schedule.due(1000.0), "the first comes at once"
    schedule.began(1000.0)
    assert not schedule.due(5000.0), "one is under way"
    schedule.ended(1010.0, verified=True)
    assert schedule.next_at == 1300.0


def test_a_run_that_is_due_can_wait_until_the_rpo_asks_for_it():
    schedule = Schedule(QUARTER, 0.0, [10.0], 0.0)
    assert schedule.due(300.0)
    assert not schedule.urgent(689.0)
    assert schedule.urgent(690.0), "900 - 3 * 10 - 180"
    hurried = Schedule(QUARTER, 0.0, [200.0], 0.0)
    assert hurried.urgent(hurried.next_at), "there is no room"


def test_what_was_missed_is_made_up_for_once():
    schedule = Schedule(QUARTER, 0.0, [10.0], last_began=20_000.0)
    assert schedule.due(0.0), "the machine was down for hours"
    schedule.began(0.0)
    schedule.ended(10.0, verified=True)
    assert schedule.next_at == 300.0
    assert schedule.due(90_000.0), "it slept for a day"
    schedule.began(90_000.0)
    schedule.ended(90_010.0, verified=True)
    assert schedule.next_at == 90_300.0, "one run for all that was missed"


def test_a_restarted_agent_goes_on_where_it_was():
    assert Schedule(QUARTER, 50.0, [10.0], last_began=100.0).next_at == pytest.approx(250.0)
    assert Schedule(QUARTER, 50.0, [10.0], last_began=-3600.0).next_at == 350.0, "a clock that was set back"


def test_failures_are_tried_again_sooner_than_a_period_and_later_each_time():
    schedule, now, pauses = Schedule(QUARTER, 0.0), 0.0, []
    for _ in range(8):
        schedule.began(now)
        schedule.ended(now, verified=False)
        pauses.append(schedule.next_at - now)
        now = schedule.next_at
    assert pauses[:4] == [15.0, 30.0, 60.0, 120.0]
    assert max(pauses) == pauses[-1] == 300.0


def test_it_says_when_the_rpo_cannot_be_kept():
    schedule = Schedule(QUARTER, 0.0, [200.0])
    assert "an RPO of 15m cannot be kept: backup and verification take 3m20s" in (schedule.unreachable or "")
    schedule.began(0.0)
    schedule.ended(200.0, verified=True)
    assert schedule.next_at == 250.0, "the next one soon, after a breath"
    assert Schedule(QUARTER, 0.0, [100.0]).unreachable is None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([], "full"),
        ([("incremental", 60, 5)], "full"),
        ([("full", 60, 1 << 30)], "incremental"),
        ([("incremental", 60, 5), ("full", 86_400, 1 << 30)], "differential"),
        ([("differential", 3600, 5), ("full", 86_400, 1 << 30)], "incremental"),
        ([("full", 7 * 86_400, 1 << 30)], "full"),
        ([("incremental", 60, 3 << 30), ("full", 3600, 1 << 30)], "full"),
    ],
)
def test_the_kind_follows_from_what_is_there(made: list[tuple[str, float, int]], expected: str):
    assert choose([Made(*one) for one in made], 7 * 86_400.0, 86_400.0) == expected


def test_the_promise_is_missed_once_and_kept_again_once():
    keeper = PromiseKeeper(QUARTER, 0.0)
    assert keeper.judge(None, 900.0) is None, "a new agent has time for its first backup"
    change = keeper.judge(None, 901.0)
    assert change is not None
    assert (change.new, change.reason) == (Promise.MISSED, "never")
    assert keeper.judge(1000.0, 902.0) is None
    change = keeper.judge(30.0, 903.0)
    assert change is not None
    assert change.new is Promise.KEPT
    change = keeper.judge(900.5, 1800.0)
    assert change is not None
    assert change.reason == "too_old"
    assert "allowed" in change.detail


@pytest.mark.parametrize("seed", range(5))
def test_a_simulated_week_keeps_the_rpo(seed: int):
    """A run in twenty fails, one in fifty takes three times as long, the agent restarts now and then."""
    chance = random.Random(seed)
    now, newest, worst, runs, failed = 0.0, 0.0, 0.0, 0, False
    schedule = Schedule(QUARTER, now)
    took: list[float] = []
    while now < WEEK:
        now = max(now, schedule.next_at)
        if chance.random() < 0.01:  # killed, and back within a minute
            now += chance.uniform(1.0, 60.0)
            schedule = Schedule(QUARTER, now, took, last_began=now - newest)
            now = max(now, schedule.next_at)
        assert schedule.due(now)
        schedule.began(now)
        began, seconds = now, chance.uniform(20.0, 60.0) * (3.0 if chance.random() < 0.02 else 1.0)
        now += seconds
        failed = not failed and chance.random() < 0.05
        worst = max(worst, now - newest)  # just before this point counts
        schedule.ended(now, verified=not failed)
        if not failed:
            newest, runs = began, runs + 1
            took.append(seconds)
        assert schedule.unreachable is None
    assert worst <= QUARTER
    assert runs > WEEK / 400, "it was not lazy"


@given(
    rpo=st.floats(10.0, 86_400.0),
    story=st.lists(st.tuples(st.floats(0.0, 100_000.0), st.floats(0.0, 10_000.0), st.booleans()), max_size=50),
)
def test_whatever_happens_the_next_run_is_ahead_and_at_most_a_period_away(rpo: float, story):
    schedule, now = Schedule(rpo, 0.0), 0.0
    for slept, seconds, verified in story:
        now = max(now + slept, schedule.next_at)
        assert schedule.due(now)
        schedule.began(now)
        now += seconds
        schedule.ended(now, verified=verified)
        assert now <= schedule.next_at <= now + max(300.0, 0.25 * seconds + 1e-6)


def test_a_machine_that_slept_in_the_middle_of_a_run_does_not_count_that_as_work():
    schedule = Schedule(900.0, 0.0)
    schedule.began(0.0)
    schedule.ended(7200.0, verified=True, took=20.0)
    assert schedule.typical == 20.0
    assert schedule.unreachable is None
    assert schedule.due(7200.0), "what was missed asleep is made up for at once"
