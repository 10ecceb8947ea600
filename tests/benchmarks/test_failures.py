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
        "changes": [
            (10.005, "closed", "open", "5 failures in a row"),
            (11.005, "open", "half_open", ""),
            (11.006, "half_open", "open", "a trial call failed"),
        ],
        **changed,
    }
    return Storm(**told)


def test_the_figures_are_those_of_the_story():
    figures = outcome(seen())
    assert (figures.seen.requests, figures.seen.good) == (9, 2)
    assert figures.refusals.count == 2
    assert figures.refusals.within_5ms_share == 0.5
    detection = figures.detections[0]
    assert (detection.failures, detection.reached, detection.let_through) == (5, 5, 0)
    assert detection.opened_after_ms == pytest.approx(6.0)
    assert figures.trials == 1
    assert figures.touched_while_open == 0, "the trial came while it was half open"


def test_a_request_that_slips_through_an_open_breaker_is_counted():
    assert outcome(seen(arrivals=[10.5])).touched_while_open == 1
    assert outcome(seen(arrivals=[12.9])).touched_while_open == 1, "the last open period has no end"


def verdicts(storm: Storm) -> set[bool]:
    """Of the row about detection."""
    report = Report({"cpu": "one"}, 1000, 1, 1, without=outcome(storm))
    return {row.met for row in rows(report) if "5th failure" in row.what}


def test_what_was_on_its_way_may_fail_and_nothing_else():
    assert verdicts(seen()) == {True}
    assert verdicts(seen(answers=[*SEEN, (10.004, 10.0055, "503")])) == {True}, "sent before it opened"
    assert verdicts(seen(answers=[*SEEN, (10.5, 10.501, "503")])) == {False}, "sent while it was open"
    assert verdicts(seen(answers=[*SEEN, (11.005, 11.006, "503")])) == {True}, "the trial call"


def test_a_breaker_that_opens_for_another_reason_or_never_is_not_within():
    assert verdicts(seen(changes=[(10.005, "closed", "open", "20 of 40 calls failed")])) == {False}
    never = [answer for answer in SEEN if answer[2] != REFUSED]
    report = Report({}, 1000, 1, 1, without=outcome(seen(answers=never, changes=[])))
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
    assert {one.why for one in figures.detections} == {"5 failures in a row"}
    assert {one.let_through for one in figures.detections} == {0}
    assert figures.touched_while_open == 0
    report = Report({}, 100, 4.0, 1.0, without=figures, decisions=decisions([told]))
    assert "refusals answered" in table(report)
