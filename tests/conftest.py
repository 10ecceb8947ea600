"""What every test may use. The fixtures of one concern stand in the conftest beside its tests.

`make test` runs the tests of two files at a time (pytest-xdist, `-n auto --dist loadfile`). A test that is marked
`alone` has the machine to itself: it waits until the other process is between two tests, and holds it there.
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

# The programs that the tests start by the hundreds are compiled once, also where the environment forbids to keep that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell lets what it runs in the background ignore these two, and every process that we start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# How long an example takes on a busy machine is no property of what is tested.
settings.register_profile("no-clock", deadline=None)
settings.load_profile("no-clock")


# -------------------------------------------------------------------------------------------- processes
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two; for the tests of one file none beside this one, which has them done before another has started."""
    files = {one.partition("::")[0] for one in config.args}
    return 2 if len(files) > 1 or any(map(os.path.isdir, files)) else 0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around everything that a test does, and before its time begins to count."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with _room(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _room(*, alone: bool) -> Iterator[None]:
    """A room for many or for one. Everybody comes in through one door, so that who waits for an empty room gets it."""
    with contextlib.ExitStack() as stack:
        door, room = (os.open(path, os.O_RDONLY) for path in (__file__, os.path.dirname(__file__)))
        stack.callback(os.close, door)
        stack.callback(os.close, room)
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        stack.callback(fcntl.flock, room, fcntl.LOCK_UN)  # whoever was forked meanwhile has the lock, too
        yield
