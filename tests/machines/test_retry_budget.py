"""The retry budget: a share of the traffic, and a floor."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.retry_budget import RetryBudget


def taken(budget: RetryBudget, tries: int, now: float) -> int:
    return sum(budget.take(now) for _ in range(tries))


def test_without_traffic_the_floor_is_allowed() -> None:
    budget = RetryBudget(ratio=0.2, min_per_second=3)
    assert taken(budget, 100, now=5.0) == 30
    assert budget.refused == 70
    assert taken(budget, 100, now=14.9) == 0
    assert taken(budget, 100, now=15.0) == 30


def test_with_traffic_a_share_of_it_is_allowed() -> None:
    budget = RetryBudget(ratio=0.2, min_per_second=3)
    for _ in range(1000):
        budget.request(5.0)
    assert taken(budget, 1000, now=5.5) == 200
    assert budget.left(5.5) == 0.0


def test_old_traffic_no_longer_pays() -> None:
    budget = RetryBudget(ratio=0.2, min_per_second=0)
    for _ in range(1000):
        budget.request(5.0)
    assert budget.left(14.9) == 200.0
    assert taken(budget, 10, now=15.0) == 0


def test_zero_and_zero_forbid_retries() -> None:
    budget = RetryBudget(ratio=0.0, min_per_second=0)
    budget.request(1.0)
    assert not budget.take(1.0)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.4, 1.0, 11.0]), st.booleans()), max_size=150),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_retries_never_exceed_what_the_window_allows(
    moves: list[tuple[float, bool]], ratio: float, minimum: float
) -> None:
    budget = RetryBudget(ratio, minimum)
    now = 3.3
    requests: list[float] = []
    retries: list[float] = []
    for wait, is_request in moves:
        now += wait
        oldest = now // 1 - 9
        allowed = max(minimum * 10, ratio * sum(at // 1 >= oldest for at in requests))
        spent = sum(at // 1 >= oldest for at in retries)
        if is_request:
            budget.request(now)
            requests.append(now)
        else:
            granted = budget.take(now)
            assert granted == (allowed - spent >= 1.0)
            if granted:
                retries.append(now)
