"""The backup agent as its users run it: `sidecar agent run -c FILE`, and the estate that it looks after."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import yaml

from tests.fakes.wire import PATIENCE
from tests.real.documents import free_port
from tests.real.estate import Estate as Kept
from tests.real.harness import ROOT, Metrics
from tests.real.procfs import rss_of

SECRET = "a long passphrase that nobody guesses"
"""What the estate's key file holds."""


class Estate(Kept):
    """With an agent that has a port and a socket."""

    def __init__(self, directory: Path, engine: str = "sealed") -> None:
        self.port = free_port()
        self.socket = str(directory / "agent.sock")
        super().__init__(directory, engine)

    def section(self, **backup: Any) -> dict[str, Any]:
        """The file's `backup`."""
        return {
            "state_dir": str(self.directory / "state"),
            "admin": {"bind": f"127.0.0.1:{self.port}", "socket": self.socket},
            "repository": {"url": str(self.repository), "engine": self.engine, "password_file": str(self.key)},
            "sources": [
                {"name": "db", "sqlite": {"path": str(self.database)}},
                {"name": "uploads", "files": {"paths": [str(self.uploads)]}},
            ],
            **backup,
        }

    def write(self, **backup: Any) -> None:
        whole = {
            "version": 1,
            "service": {"name": "orders"},
            "admin": {"socket": str(self.directory / "admin.sock")},
            "backup": self.section(**backup),
        }
        self.file.write_text(yaml.safe_dump(whole))


class Agent:
    """One running agent. Use it as a context manager."""

    def __init__(self, estate: Estate, *, exit_code: int = 0, **environment: str) -> None:
        self.estate = estate
        self.exit_code = exit_code
        self.log_path = estate.directory / f"agent-{time.monotonic_ns()}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "agent", "run", "-c", str(estate.file)],
                cwd=ROOT,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        self.wait_until(lambda: self.status_of("/readyz") == 200, "ready")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if kind is None else signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE * 2)
        hung = self.process.poll() is None
        if hung:
            self.process.kill()
            self.process.wait()
        if kind is None:
            assert not hung, f"it did not end:\n{self.log}"
            assert self.process.returncode == self.exit_code, self.log
            assert "Traceback" not in self.log, self.log
            assert SECRET not in self.log, "a secret was told"

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def rss(self) -> int:
        return rss_of(self.process.pid)

    def status_of(self, target: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.estate.port}{target}", timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def get(self, target: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.estate.port}{target}", timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def json(self, target: str) -> Any:
        return json.loads(self.get(target))

    def conditions(self) -> list[str] | None:
        """The reasons of what holds; None: it does not answer, as while it begins anew with another file."""
        try:
            return [one["reason"] for one in self.json("/api/v1/status")["conditions"]]
        except OSError:
            return None

    def metrics(self) -> Metrics:
        return Metrics(self.get("/metrics").decode())

    def command(self, target: str, body: bytes = b"") -> int:
        """An order by the Unix socket; the answer's status."""
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.estate.socket)
            head = (
                f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            sock.sendall(head.encode() + body)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        return int(answer.split()[1])

    def wait_until(self, true: Callable[[], object], what: str, patience: float = 2 * PATIENCE) -> None:
        """Ask again and again until `true()`; fail early when the process is gone."""
        deadline = time.monotonic() + patience
        while not true():
            assert self.process.poll() is None, f"ended with {self.process.returncode} before {what}:\n{self.log}"
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.log}"
            time.sleep(0.02)

    def wait_log(self, pattern: str, count: int = 1) -> re.Match[str]:
        """The `count`th match of `pattern` in the log, once it stands there."""
        self.wait_until(lambda: len(re.findall(pattern, self.log)) >= count, f"log line /{pattern}/ × {count}")
        return list(re.finditer(pattern, self.log))[count - 1]
