"""The figures about ourselves: what counts as down, what is unknown, how fast a budget burns."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.incidents.availability import BURNS, WINDOW, BudgetBurn, Figures, figures, overlap, union
from sidecar.machines.incidents.incident import Condition, Incident, Severity

NOW = 10 * WINDOW


def incident(began: float, ended: float | None, *, acked: float | None = None, outage: bool = True) -> Incident:
    one = Incident("1", "orders", "o-1", "upstream_failing", "app", "down", began, began, began)
    one.hold(Condition("upstream_failing", "app", "breaker", Severity.ERROR, "down", outage), began)
    if acked is not None:
        one.ack(acked, "kim")
    if ended is not None:
        one.clear("breaker", ended)
        one.resolve(ended, "kim")
    return one


def test_down_is_the_union_and_unknown_is_in_neither():
    runs = [(NOW - 1000.0, NOW - 600.0), (NOW - 400.0, NOW)]
    incidents = [
        incident(NOW - 900.0, NOW - 800.0, acked=NOW - 870.0),
        incident(NOW - 850.0, NOW - 750.0),  # half of it at the same time
        incident(NOW - 650.0, NOW - 350.0),  # half an hour of it was seen by nobody
        incident(NOW - 300.0, NOW - 200.0, outage=False),
    ]
    told = figures(runs, incidents, NOW)
    assert told == Figures(
        observed=800.0,
        unknown=200.0,
        down=150.0 + 50.0 + 50.0,
        availability=1.0 - 250.0 / 800.0,
        incidents=4,
        failures=3,
        mtta=30.0,
        mttr=(100.0 + 100.0 + 300.0 + 100.0) / 4,
        mtbf=550.0 / 3,
    )


def test_what_still_goes_on_counts_until_now():
    told = figures([(NOW - 100.0, NOW)], [incident(NOW - 10.0, None)], NOW)
    assert (told.down, told.failures, told.mttr) == (10.0, 1, None)


def test_nothing_known_is_not_perfect():
    assert figures([], [], NOW).availability is None
    assert figures([(NOW - 10.0, NOW)], [], NOW).availability == 1.0
    assert figures([(NOW - 10.0, NOW)], [], NOW).mtbf is None


def test_only_the_window_counts():
    old = incident(NOW - WINDOW - 100.0, NOW - WINDOW - 50.0)
    told = figures([(NOW - 2 * WINDOW, NOW)], [old], NOW)
    assert (told.observed, told.down, told.incidents) == (WINDOW, 0.0, 0)


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def seconds(some: list[tuple[int, int]]) -> set[int]:
    return {second for begin, end in some for second in range(begin, end)}


@given(spans, spans)
def test_union_and_overlap_count_each_second_once(left: list, right: list):
    one, two = union(left), union(right)
    assert seconds(one) == seconds(left)
    assert all(a[1] < b[0] for a, b in pairwise(one))
    assert overlap(one, two) == len(seconds(left) & seconds(right))


@given(spans, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), max_size=6))
def test_availability_is_a_share(runs: list, failures: list):
    told = figures(
        [(NOW - 60 + a, NOW - 60 + b) for a, b in runs],
        [incident(NOW - 60 + a, min(NOW, NOW - 60 + a + b)) for a, b in failures],
        NOW,
    )
    assert told.availability is None or 0.0 <= told.availability <= 1.0
    assert 0.0 <= told.down <= told.observed


def test_a_budget_burns_when_both_windows_show_it():
    burn = BudgetBurn(0.999, 0.0)
    total = failed = 0.0
    for step in range(360):  # an hour, all well
        total += 100.0
        burn.add(step * 10.0, total, failed)
    assert burn.rate(3600.0) == 0.0
    assert burn.burning() is None
    for step in range(360, 390):  # five minutes in which a tenth fails
        total, failed = total + 100.0, failed + 10.0
        burn.add(step * 10.0, total, failed)
    assert burn.rate(300.0) == pytest.approx(100.0)
    assert burn.rate(3600.0) == pytest.approx(100.0 * 30 / 360, rel=0.01)
    assert burn.burning() is BURNS[1], "so far it matters for six hours' budget, not yet for the hour's"
    for step in range(390, 440):
        total, failed = total + 100.0, failed + 10.0
        burn.add(step * 10.0, total, failed)
    assert burn.burning() is BURNS[0]
    for step in range(440, 480):  # it is over: the short window says so
        total += 100.0
        burn.add(step * 10.0, total, failed)
    assert burn.burning() is not BURNS[0]


def test_a_few_failures_are_no_burn():
    burn = BudgetBurn(0.999, 0.0)
    burn.add(10.0, 9.0, 9.0)
    assert burn.rate(300.0) == pytest.approx(1000.0)
    assert burn.burning() is None


def test_counts_that_begin_anew_are_no_burn():
    burn = BudgetBurn(0.999, 0.0)
    burn.add(10.0, 1000.0, 100.0)
    burn.add(20.0, 5.0, 0.0)
    assert burn.rate(300.0) == 0.0
    burn.add(30.0, 10.0, 1.0)
    assert burn.counted(300.0) == (5.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60))
def test_what_is_kept_is_bounded_and_never_more_than_everything(steps: list):
    burn = BudgetBurn(0.99, 0.0)
    now = total = failed = 0.0
    for good, bad in steps:
        now, total, failed = now + 700.0, total + good + bad, failed + bad
        burn.add(now, total, failed)
        for seconds_back in (300.0, 3600.0, 21600.0):
            counted = burn.counted(seconds_back)
            assert 0.0 <= counted[1] <= counted[0] <= total
    assert len(burn._kept) <= 21600 / 700 + 3
