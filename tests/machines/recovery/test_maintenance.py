"""Maintenance windows: when people are at work."""

from datetime import UTC, datetime

import pytest

from sidecar.config.recovery import Maintenance
from sidecar.machines.recovery.maintenance import end_of_maintenance

HOUR = 3600.0


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-28 01:59", None),
        ("2026-11-28 02:00", "2026-11-28 04:00"),
        ("2026-11-28 03:59:59", "2026-11-28 04:00"),
        ("2026-11-28 04:00", None),
        ("2026-11-27 03:00", None),
    ],
)
def test_a_window_of_a_saturday(now, end):
    window = Maintenance(days=("sat",), start="02:00", lasts=2 * HOUR)
    assert end_of_maintenance([window], at(now)) == (None if end is None else at(end))


def test_it_reaches_past_midnight_and_belongs_to_the_day_on_which_it_began():
    window = Maintenance(days=("sun",), start="23:00", lasts=3 * HOUR)
    assert end_of_maintenance([window], at("2026-11-30 01:30")) == at("2026-11-30 02:00")
    assert end_of_maintenance([window], at("2026-11-29 01:30")) is None


def test_it_may_last_longer_than_a_day():
    window = Maintenance(days=("fri",), start="18:00", lasts=60 * HOUR)
    assert end_of_maintenance([window], at("2026-11-30 05:59")) == at("2026-11-30 06:00")
    assert end_of_maintenance([window], at("2026-11-30 06:00")) is None


def test_of_several_the_latest_end_counts():
    daily = Maintenance(start="02:00", lasts=HOUR)
    longer = Maintenance(start="02:30", lasts=HOUR)
    assert end_of_maintenance([longer, daily], at("2026-11-25 02:45")) == at("2026-11-25 03:30")
    assert end_of_maintenance([], at("2026-11-25 02:45")) is None
