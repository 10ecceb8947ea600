"""The upgrades' benchmark tells what failed, and still runs."""

import pytest

from benchmarks.upgrade import Figure, Report, measure, table


def test_what_failed_and_what_did_not_come_about_is_told() -> None:
    figure = Figure(2, 12, 1, 120_000, 3, {"reset": 3}, 40, 1.4, 300.0, 2_000.0, 90_000.0)
    row = table(Report({}, 2000.0, 60.0, [figure])).splitlines()[-1]
    for told in ("2", "12", "120,000", "3", "1.4"):
        assert told in row


@pytest.mark.slow
def test_it_measures() -> None:
    figure = measure(1, 200.0, 4.0, 1.0)
    assert figure.upgrades >= 1 and figure.sent > 400
    assert (figure.failed, figure.refused) == (0, 0)
