"""What rules see, through the real program: each detector's fault is made, and its rule's webhook tells of it."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream, says
from tests.fakes.wire import Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import Sidecar, ask
from tests.real.test_recovery import PATIENCE, wait_stage
from tests.real.test_supervised import SERVICE

MIB = 1 << 20


class Watched:
    """A proxy with a rule for each detector, and the door at which they knock."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.hooks = stack.enter_context(ScriptedUpstream()).otherwise(says(b"ok"))
        self.failing = stack.enter_context(ScriptedUpstream()).otherwise(says(b"", "500 Internal Server Error"))
        self.database = stack.enter_context(ScriptedUpstream())
        self.cgroup = directory / "cgroup"
        self.cgroup.mkdir()
        self.memory(50)
        port = free_port()
        conditions: dict[str, dict[str, Any]] = {
            "breaker": {"upstream": "payments"},
            "dependency": {"dependency": "db"},
            "crashes": {"crashes": {"count": 2, "within": "10m"}},
            "lag": {"event_loop_lag": "80ms"},
            "memory": {"memory": {"above": 0.9, "cgroup": str(self.cgroup)}},
            "agent": {"agent": {"condition": "replication_behind"}},
        }
        tree = document(
            [listener("in", [route("pay", "payments", "/pay"), route("all", "app")])],
            [
                upstream("app", f"127.0.0.1:{port}"),
                upstream("payments", self.failing.address, breaker={"consecutive_failures": 3}),
            ],
            dependencies=[
                {
                    "name": "db",
                    "check": {"tcp": {"address": self.database.address}},
                    "interval": "200ms",
                    "timeout": "200ms",
                    "unhealthy_after": 1,
                }
            ],
            recovery=[
                {
                    "name": name,
                    "when": {**when, "unhealthy_for": "50ms"},
                    "do": {"webhook": {"url": f"http://{self.hooks.address}/{name}"}},
                }
                for name, when in conditions.items()
            ],
        )
        command = [sys.executable, "-S", str(SERVICE), str(port), str(directory)]
        self.proxy = stack.enter_context(Sidecar(tree, command=command))

    def memory(self, used: int, *, idle_files: int = 0) -> None:
        """The control group's figures as the kernel writes them, of 100 MiB."""
        (self.cgroup / "memory.max").write_text(f"{100 * MIB}\n")
        (self.cgroup / "memory.stat").write_text(f"anon {MIB}\ninactive_file {idle_files * MIB}\nactive_file 0\n")
        (self.cgroup / "memory.current").write_text(f"{used * MIB}\n")

    def told(self, name: str) -> str:
        """What the rule's webhook is told, once it is."""
        self.proxy.wait_until(
            lambda: any(one.body for one in self.hooks.requests(f"/{name}")), f"the webhook of {name}", PATIENCE
        )
        return str(json.loads(self.hooks.requests(f"/{name}")[0].body)["why"])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        yield Watched(tmp_path_factory.mktemp("watched"), stack)


def test_a_breaker_that_opens_is_seen(watched: Watched) -> None:
    for _ in range(3):
        watched.proxy.get("in", "/pay")
    assert "its breaker is open" in watched.told("breaker")


def test_a_dependency_that_goes_is_seen(watched: Watched) -> None:
    assert watched.hooks.requests("/dependency") == []
    watched.database.stop()
    assert "refused" in watched.told("dependency")
    assert wait_stage(watched.proxy, "proving", "waiting", name="dependency")["watches"] == "dependency db"


def test_deaths_are_counted(watched: Watched) -> None:
    for death in (1, 2):
        watched.proxy.wait_until(lambda: watched.proxy.status()["child"]["pid"], "the service", PATIENCE)
        os.kill(watched.proxy.status()["child"]["pid"], signal.SIGKILL)
        watched.proxy.wait_until(
            lambda seen=death: watched.proxy.log.count('"child_died"') >= seen, "its death", PATIENCE
        )
    assert watched.told("crashes") == "died 2 times within 10m"


def test_a_late_event_loop_is_seen(watched: Watched) -> None:
    watched.proxy.signal(signal.SIGSTOP)  # as a starved container is
    time.sleep(1.5)
    watched.proxy.signal(signal.SIGCONT)
    assert "the event loop is" in watched.told("lag")


def test_memory_that_runs_out_is_seen(watched: Watched) -> None:
    watched.memory(95)
    assert watched.told("memory") == "95 of 100 MiB used (95%)"


def test_what_the_agent_reports_is_seen(watched: Watched) -> None:
    reported = [
        {"kind": "agent_condition", "subject": "db", "reason": "rpo_missed", "level": "error"},
        {
            "kind": "agent_condition",
            "subject": "db",
            "reason": "replication_behind",
            "detail": "40 s",
            "level": "error",
        },
    ]
    with Wire(socket.socket(socket.AF_UNIX)) as wire:
        wire.sock.connect(watched.proxy.socket_path)
        wire.send(ask("/api/v1/happenings", method="POST", body=json.dumps(reported).encode()))
        assert wire.read_answer("POST").status == 200
    assert watched.told("agent") == "replication_behind of db: 40 s"
