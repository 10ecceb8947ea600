"""Rates between looks, whoever looks and however often."""

from sidecar.app.rates import Rates


def test_the_first_look_is_compared_with_the_start():
    assert Rates(100.0).take(110.0, {"a": 50.0}) == {"a": 5.0}


def test_a_look_is_compared_with_one_at_least_a_second_before():
    rates = Rates(0.0)
    rates.take(10.0, {"a": 1000.0})
    assert rates.take(12.0, {"a": 1020.0}) == {"a": 10.0}
    assert rates.take(12.5, {"a": 1040.0}) == {"a": 16.0}  # 40 in the 2.5 s since the look at 10
    assert rates.take(13.0, {"a": 1040.0}) == {"a": 20.0}  # 20 in the second since the look at 12


def test_another_who_looks_at_the_same_moment_is_told_the_same():
    rates = Rates(0.0)
    rates.take(10.0, {"a": 0.0})
    assert rates.take(12.0, {"a": 20.0}) == rates.take(12.0, {"a": 20.0}) == {"a": 10.0}


def test_right_after_the_start_a_rate_is_not_blown_up():
    assert Rates(0.0).take(0.01, {"a": 1.0}) == {"a": 1.0}


def test_what_is_new_began_at_zero_and_what_shrank_did_not_grow():
    rates = Rates(0.0)
    rates.take(10.0, {"a": 100.0})
    assert rates.take(12.0, {"a": 3.0, "b": 4.0}) == {"a": 0.0, "b": 2.0}
