"""The benchmark of failures: its arithmetic by pencil and paper, and one short storm over the real proxy."""

import shutil
from pathlib import Path

import pytest

from benchmarks.failures.report import Report, rows, table
from benchmarks.failures.storm import KINDS, Fault, Storm, storm
from benchmarks.failures.tally import REFUSED, decisions, outcome

FAULT = Fault("errors", 10.0, 13.0)
SEEN = [
    (9.999, 9.9995, "200"),
    *[(10.0 + step / 1000, 10.001 + step / 1000, "503") for step in range(5)],
    (10.005, 10.006, REFUSED),
    (10.006, 10.016, REFUSED),
    (13.5, 13.501, "200 fallback_upstream"),
]


def seen(**changed: object) -> Storm:
    told = {
        "answers": SEEN,
        "faults": [FAULT],
        "arrivals": [10.0005 + step / 1000 for step in range(5)] + [11.0051],
        "changes": [(10.005, "closed", "open"), (11.005, "open", "half_open"), (11.006, "half_open", "open")],
        **changed,
    }
    return Storm(**told)


def test_the_figures_are_those_of_the_story():
    figures = outcome(seen())
    assert (figures.seen.requests, figures.seen.good) == (9, 2)
    assert figures.refusals.count == 2
    assert figures.refusals.within_5ms_share == 0.5
    detection = figures.detections[0]
    assert (detection.failures_before, detection.reached) == (5, 5)
    assert detection.opened_after_ms == pytest.approx(6.0)
    assert figures.trials == 1
    assert figures.touched_while_open == 0, "the trial came while it was half open"


def test_a_request_that_slips_through_an_open_breaker_is_counted():
    assert outcome(seen(arrivals=[10.5])).touched_while_open == 1
    assert outcome(seen(arrivals=[12.9])).touched_while_open == 1, "the last open period has no end"


def test_a_breaker_that_opens_late_or_never_is_not_within():
    machine = {"cpu": "one"}
    late = [answer for answer in SEEN if answer[2] != REFUSED]
    for answers in ([*late, (12.0, 12.001, "503"), (12.1, 12.101, "503"), (12.2, 12.201, REFUSED)], late):
        report = Report(machine, 1000, 1, 1, without=outcome(seen(answers=answers, closed_at_last=True)))
        assert not all(row.met for row in rows(report))


def test_quantiles_are_bounds_over_all_storms():
    halves = [
        seen(decisions={1e-6: 10.0, 1e-5: 90.0, float("inf"): 100.0}),
        seen(decisions={1e-6: 100.0, float("inf"): 100.0}),
    ]
    found = decisions(halves)
    assert (found.count, found.p50_us, found.p999_us) == (200, pytest.approx(1.0), float("inf"))


@pytest.mark.timeout(60)
@pytest.mark.skipif(not shutil.which("taskset"), reason="benchmarks/install.sh was not run")
def test_a_short_storm_over_the_real_proxy(tmp_path: Path):
    told = storm(tmp_path / "storm", rate=100, seconds=4.0, faults=len(KINDS) - 1, fallback=False, open_for=0.3)
    figures = outcome(told)
    assert figures.seen.requests == 400
    assert figures.refusals.count > 0
    assert [one.kind for one in figures.detections] == list(KINDS[:-1])
    assert all(5 <= one.failures_before <= 6 for one in figures.detections)
    assert figures.touched_while_open == 0
    report = Report({}, 100, 4.0, 1.0, without=figures, decisions=decisions([told]))
    assert "refusals answered" in table(report)
