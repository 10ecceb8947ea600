"""The window of buckets against a plain list of times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.window import Window


def test_old_counts_leave_on_reading_alone() -> None:
    window = Window(10.0, buckets=10, columns=2)
    window.add(0, 100.0)
    window.add(1, 105.5)
    assert (window.sum(0, 109.9), window.sum(1, 109.9)) == (1, 1)
    assert (window.sum(0, 110.0), window.sum(1, 110.0)) == (0, 1)
    assert window.sum(1, 1e9) == 0


def test_clear_forgets() -> None:
    window = Window(10.0)
    window.add(0, 1.0)
    window.clear()
    assert window.sum(0, 1.0) == 0
    window.add(0, 1.0)
    assert window.sum(0, 10.9) == 1
    assert window.sum(0, 11.0) == 0


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="span"):
        Window(0.0)


MOVES = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0, 3.5, 9.0, 10.0, 1000.0]), st.integers(0, 2)), max_size=60)


@given(MOVES, st.sampled_from([1, 3, 10]), st.sampled_from([0.7, 10.0]), st.sampled_from([-50.0, 0.0, 12345.67]))
def test_sums_agree_with_a_plain_list(moves: list[tuple[float, int]], buckets: int, span: float, start: float) -> None:
    window = Window(span, buckets, columns=2)
    width = span / buckets
    seen: list[tuple[float, int]] = []
    now = start
    for wait, column in moves:
        now += wait
        if column < 2:
            window.add(column, now)
            seen.append((now, column))
        oldest = now // width - buckets + 1
        for asked in (0, 1):
            assert window.sum(asked, now) == sum(1 for at, what in seen if what == asked and at // width >= oldest)
