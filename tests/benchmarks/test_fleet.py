"""Quantiles are bounds of buckets; the verdict follows what is asked; what was not measured is a dash."""

from benchmarks.fleet import Report, _quantile, met, table

BUCKETS = {
    'd_bucket{le="0.001"}': 90.0,
    'd_bucket{le="0.01"}': 99.0,
    'd_bucket{le="+Inf"}': 100.0,
    "d_count": 100.0,
}


def test_a_quantile_is_the_upper_bound_of_its_bucket() -> None:
    assert _quantile(BUCKETS, "d", 0.5) == 0.001
    assert _quantile(BUCKETS, "d", 0.99) == 0.01
    assert _quantile(BUCKETS, "d", 0.999) == float("inf")


def test_one_call_too_many_is_one_too_many() -> None:
    good = Report(machine={}, rounds=1, processes=20, trial_calls_max=3, black_hole_failed=0)
    assert met(good)
    assert "| trial calls of 20 replicas, 3 permits | ≤ 3 | 3 |" in table(good)
    assert "– s, –" in table(good)
    assert not met(Report(machine={}, rounds=1, processes=20, trial_calls_max=4))
    assert not met(Report(machine={}, rounds=1, black_hole_failed=1))
