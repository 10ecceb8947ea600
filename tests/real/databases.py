"""Real PostgreSQL and Redis servers on free ports, which a test may stop, pause and slow down.

Nothing is shared with a server of the machine: data directories are temporary, ports and sockets our own, and every
process is in a group of its own that dies with the test run. PostgreSQL refuses to run as root; then it runs as nobody.
"""

import contextlib
import ctypes
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.fakes.wire import PATIENCE
from tests.real.documents import free_port

PASSWORD = "pässword=1 '\\"
"""Of everybody: with what connection strings have to quote."""


class Server:
    """One server process and what it started."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"sidecar-{name}-"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Run, and answer before this returns."""
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
                cwd=self.directory,
                **self.identity(),
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            log_text = (self.directory / "server.log").read_text(errors="replace")
            assert self._process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once; a later start finds its data."""
        if self._process is not None:
            self.resume()
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections still open, since the kernel opens them, and nobody answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def command(self) -> list[str]:
        raise NotImplementedError

    def identity(self) -> dict[str, object]:
        """Whom it runs as, for Popen."""
        return {}

    def answers(self) -> bool:
        raise NotImplementedError


class Redis(Server):
    """A redis-server, by default without a password; `options` are its command line's."""

    def __init__(self, *options: str) -> None:
        super().__init__("redis")
        self._options = options

    def command(self) -> list[str]:
        base = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [*base, "--save", "", "--unixsocket", str(self.directory / "socket"), *self._options]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def clients(self) -> int:
        """How many talk to it, but for who asks."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock, sock.makefile("rb") as replies:
            sock.sendall(b"CLIENT LIST\r\n")
            return replies.read(int(replies.readline()[1:])).count(b"\n") - 1


class RedisCluster(Redis):
    """A cluster of one node, which owns all slots."""

    def __init__(self) -> None:
        super().__init__("--cluster-enabled", "yes", "--cluster-port", str(free_port()))

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
                sock.sendall(b"CLUSTER ADDSLOTSRANGE 0 16383\r\nCLUSTER INFO\r\n")
                with sock.makefile("rb") as replies:
                    replies.readline()  # OK, or that they are assigned already
                    return b"cluster_state:ok" in replies.read(int(replies.readline()[1:]))
        except OSError:
            return False


class RedisSentinel(Redis):
    """A sentinel that watches `master` under the name `main`."""

    def __init__(self, master: Redis) -> None:
        super().__init__()
        (self.directory / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\n")

    def command(self) -> list[str]:
        file = str(self.directory / "sentinel.conf")
        return ["redis-server", file, "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]


class Postgres(Server):
    """A PostgreSQL; the users `scram`, `md5` and `plain` log in by these methods, `postgres` over the socket."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        """With `certificate` (and key) users may log in with TLS only."""
        super().__init__("postgres")
        self._certificate = certificate
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        data = str(self.directory / "data")
        made = self._run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8")
        assert made.returncode == 0, made.stderr
        kind = "host" if self._certificate is None else "hostssl"
        rules = [f"{kind} all {user} 127.0.0.1/32 {method}" for user, method in _METHODS.items()]
        for file in self._certificate or ():
            copy = shutil.copy(file, self.directory)
            os.chmod(copy, 0o600)
            shutil.chown(copy, self.directory.owner())
        (self.directory / "data" / "pg_hba.conf").write_text("\n".join(["local all all trust", *rules, ""]))

    def start(self) -> None:
        first = not (self.directory / "made").exists()
        super().start()
        if first:
            secret = PASSWORD.replace("'", "''")
            for user, encryption in (("scram", "scram-sha-256"), ("md5", "md5"), ("plain", "scram-sha-256")):
                self.sql(f"SET password_encryption = '{encryption}'; CREATE USER {user} PASSWORD '{secret}'")
            (self.directory / "made").touch()

    def command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "1MB",
            "max_connections": "20",
            "autovacuum": "off",
        }
        if self._certificate is not None:
            cert, key = (str(self.directory / file.name) for file in self._certificate)
            settings |= {"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [find("postgres"), "-D", str(self.directory / "data"), *options]

    def identity(self) -> dict[str, object]:
        return {} if self._user is None else {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid}

    def answers(self) -> bool:
        return (
            self._run("psql", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", "-c", "").returncode
            == 0
        )

    def sql(self, text: str) -> None:
        done = self._run("psql", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", "-v",
                         "ON_ERROR_STOP=1", "-c", text)  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [find(program), *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            **self.identity(),  # type: ignore[call-overload]  # the words that Popen takes
        )


_METHODS = {"scram": "scram-sha-256", "md5": "md5", "plain": "password"}


class SlowLink:
    """A TCP relay to `port` that holds back everything the server says for `delay` seconds."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            for source, sink, slow in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._relay, args=(source, sink, slow), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, slow: bool) -> None:
        try:
            while data := source.recv(65536):
                if slow:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


def find(program: str) -> str:
    """A program of PostgreSQL, where the distribution keeps it."""
    places = [shutil.which(program), *sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"), reverse=True)]
    found = next((place for place in places if place), None)
    assert found is not None, f"{program} is not installed: make test-tools"
    return found


def die_with_parent() -> None:
    """In the child: SIGKILL when the test run dies."""
    _prctl(1, signal.SIGKILL, 0, 0, 0)


_prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
