"""As a service of systemd: what the program says to the service manager, over a real notification socket."""

import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import PATIENCE
from tests.real.documents import both_codecs, route, upstream
from tests.real.harness import ROOT, Sidecar


class Manager:
    """The service manager's end of the socket. It reads all the time, as the real one: the kernel keeps only a few."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while said := self.socket.recv(4096):
            self._said.put(said.decode())

    def wait_for(self, word: str) -> dict[str, str]:
        """The next datagram that says `word`, whatever comes before it."""
        while True:
            said = dict(line.split("=", 1) for line in self._said.get(timeout=PATIENCE).splitlines())
            if word in said:
                return said

    def silent_for(self, seconds: float) -> bool:
        """Whether nobody says anything meanwhile."""
        try:
            self._said.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RD)
        self._reader.join()
        self.socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    name = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "file" else f"@{name}")
    manager = Manager(name if request.param == "file" else f"\0{name}")
    yield manager
    manager.close()


def config() -> dict[str, object]:
    return both_codecs([route("all", "app")], [upstream("app", "127.0.0.1:9")])


def test_ready_alive_reloading_stopping(manager: Manager, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with Sidecar(config()) as proxy:
        assert manager.wait_for("READY")["READY"] == "1"
        assert proxy.probe("/readyz") == 200
        for _ in range(3):
            manager.wait_for("WATCHDOG")
        proxy.command("reload")
        assert int(manager.wait_for("RELOADING")["MONOTONIC_USEC"]) > 0
        manager.wait_for("READY")
        proxy.signal(signal.SIGTERM)
        manager.wait_for("STOPPING")
        proxy.wait_exit()


def test_a_failed_reload_ends_too_and_says_so(manager: Manager):
    with Sidecar(config()) as proxy:
        manager.wait_for("READY")
        proxy.write_text("version: 1\nlisteners: 7\n")
        proxy.command("reload", check=False)
        manager.wait_for("RELOADING")
        assert "failed" in manager.wait_for("READY")["STATUS"]


def test_a_loop_that_does_not_turn_gives_no_sign(manager: Manager, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with Sidecar(config()) as proxy:
        manager.wait_for("WATCHDOG")
        proxy.signal(signal.SIGSTOP)
        try:
            assert any(manager.silent_for(0.5) for _ in range(10)), "it said some before the stop, no more"
        finally:
            proxy.signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG")


def test_who_is_started_by_us_does_not_speak_for_us(manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    seen = tmp_path / "environment"
    script = f"import os, time; open({str(seen)!r}, 'w').write(chr(10).join(os.environ)); time.sleep(60)"
    with Sidecar(config(), command=[sys.executable, "-c", script]) as proxy:
        proxy.wait_until(lambda: seen.exists() and seen.read_text(), "the service's environment")
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(seen.read_text().split())


def test_without_a_manager_nothing_is_missing():
    with (
        ScriptedUpstream() as server,
        Sidecar(both_codecs([route("all", "app")], [upstream("app", server.address)])) as proxy,
    ):
        assert proxy.get("fast").status == 200


@pytest.mark.parametrize("unit", sorted((ROOT / "config/systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_are_what_systemd_understands(unit: Path, tmp_path: Path):
    """With the program's path replaced by one that exists, as systemd insists on that too."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/local/bin/sidecar", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
