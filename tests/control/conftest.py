"""Admin interfaces that run while a test does."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from sidecar.config.document import Admin as AdminConfig
from sidecar.config.document import Probes
from tests.fakes.admin import Running, running

Start = Callable[..., Running]


@pytest.fixture
def start_admin(tmp_path) -> Iterator[Start]:
    """Start any number of admin interfaces; keywords are the configuration's."""
    stack = contextlib.ExitStack()

    def start(**changes) -> Running:
        given = {
            "bind": "127.0.0.1:0",
            "socket": str(tmp_path / "admin.sock"),
            "probes": Probes(bind="127.0.0.1:0"),
        }
        return stack.enter_context(running(AdminConfig(**(given | changes))))

    with stack:
        yield start


@pytest.fixture
def admin(start_admin: Start) -> Running:
    """One admin interface with all three doors."""
    return start_admin()
