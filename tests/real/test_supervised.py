"""`sidecar run -c FILE -- COMMAND`: the service process is started, started again, and ended after its last request.

Each test leaves its directory's name in the environment of the processes that it starts; whoever still carries it when
the proxy has ended was left behind.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.wire import PATIENCE, Wire
from tests.real.documents import document, free_port, listener, route, upstream
from tests.real.harness import ROOT, Sidecar, ask, run_cli
from tests.real.procfs import children_of, rss_of
from tests.real.test_stop import Held, refuses

SERVICE = ROOT / "tests" / "fakes" / "service.py"
ATTEMPTS = "sidecar_recovery_attempts_total"
MARK = "SUPERVISED_TEST"


class Stage:
    """A directory, a port for the service, and the proxy in front of it."""

    def __init__(self, directory: Path, server: ScriptedUpstream, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self._server = server
        self._stack = stack

    def run(self, *habits: str, command: list[str] | None = None, root: Any = None, **options: Any) -> Sidecar:
        """The proxy with the scripted service behind it, or with another command."""
        port = free_port()
        tree = document(
            [listener("in", [route("other", "other", "/other"), route("all", "app")])],
            [upstream("app", f"127.0.0.1:{port}"), upstream("other", self._server.address)],
            **(root or {}),
        )
        script = [sys.executable, "-S", str(SERVICE), str(port), str(self.directory), *habits]
        return self._stack.enter_context(Sidecar(tree, command=command or script, **options))

    def serving(self, proxy: Sidecar, but: int = 0) -> int:
        """The process id that the service answers with, once it is another one than `but`."""
        found = [0]

        def look() -> bool:
            got = proxy.get("in", "/pid")
            found[0] = int(got.body) if got.status == 200 else 0
            return found[0] not in {0, but}

        proxy.wait_until(look, "the service")
        return found[0]

    def held(self, proxy: Sidecar) -> Wire:
        """A client whose request is in the service's hands."""
        client = proxy.client("in").send(ask("/held"))
        proxy.wait_until(lambda: self.noted("held"), "the request")
        return client

    def noted(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / name).read_text()
        return ""


