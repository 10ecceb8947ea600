"""Retention: every point has its reason, and what must never go never goes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.machines.backup.retention import Kept, Rules, Standing, dispensable, plan

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
RULES = Rules(keep_within=7 * 86_400.0, daily=14, weekly=8, monthly=12)


def point(hours: float, standing: Standing = Standing.VERIFIED, name: str = "", **more) -> Kept:
    return Kept(name or f"{hours:g}h", NOW - timedelta(hours=hours), standing, **more)


def test_a_year_of_hourly_points_shrinks_to_the_rules():
    points = [point(hours) for hours in range(24 * 365)]
    result = plan(points, RULES, NOW)
    assert len(result.keep) + len(result.delete) == len(points)
    within = [why for why in result.keep.values() if why == "younger than keep_within"]
    assert len(within) == 7 * 24  # the newest has a reason of its own
    for name, count in (("day", 7), ("week", 6), ("month", 10)):
        assert abs(sum(f"of its {name}" in why for why in result.keep.values()) - count) <= 1
    assert result.keep["0h"] == "the newest verified point"


def test_the_newest_verified_point_stays_whatever_the_rules_say():
    nothing = Rules(0.0, 0, 0, 0)
    old = point(9000, name="old")
    newer = [point(hours, Standing.UNKNOWN) for hours in range(1, 50)]
    result = plan([old, *newer], nothing, NOW)
    assert result.keep == {"old": "the newest verified point", "1h": "the newest complete point"}


def test_a_held_point_stays_with_its_reason():
    result = plan([point(1), point(90_000, name="release", held="before 2.0")], RULES, NOW)
    assert result.keep["release"] == "held: before 2.0"


def test_a_parent_that_a_kept_point_leans_on_stays_and_its_parent_too():
    chain = [
        point(1, leans_on=frozenset({"mid"})),
        point(20_000, name="mid", leans_on=frozenset({"full"})),
        point(20_001, name="full"),
        point(20_002, name="alone"),
    ]
    result = plan(chain, Rules(3600.0, 1, 0, 0), NOW)
    assert result.keep["mid"] == "1h leans on it"
    assert result.keep["full"] == "mid leans on it"
    assert list(result.delete) == ["alone"]


def test_the_verified_one_stands_for_its_day():
    day = [point(290, Standing.UNKNOWN, "later"), point(292, Standing.VERIFIED, "sure"), point(291, Standing.DAMAGED)]
    result = plan([point(0), *day], Rules(0.0, 10, 0, 0), NOW)
    assert result.keep["sure"] == "the last good one of its day"
    assert set(result.delete) == {"later", "291h"}


def test_incomplete_points_stay_for_a_day():
    result = plan([point(0), point(23, Standing.INCOMPLETE), point(25, Standing.INCOMPLETE)], RULES, NOW)
    assert "incomplete" in result.keep["23h"]
    assert result.delete == {"25h": "incomplete: it can never be restored"}


def test_points_of_the_future_are_young():
    assert "-5h" in plan([point(-5)], RULES, NOW).keep


POINTS = st.lists(
    st.tuples(st.floats(-48.0, 30_000.0), st.sampled_from(Standing), st.booleans(), st.integers(0, 29)), max_size=30
)


@given(POINTS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.floats(0.0, 1e6))
def test_what_must_never_go_never_goes(raw, daily: int, weekly: int, monthly: int, within: float):
    points = [
        point(hours, standing, f"p{number}", held="" if held else None, leans_on=frozenset({f"p{on}"}))
        for number, (hours, standing, held, on) in enumerate(raw)
    ]
    result = plan(points, Rules(within, daily, weekly, monthly), NOW)
    assert set(result.keep) | set(result.delete) == {one.id for one in points}
    assert not set(result.keep) & set(result.delete)
    assert all(one.id in result.keep for one in points if one.held is not None)
    verified = sorted((one for one in points if one.standing is Standing.VERIFIED), key=lambda one: (one.at, one.id))
    assert not verified or verified[-1].id in result.keep
    for one in points:
        if one.id in result.keep and result.keep[one.id] != "incomplete, and young enough to ask why":
            assert not one.leans_on & set(result.delete)
    again = plan([one for one in points if one.id in result.keep], Rules(within, daily, weekly, monthly), NOW)
    assert not again.delete, "a second look deletes nothing more"


def test_the_newest_is_the_one_that_was_made_last_not_the_one_with_the_latest_date():
    """A clock that was set an hour back must not let the newest backup go."""
    nothing = Rules(0.0, 0, 0, 0)
    points = [point(1, name="before", order=1), point(2, name="after the clock went back", order=2)]
    assert plan(points, nothing, NOW).keep == {"after the clock went back": "the newest verified point"}
    assert dispensable(points, "before") == ""
    assert dispensable(points, "after the clock went back") == "the newest verified point"
