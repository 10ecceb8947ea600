"""A stop that comes while dead workers are being replaced."""

import os
import signal

import pytest

from tests.real.harness import Sidecar
from tests.real.test_workers import config, own  # noqa: F401


@pytest.mark.parametrize("round_", range(4))
def test_a_stop_while_workers_are_being_replaced(own: Sidecar, round_: int) -> None:  # noqa: F811
    """It ends at once and without a word of complaint, whether the new ones are there yet or not."""
    for pid in own.status()["worker_pids"]:
        os.kill(pid, signal.SIGKILL)
    if round_ % 2:
        assert own.get("in", "/").status == 200
    own.signal(signal.SIGTERM)
    assert own.wait_exit(4) == 0