@pytest.fixture
def stage(tmp_path: Path, server: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv(MARK, str(tmp_path))
    with contextlib.ExitStack() as stack:
        yield Stage(tmp_path, server, stack)
    left = marked(tmp_path)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == [], "left behind"


def marked(directory: Path) -> list[int]:
    """Living processes that carry the test's mark, ourselves left out."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def child(proxy: Sidecar) -> Any:
    return proxy.status()["child"]


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


# -------------------------------------------------------------------------------------------------- begin
def test_it_starts_with_our_environment_and_stdio_and_nothing_else_of_ours(stage: Stage) -> None:
    proxy = stage.run(command=["sleep", "1000"])
    about = child(proxy)
    assert (about["state"], about["restarts"], about["last_exit"]) == ("running", 0, None)
    process = Path(f"/proc/{about['pid']}")
    assert sorted(entry.name for entry in (process / "fd").iterdir()) == ["0", "1", "2"]
    assert os.readlink(process / "fd" / "0") == os.devnull
    assert os.readlink(process / "fd" / "1") == os.readlink(process / "fd" / "2") == str(proxy.log_path)
    assert f"{MARK}={stage.directory}".encode() in (process / "environ").read_bytes()
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    ours = ~(0b11 << 31)  # 32 and 33 are glibc's own; under make they come ignored, and no program may set them
    assert {int(status[name], 16) & ours for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}
    assert os.getsid(about["pid"]) == os.getpgid(about["pid"]) == about["pid"]
    assert proxy.log.index('"child_started"') < proxy.log.index('"started"')


def test_its_words_reach_it_unread(stage: Stage) -> None:
    proxy = stage.run(command=["sh", "-c", 'echo "$@"; sleep 1000', "sh", "--config", "-c", "--", "-x"])
    proxy.wait_log(r"(?m)^--config -c -- -x$")


def test_without_a_command_there_is_no_child(stage: Stage) -> None:
    tree = document([listener("in", [route("all", "app")])], [upstream("app", "127.0.0.1:1")])
    with Sidecar(tree) as proxy:
        assert child(proxy) is None
        assert ATTEMPTS not in proxy.metrics().text


@pytest.mark.parametrize(
    ("command", "why"),
    [("no-such-program-anywhere", "no such program"), ("/etc/passwd", "permission denied")],
)
def test_a_command_that_cannot_run_ends_the_start(stage: Stage, command: str, why: str) -> None:
    proxy = stage.run(command=[command], ready=False, exit_code=78)
    assert proxy.wait_exit() == 78
    assert f"cannot run '{command}'" in proxy.log
    assert why in proxy.log
    assert '"event": "started"' not in proxy.log


# --------------------------------------------------------------------------------------------------- death
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_child_is_started_again(stage: Stage, workers: int) -> None:
    proxy = stage.run(root={"workers": workers})
    assert proxy.metrics().named(ATTEMPTS, strategy="process", result="started")[0][1] == 0
    first = stage.serving(proxy)
    os.kill(first, signal.SIGKILL)
    second = stage.serving(proxy, but=first)
    about = child(proxy)
    assert (about["pid"], about["state"], about["restarts"]) == (second, "running", 1)
    assert about["last_exit"] == "SIGKILL"
    assert proxy.metrics().sum(ATTEMPTS, strategy="process", result="started") == 1
    assert '"again_in_seconds": 0.0' in proxy.wait_log(r'.*"child_died".*')[0]
    proxy.stop()


def test_who_keeps_dying_is_started_ever_later_and_harms_nobody(stage: Stage) -> None:
    proxy = stage.run(command=["sh", "-c", "exit 3"])
    proxy.wait_log(r'"exit": "code 3", "again_in_seconds": 2.0')
    assert [line for line in proxy.log.splitlines() if "child_died" in line][1].endswith('"again_in_seconds": 1.0}')
    about = child(proxy)
    assert (about["pid"], about["state"], about["restarts"]) == (None, "backing_off", 2)
    assert proxy.metrics().sum(ATTEMPTS, strategy="process", result="started") == 2
    proxy.wait_until(
        lambda: re.search(r"keeps dying \(code 3\), restarted \d+ times", proxy.command("status", check=False).stdout),
        "a look while it waits",
    )
    assert proxy.get("in", "/other").status == 200
    assert proxy.probe("/readyz") == 200
    proxy.stop()  # while it waits


def test_a_program_that_vanished_is_tried_again(stage: Stage) -> None:
    program = stage.directory / "service"
    program.symlink_to("/bin/sleep")
    proxy = stage.run(command=[str(program), "1000"])
    program.unlink()
    os.kill(child(proxy)["pid"], signal.SIGKILL)
    proxy.wait_log("child_start_failed")
    program.symlink_to("/bin/sleep")
    proxy.wait_until(lambda: child(proxy)["state"] == "running", "another try")
    metrics = proxy.metrics()
    assert metrics.sum(ATTEMPTS, strategy="process", result="failed") >= 1
    assert metrics.sum(ATTEMPTS, strategy="process", result="started") == 1


def test_what_a_dead_service_left_behind_does_not_hold_its_port(stage: Stage) -> None:
    """The one left has the listening socket: nobody could bind it again, and clients would hang in its queue."""
    proxy = stage.run("fork")
    first = stage.serving(proxy)
    os.kill(first, signal.SIGKILL)
    proxy.wait_log("child_killed")
    assert stage.serving(proxy, but=first) != first
    assert child(proxy)["restarts"] == 1
    proxy.signal(signal.SIGTERM)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    proxy.signal(signal.SIGTERM)  # the deaf one need not be waited for
    assert proxy.wait_exit() == 0


@pytest.mark.parametrize("prefix", [(), ("unshare", "--pid", "--fork", "--mount-proc")], ids=["subreaper", "pid 1"])
def test_orphans_are_buried(stage: Stage, prefix: tuple[str, ...]) -> None:
    if prefix and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a PID namespace of one's own takes privileges")
    proxy = stage.run(prefix=prefix)
    stage.serving(proxy)
    sidecar = children_of(proxy.pid)[0] if prefix else proxy.pid
    assert proxy.get("in", "/orphans/30").status == 200
    assert proxy.get("in", "/orphans/1").status == 200
    proxy.wait_until(lambda: len(children_of(sidecar)) == 1, "a clean table")
    assert not is_zombie(children_of(sidecar)[0])
    proxy.get("in", "/exit/0")
    assert proxy.wait_exit() == 0


# ---------------------------------------------------------------------------------------------------- end
def test_a_child_that_is_done_ends_us_after_the_last_request(stage: Stage, server: ScriptedUpstream) -> None:
    proxy = stage.run()
    stage.serving(proxy)
    held = Held(proxy, server, "/other/held")
    proxy.get("in", "/exit/0")
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    assert proxy.process.poll() is None
    held.let_go()
    assert held.client.read_answer().body == b"whole"
    assert proxy.wait_exit() == 0
    assert "child_died" not in proxy.log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_child_that_is_done_before_we_serve_ends_us_too(stage: Stage, workers: int) -> None:
    proxy = stage.run(command=["true"], root={"workers": workers}, ready=False)
    assert proxy.wait_exit() == 0
    assert "child_finished" in proxy.log
    assert '"error"' not in proxy.log


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_it_is_told_after_its_last_request(stage: Stage, number: int, workers: int) -> None:
    proxy = stage.run(root={"workers": workers})
    stage.serving(proxy)
    client = stage.held(proxy)
    proxy.signal(number)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    assert child(proxy)["state"] == "running"
    assert stage.noted("signals") == ""
    (stage.directory / "go").touch()
    assert client.read_answer().body == b"ok"
    assert proxy.wait_exit() == 0
    assert stage.noted("signals") == "SIGTERM\n"
    assert "child_killed" not in proxy.log


def test_who_is_deaf_is_killed_with_all_that_it_started(stage: Stage) -> None:
    proxy = stage.run("deaf", "fork", "daemon")
    stage.serving(proxy)
    assert len(marked(stage.directory)) == 4
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert marked(stage.directory) == []
    assert stage.noted("signals") == "SIGTERM\n"
    assert "child_killed" in proxy.log


def test_a_second_signal_forces_all(stage: Stage) -> None:
    proxy = stage.run("deaf", root={"shutdown": {"drain_timeout": "1h"}})
    stage.serving(proxy)
    client = stage.held(proxy)
    proxy.signal(signal.SIGTERM)
    proxy.wait_until(lambda: refuses(proxy), "no new connections")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    assert stage.noted("signals") == ""  # there was no time for politeness
    client.close()


def test_a_reload_does_not_touch_it(stage: Stage) -> None:
    proxy = stage.run()
    before = stage.serving(proxy)
    proxy.signal(signal.SIGHUP)
    proxy.wait_log("config_reloaded")
    assert stage.serving(proxy) == before
    assert child(proxy)["restarts"] == 0
    assert stage.noted("signals") == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_when_we_are_killed_it_is_told(stage: Stage, workers: int) -> None:
    proxy = stage.run(root={"workers": workers}, exit_code=-signal.SIGKILL)
    stage.serving(proxy)
    proxy.signal(signal.SIGKILL)
    assert proxy.wait_exit() == -signal.SIGKILL
    wait_until(lambda: not marked(stage.directory), "everybody gone")
    assert stage.noted("signals") == "SIGTERM\n"


# ---------------------------------------------------------------------------------------------- bad habits
def test_a_flood_that_nobody_reads_stalls_nobody(stage: Stage) -> None:
    """Its stdout and stderr are ours, a pipe that is full: it waits, we do not, and nothing piles up here."""
    unread, stdio = os.pipe()
    try:
        proxy = stage.run("flood", stdio=stdio)
        stage.serving(proxy)
        before = rss_of(proxy.pid)
        for _ in range(30):  # each is a line for a log that nobody takes
            proxy.admin("/reload", "POST", "content-length: 0\r\n", unix=True)
            assert proxy.get("in", "/pid").status == 200
        assert rss_of(proxy.pid) - before < 16 * 2**20
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit() == 0
    finally:
        os.close(unread)
        os.close(stdio)


def test_ctrl_c_in_a_terminal_reaches_both_in_order(stage: Stage) -> None:
    keyboard, terminal = os.openpty()
    try:
        proxy = stage.run(stdio=terminal)
        stage.serving(proxy)
        client = stage.held(proxy)
        os.write(keyboard, b"\x03")
        proxy.wait_until(lambda: refuses(proxy), "no new connections")
        assert stage.noted("signals") == ""
        (stage.directory / "go").touch()
        assert client.read_answer().body == b"ok"
        assert proxy.wait_exit() == 0
        assert stage.noted("signals") == "SIGTERM\n"
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_the_verb_tells_of_the_command() -> None:
    assert "COMMAND" in run_cli("run", "--help").stdout
