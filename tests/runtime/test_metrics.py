"""Cells, the registry's bounds, snapshots that cross processes and merge."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.runtime import series
from sidecar.runtime.metrics import MAX_LABEL, Registry, Series, Snapshot, lasting, merge, quantile
from sidecar.runtime.series import TABLE, Gauge, Histogram

CODES = st.sampled_from(["200", "503", "404"])


def value(snapshot: Snapshot, metric, *labels: str):
    return next(one.value for one in snapshot.families[metric.name] if one.labels == labels)


def test_a_cell_is_made_once_and_its_value_is_in_the_snapshot():
    registry = Registry()
    cell = registry.cell(series.RETRIES, "pay", "reset")
    cell.value += 2
    assert registry.cell(series.RETRIES, "pay", "reset") is cell
    assert value(registry.snapshot(), series.RETRIES, "pay", "reset") == 2


def test_a_metric_that_nothing_writes_is_not_exported():
    registry = Registry()
    assert registry.snapshot().families == {}
    registry.cell(series.TUNNELS, "inbound")
    assert set(registry.snapshot().families) == {"sidecar_tunnels"}


def test_the_wrong_number_of_labels_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="sidecar_retries_total"):
        Registry().cell(series.RETRIES, "pay")
    with pytest.raises(ValueError, match="sidecar_connections"):
        Registry().gauge_function(series.CONNECTIONS, lambda: 1.0)


def test_an_observation_on_a_bound_belongs_to_that_bound():
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 7.5


def test_series_beyond_the_limit_share_one_and_are_counted():
    registry = Registry()
    limit = series.OUTLIER_EJECTIONS.limit
    for number in range(limit + 5):
        registry.cell(series.OUTLIER_EJECTIONS, f"upstream-{number}", "status").value += 1
    snapshot = registry.snapshot()
    assert len(snapshot.families[series.OUTLIER_EJECTIONS.name]) == limit + 1
    assert value(snapshot, series.OUTLIER_EJECTIONS, "other", "other") == 5
    assert value(snapshot, series.SERIES_DROPPED, series.OUTLIER_EJECTIONS.name) == 5
    assert snapshot.total(series.OUTLIER_EJECTIONS) == limit + 5


def test_a_long_label_is_cut():
    registry = Registry()
    registry.cell(series.TUNNELS, "x" * 10_000)
    assert registry.snapshot().families[series.TUNNELS.name][0].labels == ("x" * MAX_LABEL,)


def test_gauges_of_what_goes_are_removed_and_sums_stay():
    registry = Registry()
    for endpoint in ("a", "b"):
        registry.cell(series.UPSTREAM_HEALTHY, "pay", endpoint).value = 1
    registry.gauge_function(series.PENDING_REQUESTS, lambda: 3.0, "pay")
    registry.cell(series.RETRIES, "pay", "reset").value = 7
    registry.remove(upstream="pay", endpoint="a")
    assert [one.labels for one in registry.snapshot().families[series.UPSTREAM_HEALTHY.name]] == [("pay", "b")]
    registry.remove(upstream="pay")
    assert set(registry.snapshot().families) == {series.RETRIES.name}


def test_gauge_functions_are_asked_at_each_snapshot_and_a_failing_one_is_left_out():
    registry = Registry()
    values = iter([1.0, 2.0])
    registry.gauge_function(series.CONNECTIONS, lambda: next(values), "inbound")
    assert registry.snapshot().total(series.CONNECTIONS) == 1
    assert registry.snapshot().total(series.CONNECTIONS) == 2
    registry.cell(series.TUNNELS, "inbound").value = 4
    assert registry.snapshot() == Snapshot({series.TUNNELS.name: [Series(("inbound",), 4)]})


def test_a_snapshot_survives_the_way_to_another_process():
    registry = Registry()
    registry.cell(series.EVENT_LOOP_LAG).observe(0.002)
    registry.cell(series.REQUESTS, "in", "all", "app", "GET", "200", "ok").value = 5
    snapshot = registry.snapshot()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


@given(st.lists(st.lists(st.tuples(CODES, st.floats(0, 100, allow_nan=False)))))
def test_merged_workers_count_what_one_would_have(workers):
    one, many = Registry(), []
    for observations in workers:
        registry = Registry()
        many.append(registry)
        for code, seconds in observations:
            for target in (registry, one):
                target.cell(series.REQUESTS, "in", "r", "u", "GET", code, "ok").value += 1
                target.cell(series.OVERHEAD, "in").observe(seconds)
    merged, expected = merge(registry.snapshot() for registry in many), one.snapshot()
    assert merged.families.keys() == expected.families.keys()
    for name, found in expected.families.items():
        left = {one.labels: one for one in merged.families[name]}
        for right in found:
            assert left[right.labels].counts == right.counts
            assert math.isclose(left[right.labels].value, right.value)


@pytest.mark.parametrize(
    ("metric", "labels", "expected"),
    [
        (series.CONNECTIONS, ("inbound",), 5.0),
        (series.SHARED_STATE_STALENESS, (), 3.0),
        (series.CONFIG_RELOAD_OK, (), 2.0),
        (series.CONFIG_HASH, (), 2.0),
    ],
)
def test_gauges_merge_by_their_own_rule(metric, labels, expected):
    snapshots = [Snapshot({metric.name: [Series(labels, number)]}) for number in (3.0, 2.0)]
    assert merge(snapshots).total(metric) == expected


def test_what_outlives_a_worker_are_its_sums():
    registry = Registry()
    registry.cell(series.CONNECTIONS, "inbound").value = 3
    registry.cell(series.RETRIES, "pay", "reset").value = 2
    registry.cell(series.EVENT_LOOP_LAG).observe(1.0)
    assert set(lasting(registry.snapshot()).families) == {series.RETRIES.name, series.EVENT_LOOP_LAG.name}


def test_series_are_selected_by_labels():
    registry = Registry()
    registry.cell(series.RETRIES, "pay", "reset").value = 2
    registry.cell(series.RETRIES, "pay", "503").value = 3
    registry.cell(series.RETRIES, "app", "503").value = 4
    snapshot = registry.snapshot()
    assert snapshot.total(series.RETRIES, upstream="pay") == 5
    assert snapshot.total(series.RETRIES, reason="503") == 7
    assert snapshot.total(series.FALLBACKS) == 0


@given(st.lists(st.floats(0.0001, 59, allow_nan=False), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(seconds, q):
    histogram = Histogram(series.REQUEST_BOUNDS)
    for one in seconds:
        histogram.observe(one)
    exact = sorted(seconds)[max(0, math.ceil(q * len(seconds)) - 1)]
    estimate = quantile(histogram.bounds, histogram.counts, q)
    assert estimate is not None
    above = next(bound for bound in histogram.bounds if exact <= bound)
    below = max([0.0, *(bound for bound in histogram.bounds if bound < exact)])
    assert below <= estimate <= above * (1 + 1e-9)


def test_a_quantile_without_data_is_unknown():
    assert Registry().snapshot().quantile(series.REQUEST_DURATION, 0.5) is None


def test_a_quantile_beyond_the_last_bound_is_that_bound():
    registry = Registry()
    registry.cell(series.REQUEST_DURATION, "in", "r", "u").observe(1000.0)
    assert registry.snapshot().quantile(series.REQUEST_DURATION, 0.5) == series.REQUEST_BOUNDS[-1]


def test_the_table_follows_the_naming_rules():
    names = [metric.name for metric in TABLE]
    assert len(names) == len(set(names))
    for metric in TABLE:
        assert metric.name.startswith("sidecar_")
        assert metric.name.endswith("_total") == (metric.cell.kind == "counter")
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert bool(metric.bounds) == (metric.cell is Histogram)
        assert metric.cell is Gauge or metric.merge == "sum"
        assert "path" not in metric.labels
        if metric.unit in {"seconds", "bytes", "ratio"}:
            assert metric.unit in metric.name
