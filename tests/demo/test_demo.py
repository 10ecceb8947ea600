"""`make demo` as a user meets it: it starts, something happens, Ctrl-C ends all of it."""

import io
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.demo.teller import Teller

PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Demo:
    """A running demo, its ports, and what it has said so far."""

    def __init__(self, state: Path, *, port: int | None = None, fault_every: float = 3600.0) -> None:
        self.state = state
        self.port, self.admin_port = port or free_port(), free_port()
        places = ["--port", str(self.port), "--admin-port", str(self.admin_port), "--state", str(state)]
        pace = ["--fault-every", str(fault_every), "--summary-every", "0.5"]
        command = [sys.executable, "-m", "sidecar.demo", *places, *pace]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said: list[str] = []
        self.unread = b""

    def until(self, *words: str) -> str:
        """The next line with all of `words`."""
        deadline = time.monotonic() + PATIENCE
        output = self.process.stdout.fileno()
        while time.monotonic() < deadline:
            line, newline, rest = self.unread.partition(b"\n")
            if newline:
                self.unread = rest
                self.said.append(line.decode())
                if all(word in self.said[-1] for word in words):
                    return self.said[-1]
            elif select.select([output], [], [], 0.1)[0]:
                piece = os.read(output, 65536)
                if not piece:
                    break
                self.unread += piece
        said = "\n".join(self.said)
        raise AssertionError(f"never said {words}:\n{said}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(self.state.glob("*.log")))

    def children(self) -> set[int]:
        """Processes whose command line names this demo's state."""
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in {os.getpid(), self.process.pid}:
                try:
                    if str(self.state).encode() in (entry / "cmdline").read_bytes():
                        found.add(int(entry.name))
                except OSError:
                    continue  # it ended while we looked
        return found

    def ended(self) -> int:
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts a demo; whatever the test does, nothing of it is left."""
    demos: list[Demo] = []

    def start(**settings: float) -> Demo:
        demos.append(Demo(tmp_path / "demo", **settings))
        return demos[-1]

    yield start
    for demo in demos:
        demo.process.kill()
        demo.process.communicate()
        for pid in demo.children():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_it_serves_and_ends_without_leaving_anything_behind(start, number: signal.Signals):
    demo = start()
    demo.until("backup", "proved by restoring a sample")
    demo.until("drill", "a backup was restored and asked")
    demo.until("rpo", "a disaster now would lose", "180 s are allowed")
    assert any("rpo" in line and "sidecar_backup_rpo_seconds" in line for line in demo.said)
    assert any("traffic" in line and "200 ×" in line for line in demo.said)
    assert httpx.get(f"http://127.0.0.1:{demo.port}/orders", trust_env=False).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{demo.admin_port}/readyz", trust_env=False).status_code == 200
    assert len(demo.children()) == 5, "two shops, the warehouse, the proxy and its agent"

    demo.process.send_signal(number)
    demo.until("ended")
    assert demo.ended() == 0
    assert demo.children() == set()


def test_each_fault_is_told_and_cured(start):
    demo = start(fault_every=0.5)
    demo.until("fault", "one of the two shops is killed")
    demo.until("health", "is unhealthy", "/api/v1/health")
    demo.until("cured")
    demo.until("fault", "both shops are killed")
    demo.until("customers now get", "from the proxy: fallback")
    demo.until("breaker", "opens", "/api/v1/breakers")
    demo.until("cured")
    demo.until("served", "by the shops again", "fallback")
    assert sum("/api/v1/breakers" in line for line in demo.said) == 1, "an address is told once"
    demo.until("breaker", "closes: 3 trial calls succeeded")
    assert any("is half open: a few trial calls" in line for line in demo.said), "every change has its sentence"
    assert any("incident  " in line and " is detected: " in line for line in demo.said)
    assert not any("breaker_changed" in line for line in demo.said)
    demo.until("fault", "the warehouse hangs")
    demo.until("recovery", "restart-warehouse acts", "SIGSTOP")
    demo.until("recovery", "the warehouse is process", "start 2")
    demo.until("attack")
    demo.until("400", "1 answer")
    demo.until("traffic", "200 ×")


def test_its_children_do_not_outlive_a_killed_demo(start):
    demo = start()
    demo.until("traffic")
    assert demo.children()
    demo.process.kill()
    deadline = time.monotonic() + PATIENCE
    while demo.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert demo.children() == set()


def test_a_taken_port_is_an_error_that_says_what_to_do(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start(port=port)
        _, complaint = demo.process.communicate(timeout=PATIENCE)
        assert demo.process.returncode == 1
        assert f"127.0.0.1:{port} is taken" in complaint.decode()
        assert "--port" in complaint.decode()
        assert demo.children() == set()


def test_a_terminal_gets_lines_of_its_width_and_a_file_whole_ones(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    line = "breaker   of shops opens: 5 failures in a row; the shops are left alone for some seconds"
    terminal, file = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    for output in (terminal, file):
        tell = Teller(output)
        tell(line, "http://127.0.0.1/")
        tell(line, "http://127.0.0.1/")
    assert max(map(len, terminal.getvalue().splitlines())) <= 60
    assert terminal.getvalue().splitlines()[1].startswith(" " * 20 + "shops are left")
    assert [said[10:] for said in file.getvalue().splitlines()] == [f"{line}   http://127.0.0.1/", line]
