"""As process 1 of a container, which is a process unlike others: what it does not handle does not reach it, and whoever
loses its parent becomes its child. In a real PID namespace.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.real.documents import document, listener, route, upstream
from tests.real.harness import Sidecar, ask
from tests.real.load import Load
from tests.real.procfs import children_of

ROOT_USER = () if os.geteuid() == 0 else ("--user", "--map-root-user")
NAMESPACE = ("unshare", *ROOT_USER, "--pid", "--fork", "--mount-proc", "--kill-child")


def tree(server: ScriptedUpstream, workers: int = 1) -> dict[str, Any]:
    return document([listener("in", [route("all", "app")])], [upstream("app", server.address)], workers=workers)


class Contained(Sidecar):
    """A sidecar that is process 1 of its own namespace."""

    def __init__(self, config: dict[str, Any], **options: Any) -> None:
        super().__init__(config, prefix=NAMESPACE, **options)

    @property
    def init(self) -> int:
        """Its process as it is seen from here."""
        (found,) = children_of(self.process.pid)
        return found

    def signal(self, number: int) -> None:
        os.kill(self.init, number)

    def enter(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace, as `kubectl exec` does."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        return subprocess.run(["nsenter", "--target", str(self.init), "--pid", *user, "--", *words],
                              capture_output=True, text=True, check=False, timeout=20)  # fmt: skip


@pytest.fixture(params=[1, 2], ids=["alone", "with workers"])
def one(request: pytest.FixtureRequest, server: ScriptedUpstream) -> Iterator[Contained]:
    with Contained(tree(server, request.param)) as running:
        yield running


def test_it_is_process_1_serves_and_ends_when_told(one: Contained) -> None:
    assert one.status()["pid"] == 1
    with Load(one.port("in"), 2) as load:
        load.go_on_for(30)
        load.may_leave = True
        one.signal(signal.SIGTERM)
        assert one.wait_exit() == 0
    assert load.failures == []


def test_a_word_from_inside_ends_it_too(one: Contained) -> None:
    """From inside the namespace the kernel passes on only what process 1 handles."""
    assert one.enter("kill", "-TERM", "1").returncode == 0
    assert one.wait_exit() == 0


def test_a_stop_while_it_starts_is_not_lost(server: ScriptedUpstream) -> None:
    """A pod may be taken away at any moment. What has no handler yet would not even be noticed by process 1."""
    for pause in (0.0, 0.1, 0.2):
        with Contained(tree(server), ready=False) as early:
            early.wait_until(lambda at=early: children_of(at.process.pid), "process 1")
            early.wait_until(lambda at=early: _handles_sigterm(at.init), "it listens")
            time.sleep(pause)
            early.signal(signal.SIGTERM)
            early.exit_code = early.wait_exit()
            assert early.exit_code in {0, 128 + signal.SIGTERM}


def _handles_sigterm(pid: int) -> bool:
    """Whether it has a handler, by the kernel's account."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_orphans_are_buried(one: Contained) -> None:
    """What `kubectl exec` leaves behind, for instance."""
    assert one.enter("sh", "-c", "for n in 1 2 3; do sleep 0.05 & done").returncode == 0
    workers = len(one.status()["worker_pids"])
    one.wait_until(lambda: len(children_of(one.init)) == workers, "nobody but the workers")


def test_its_end_ends_all(server: ScriptedUpstream) -> None:
    """Killed, it takes the namespace along, workers and service: nobody serves behind the kubelet's back."""
    with Contained(tree(server, 2), exit_code=128 + signal.SIGKILL) as killed:
        workers = children_of(killed.init)
        assert len(workers) == 2
        killed.signal(signal.SIGKILL)
        killed.exit_code = killed.wait_exit()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_it_is_not_taken_over(one: Contained) -> None:
    done = one.command("upgrade", check=False)
    assert (done.returncode, "is process 1" in done.stderr) == (1, True)
    with one.client("in") as client:
        assert client.send(ask("/")).read_answer().status == 200
