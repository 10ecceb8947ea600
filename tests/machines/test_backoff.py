"""Waiting times: growth, cap, jitter."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.base.backoff import exponential, full_jitter, spread


def test_the_wait_doubles_up_to_the_cap() -> None:
    assert [exponential(step, 0.025, 0.25) for step in range(6)] == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25]


def test_factor_one_never_grows_and_a_small_cap_wins() -> None:
    assert exponential(50, 60.0, 600.0, 1.0) == 60.0
    assert exponential(0, 60.0, 10.0) == 10.0


@given(st.integers(0, 10**9), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 100))
def test_no_step_overflows_or_exceeds_the_cap(step: int, base: float, cap: float, factor: float) -> None:
    assert 0.0 <= exponential(step, base, cap, factor) <= cap


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_bounds(u: float) -> None:
    assert 0.0 <= full_jitter(3, 0.025, 0.25, lambda: u) <= 0.2
    assert 27.0 <= spread(30.0, 0.1, lambda: u) <= 33.0
