"""The program as its users run it: a process, a file, ports, signals. Nothing of it is imported here.

`Sidecar` writes the YAML, starts `python -m sidecar run -c FILE` in a session of its own, waits until `/readyz` says
yes, and at the end insists that the process ended with the code that was expected, that no traceback stands in its
log and that no child outlived it. Everything is bounded: a process that hangs is aborted with its stacks in the log.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.wire import PATIENCE, Message, Wire
from tests.real.documents import free_port
from tests.real.procfs import children_of, cpu_of, rss_of, session_members

ROOT = Path(__file__).resolve().parents[2]
_STAINS = re.compile(r"Traceback \(most recent|never retrieved|was never awaited|Fatal Python error|ResourceWarning")


# --------------------------------------------------------------------------------------------- metrics
class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def named(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """All series of this name that carry these labels."""
        return [
            (have, value)
            for sample, have, value in self.samples
            if sample == name and all(have.get(label) == wanted for label, wanted in labels.items())
        ]

    def sum(self, name: str, **labels: str) -> float:
        """The series' sum; 0 when none is there yet."""
        return sum(value for _, value in self.named(name, **labels))


# --------------------------------------------------------------------------------------------- process
class Sidecar:
    """One running proxy. Use it as a context manager, or `stop()` it."""

    def __init__(
        self,
        config: dict[str, Any],
        *,
        directory: Path | None = None,
        ready: bool = True,
        exit_code: int = 0,
        nofile: int | None = None,
        stains: bool = False,
        configmap: bool = False,
        command: Sequence[str] = (),
        stdio: int | None = None,
        prefix: Sequence[str] = (),
        admin_port: int | None = None,
    ) -> None:
        """`nofile`: the limit of open files; `configmap`: lay the file out as Kubernetes mounts it.

        `command`: the service to supervise. `prefix`: what starts the program. `admin_port`: that of one before.
        `stdio`: a descriptor in place of the log; a terminal becomes the controlling one.
        """
        self.directory = directory or Path(tempfile.mkdtemp(prefix="sidecar-test-"))
        self._own_directory = directory is None
        self.socket_path = str(self.directory / "admin.sock")
        self.admin_port = admin_port or free_port()
        self.file = self.directory / "sidecar.yaml"
        self.log_path = self.directory / "log"
        self.exit_code = exit_code
        self.stains_expected = stains
        self.config = config
        self._configmap = configmap
        self._writes = 0
        self.write(config)
        words = [sys.executable, "-m", "sidecar", "run", "-c", str(self.file)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *words, *(["--", *command] if command else [])],
                cwd=ROOT,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL if stdio is None else stdio,
                stdout=log if stdio is None else stdio,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_before_exec(nofile),
            )
        self.pid = self.process.pid
        self.succeeded = False  # another process has taken over: the end of this one is not the end
        self._stopped = False
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self._kill()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._kill()

    # ---------------------------------------------------------------------------------------- the file
    def write(self, config: dict[str, Any]) -> None:
        """Put the configuration where the program reads it, in one rename."""
        admin = {"bind": f"127.0.0.1:{self.admin_port}", "socket": self.socket_path, **config.get("admin", {})}
        whole = {**config, "admin": admin}
        self.write_text(yaml.safe_dump(whole, sort_keys=False))

    def write_text(self, text: str) -> None:
        """In one rename: of the file, or of the symlink `..data` through which Kubernetes swaps a ConfigMap."""
        self._writes += 1
        if not self._configmap:
            new = self.file.with_suffix(".new")
            new.write_text(text)
            new.rename(self.file)
            return
        version = self.directory / f"..{self._writes}"
        version.mkdir()
        (version / self.file.name).write_text(text)
        link = self.directory / "..new"
        link.symlink_to(version.name)
        link.rename(self.directory / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to(f"..data/{self.file.name}")

    # ------------------------------------------------------------------------------------------ waiting
    def wait_ready(self) -> None:
        self.wait_until(lambda: self.probe("/readyz") == 200, "ready")

    def wait_until(self, true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Ask again and again until `true()`; fail early when the process is gone."""
        deadline = time.monotonic() + patience
        while not true():
            alive = self.succeeded or self.process.poll() is None
            assert alive, f"ended with {self.process.returncode} before {what}:\n{self.log}"
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.log}"
            time.sleep(0.01)

    def wait_log(self, pattern: str) -> re.Match[str]:
        """The first match of `pattern` in the log, once it stands there."""
        found: list[re.Match[str] | None] = [None]

        def look() -> object:
            found[0] = re.search(pattern, self.log)
            return found[0]

        self.wait_until(look, f"log line /{pattern}/")
        assert found[0] is not None
        return found[0]

    # --------------------------------------------------------------------------------------- talking to it
    def port(self, name: str) -> int:
        """The TCP port of the listener `name`."""
        bind = next(item["bind"] for item in self.config["listeners"] if item["name"] == name)
        return int(bind.rpartition(":")[2])

    def client(self, name: str, **options: Any) -> Wire:
        """A new connection to a listener."""
        return dial(self.port(name), **options)

    def get(self, name: str, target: str = "/", fields: str = "", method: str = "GET", body: bytes = b"") -> Message:
        """One request on a connection of its own."""
        with self.client(name) as client:
            return client.send(ask(target, fields, method, body)).read_answer(method)

    def admin(self, target: str, method: str = "GET", fields: str = "", *, unix: bool = False) -> Message:
        """One call to the admin interface over TCP or over the Unix socket."""
        if unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.socket_path)
            wire = Wire(sock)
        else:
            wire = dial(self.admin_port)
        with wire:
            host = f"127.0.0.1:{self.admin_port}"
            wire.send(ask(target, "connection: close\r\n" + fields, method, host=host))
            return wire.read_answer(method)

    def probe(self, target: str) -> int:
        """The status of a probe; 0 when nobody listens there."""
        try:
            return self.admin(target).status
        except (OSError, EOFError):
            return 0

    def metrics(self) -> Metrics:
        answer = self.admin("/metrics")
        assert answer.status == 200, answer
        return Metrics(answer.body.decode())

    def status(self) -> Any:
        answer = self.admin("/api/v1/status")
        assert answer.status == 200, answer
        return answer.json()

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`sidecar WORDS -c FILE`, to its end."""
        done = run_cli(*words, "-c", str(self.file))
        if check:
            assert done.returncode == 0, done
        return done

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    # --------------------------------------------------------------------------------------- looking at it
    def children(self) -> list[int]:
        """The worker processes' ids."""
        return children_of(self.pid)

    def processes(self) -> list[int]:
        return [self.pid, *self.children()]

    def rss(self) -> int:
        """Resident bytes of the whole program."""
        return sum(rss_of(pid) for pid in self.processes())

    def cpu(self) -> float:
        """CPU seconds that the whole program has used."""
        return sum(cpu_of(pid) for pid in self.processes())

    # ------------------------------------------------------------------------------------------- ending it
    def wait_exit(self, patience: float = 30.0) -> int:
        """The exit code; a process that does not end is aborted and its stacks go to the failure's text."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            log = self.log
            self._kill()
            raise AssertionError(f"did not end:\n{log}") from None

    def stop(self) -> None:
        """End it as Kubernetes does, and look at what it leaves behind."""
        if self._stopped:
            return
        self._stopped = True
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        code = self.wait_exit()
        log = self.log
        leaked = session_members(self.pid)
        self._kill()
        assert code == self.exit_code, f"exit code {code}:\n{log}"
        assert not leaked, f"children left behind: {leaked}\n{log}"
        stain = _STAINS.search(log)
        assert stain is None or self.stains_expected, f"{stain} in the log:\n{log}"

    def _kill(self) -> None:
        self._stopped = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def _before_exec(nofile: int | None) -> Callable[[], None]:
    """In the child: die with the test run; live with few descriptors when the test says so."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))

    return prepare


def run_cli(*words: str, patience: float = 60.0) -> subprocess.CompletedProcess[str]:
    """`sidecar WORDS`, to its end, with what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def ask(
    target: str = "/",
    fields: str = "",
    method: str = "GET",
    body: bytes = b"",
    *,
    host: str = "example.test",
    version: str = "1.1",
) -> bytes:
    """A request's bytes; `fields` are whole lines; Content-Length is added when there is a body."""
    length = f"content-length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/{version}\r\nhost: {host}\r\n{fields}{length}\r\n".encode("latin-1") + body


def dial(port: int, *, host: str = "127.0.0.1", patience: float = PATIENCE, receive_buffer: int | None = None) -> Wire:
    """A connection to a port, with a small receive buffer when the test wants to be a slow reader."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(patience)
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return Wire(sock, patience)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The access log, parsed; a half-written last line is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
