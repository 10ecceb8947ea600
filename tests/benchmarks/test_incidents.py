"""What the incidents' benchmark makes of its trials."""

from benchmarks.incidents import PATIENCE, Flapping, Report, Trial, met, row, table


def test_what_never_came_counts_as_late() -> None:
    found = row("killed", [*[Trial(0.1, 0.2)] * 9, Trial(PATIENCE, PATIENCE)])
    assert (found.detected_median, found.detected_max, found.told_p95) == (0.1, PATIENCE, PATIENCE)
    assert not met(Report({}, 1, [found], None))


def test_flapping_must_be_one_incident_and_few_notices() -> None:
    def report(incidents: int, notices: int) -> Report:
        flapping = Flapping(50, 10.0, incidents, 49, ["opened"] * notices)
        return Report({}, 1, [row("sick", [Trial(0.1, 0.2)])], flapping)

    assert met(report(1, 5)) and not met(report(2, 5)) and not met(report(1, 6))
    assert "50 flaps in 10 min: 1 incident(s), 49 relapses, 2 notice(s)" in table(report(1, 2))
