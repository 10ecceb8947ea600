"""The page's benchmark says what is too much, and still runs."""

import msgspec
import pytest

from benchmarks.page import Report, measure, met, table

GOOD = Report({}, 11, 60_000, 0.2, 0.05, 0.002, 0.001, 0.05)


@pytest.mark.parametrize(
    "bad",
    [{"payload_bytes": 150_001}, {"first_paint_seconds": 1.1}, {"fault_shown_seconds": 1.1}, {"cpu_per_viewer": 0.011}],
)
def test_one_figure_too_large_is_one_too_many(bad: dict[str, float]) -> None:
    assert met(GOOD)
    assert not met(msgspec.structs.replace(GOOD, **bad))
    assert "| payload, 11 upstreams, 1 endpoint each | 60 kB | 150 kB |" in table(GOOD)


@pytest.mark.slow
@pytest.mark.browser
def test_it_measures() -> None:
    found = measure(seconds=0.2, loads=1, upstreams=2, endpoints=2)
    assert 10_000 < found.payload_bytes <= 150_000
    assert found.first_paint_seconds > 0 and found.fault_shown_seconds > 0
