"""Two processes run the tests: whoever is marked `alone` shares the machine with none, all others with each other."""

import fcntl
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process: everybody is alone")


def is_free(kind: int) -> bool:
    """Whether another process would be let in now."""
    room = os.open(Path(__file__).parents[1], os.O_RDONLY)
    try:
        fcntl.flock(room, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(room)
    return True


@pytest.mark.alone
def test_who_is_alone_lets_nobody_in() -> None:
    assert not is_free(fcntl.LOCK_SH)


def test_others_let_in_all_but_one_that_would_be_alone() -> None:
    assert not is_free(fcntl.LOCK_EX)
    assert is_free(fcntl.LOCK_SH)
