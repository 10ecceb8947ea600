"""The newest verified point's age, while the wall clock is set about."""

from sidecar.machines.backup.point_age import PointAge


def test_nobody_knows_the_age_of_what_is_not_there():
    age = PointAge()
    assert age.age(5.0) is None
    age.seen(None, 0.0, wall=1000.0, now=5.0)
    assert age.age(6.0) is None


def test_what_this_process_made_grows_older_with_its_own_clock():
    age = PointAge()
    age.made("a", date=1000.0, since=50.0)
    for wall in (1000.0, 1000.0 + 3600, 1000.0 - 3600):
        age.seen("a", 1000.0, wall=wall, now=60.0)
        assert age.age(70.0) == 20.0


def test_what_was_there_before_is_as_old_as_the_wall_clock_says_once():
    age = PointAge()
    age.seen("a", 1000.0, wall=1300.0, now=10.0)
    assert age.age(10.0) == 300.0
    age.seen("a", 1000.0, wall=1000.0, now=20.0)
    assert age.age(20.0) == 310.0


def test_a_point_from_the_future_has_no_age_until_the_next_one():
    age = PointAge()
    age.seen("a", 9000.0, wall=1300.0, now=10.0)
    assert age.age(10.0) is None
    age.made("b", 1300.0, 15.0)
    assert age.age(16.0) == 1.0
    age.seen("a", 1298.0, wall=1300.0, now=20.0)
    assert age.age(20.0) == 2.0


def test_a_point_that_went_is_no_longer_counted():
    age = PointAge()
    age.made("a", 1000.0, 50.0)
    age.seen(None, 0.0, wall=0.0, now=60.0)
    assert (age.age(60.0), age.date, age.point) == (None, None, None)
