"""What Prometheus reads: our slices against the library's own text, and against its parser."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sidecar.runtime import exposition, series
from sidecar.runtime.metrics import Registry

LABELS = st.text(max_size=8)


def filled(entries) -> Registry:
    registry = Registry()
    for label, number in entries:
        registry.cell(series.RETRIES, label, "reset").value += number
        registry.cell(series.CONNECTIONS, label).value = number
        registry.cell(series.REQUEST_DURATION, label, "r", "u").observe(number)
    return registry


@settings(max_examples=25)
@given(st.lists(st.tuples(LABELS, st.floats(0, 1e6, allow_nan=False)), max_size=60))
def test_slices_joined_are_what_the_library_makes_in_one_go(entries):
    snapshot = filled(entries).snapshot()
    collector = exposition.SnapshotCollector(snapshot)
    assert exposition.render(snapshot) == generate_latest(collector)
    assert exposition.render(snapshot, as_openmetrics=True) == generate_openmetrics(collector)


def test_many_series_come_in_many_small_slices():
    snapshot = filled((str(number), 1.0) for number in range(150)).snapshot()
    pieces = list(exposition.slices(snapshot))
    assert max(piece.count(b"\n") for piece in pieces) <= exposition.SLICE + 3
    assert b"".join(pieces).count(b"# TYPE sidecar_retries_total ") == 1


def test_the_loop_turns_while_the_text_is_made():
    snapshot = filled((str(number), 1.0) for number in range(150)).snapshot()

    async def scrape() -> int:
        turns = 0
        rendering = asyncio.ensure_future(exposition.render_gently(snapshot))
        while not rendering.done():
            await asyncio.sleep(0)
            turns += 1
        assert rendering.result() == exposition.render(snapshot)
        return turns

    assert asyncio.run(scrape()) > 20


def test_a_parser_reads_back_counters_gauges_and_cumulative_buckets():
    registry = Registry()
    registry.cell(series.REQUESTS, "in", 'a"b\\c\nd', "app", "GET", "200", "ok").value = 5
    lag = registry.cell(series.EVENT_LOOP_LAG)
    for seconds in (0.0001, 0.003, 100.0):
        lag.observe(seconds)
    text = exposition.render(registry.snapshot()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (requests,) = families["sidecar_requests"].samples
    assert (requests.labels["route"], requests.value) == ('a"b\\c\nd', 5)
    buckets = {
        one.labels["le"]: one.value
        for one in families["sidecar_event_loop_lag_seconds"].samples
        if one.name.endswith("_bucket")
    }
    assert (buckets["0.0005"], buckets["0.005"], buckets["5.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    openmetrics = exposition.render(registry.snapshot(), as_openmetrics=True).decode()
    assert {family.name for family in parse_openmetrics(openmetrics)} == set(families)


def test_openmetrics_is_chosen_only_when_asked_for():
    assert exposition.wants_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2")
    assert not exposition.wants_openmetrics("text/plain")
    assert not exposition.wants_openmetrics("")
