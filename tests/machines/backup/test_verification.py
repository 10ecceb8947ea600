"""Reading again what is stored, a part at a time, and what is offered when something is bad."""

import pytest

from sidecar.machines.backup.verification import Candidate, ReadTurn, offer

DAY = 86_400.0


def test_every_part_has_its_turn_and_then_the_first_again():
    turn, now, read = ReadTurn(DAY, 3, 0.0), 0.0, []
    for _ in range(4):
        now = turn.due_at
        assert turn.due(now)
        read.append(turn.part)
        turn.done(now + 60.0, read=True)
        assert not turn.due(now + 60.0)
    assert read == [1, 2, 3, 1]


def test_a_part_that_could_not_be_read_comes_again_soon():
    turn = ReadTurn(DAY, 3, 0.0)
    turn.done(DAY, read=False)
    assert turn.part == 1
    assert turn.due_at == pytest.approx(1.1 * DAY)


def test_a_restart_goes_on_with_the_next_part():
    turn = ReadTurn(DAY, 7, 1000.0, (7, 3600.0))
    assert (turn.part, turn.due_at) == (1, 1000.0 + DAY - 3600.0)
    assert ReadTurn(DAY, 7, 1000.0, (3, 9 * DAY)).due(1000.0), "it was down for days"
    assert ReadTurn(DAY, 2, 1000.0, (6, 0.0)).part == 1, "there are fewer parts than there were"


def test_the_next_older_good_point_is_offered():
    points = [
        Candidate("newest", verified=True, whole=True),
        Candidate("unverified", verified=False, whole=True),
        Candidate("leans", verified=True, whole=False),
        Candidate("sound", verified=True, whole=True),
    ]
    assert offer(points, {"newest"}) == "sound"
    assert offer(points, ()) == "newest"
    assert offer(points, {"newest", "sound"}) is None
