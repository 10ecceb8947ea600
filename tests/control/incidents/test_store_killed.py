"""A process that writes incidents is killed at any moment: what it was told to be written is there."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.control.incidents.test_store import held

WRITER = """
import asyncio, sys
from sidecar.control.incidents.ledger import Batch
from sidecar.control.incidents.store import Store
from sidecar.machines.incidents.incident import Condition, Severity
from sidecar.machines.incidents.book import IncidentBook

async def main():
    store, book = Store(sys.argv[1]), IncidentBook("shop", "one", lambda now: f"i{now:g}")
    await store.load(0, 0)
    for number in range(10**6):
        changes = book.hold(Condition("failing", f"app-{number}", "key", Severity.ERROR, "down"), float(number))
        changes += book.clear("failing", f"app-{number}", "key", float(number))
        one = changes[0].incident
        await store.write(Batch({one.id: one}, [(one.id, change.number, change.entry) for change in changes]))
        print(number, flush=True)
        book = IncidentBook("shop", "one", lambda now: f"i{now:g}")

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
def test_what_was_committed_survives(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "incidents.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(random.Random(seed).uniform(0.01, 0.2))
        process.send_signal(signal.SIGKILL)
        committed = [0, *map(int, process.stdout.read().split("\n")[:-1])]
    found = held(path)
    assert found.set_aside == ""
    assert {f"i{number:g}" for number in committed} <= {one.id for one, _ in found.incidents}
    assert all(len(timeline) == one.entries == 2 for one, timeline in found.incidents), "all of it, or nothing"
