"""A Redis: its RDB, as it would send it to a replica.

`SYNC` makes the server save (BGSAVE) and send what it saved; so nothing of its disk need be mounted here. The copy is
the state at which the server forked, which the RDB tells itself. A sentinel is asked for the master; of a cluster each
primary is a source of its own. What is restored is a `dump.rdb`.
"""

import contextlib
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from sidecar.agent.children import environment, run
from sidecar.agent.faults import SourceFailure
from sidecar.agent.ports import Parent, Placement, Progress, Root, SourcePoint, Staged, Tell
from sidecar.config.address import parse_address
from sidecar.config.redis import Redis, Sentinel

FILE = "dump.rdb"
_SILENCE = 60.0
"""Seconds without a byte after which the server is given up; while it saves it sends line ends."""
_PIECE = 1 << 18


class RedisSource:
    """One server."""

    sort = "redis"

    def __init__(self, name: str, config: Redis) -> None:
        self.name = name
        self._config = config

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:  # noqa: ARG002 - the port's
        if self._config.cluster:
            raise SourceFailure(
                f"{self.name}: of a cluster name each primary as a source of its own, without `cluster`"
            )
        at = datetime.now(UTC)
        try:
            with self._connected() as wire:
                about = _fields(wire.command("INFO", "server"))
                size = self._receive(wire, os.path.join(into, FILE), tell)
        except OSError as error:
            raise SourceFailure(f"{self.name}: the server does not answer: {error.strerror or error}") from None
        saved = _saved_at(os.path.join(into, FILE))
        details = {"version": about.get("redis_version", ""), "rdb_bytes": size}
        return Staged(roots=(Root(path=into),), consistent_at=min(at, saved or at), details=details)

    def _receive(self, wire: "_Wire", path: str, tell: Tell) -> int:
        wire.send("SYNC")
        line = b""
        while not line:  # line ends while it saves
            line = wire.line()
            tell(Progress(phase="stage", source=self.name))
        if line.startswith(b"-"):
            raise SourceFailure(f"{self.name}: SYNC: {line[1:200].decode(errors='replace')}; the user needs +sync")
        if not line.startswith(b"$"):
            raise SourceFailure(f"{self.name}: what answers is no Redis")
        with open(path, "wb") as file:
            if line.startswith(b"$EOF:"):
                done = wire.until(line[5:], file.write)
            else:
                done, total = 0, int(line[1:])
                while done < total:
                    piece = wire.some(min(_PIECE, total - done))
                    done += file.write(piece)
                    tell(Progress(phase="stage", source=self.name, done=done, total=total))
        return done

    # The connection -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connected(self) -> "Iterator[_Wire]":
        config, url = self._config, urlsplit(self._config.url or "redis://localhost")
        tls = None
        if url.scheme == "rediss":
            tls = ssl.create_default_context(cafile=config.ca_file)
        if config.sentinel is not None:
            host, port = self._master(config.sentinel)
        else:
            host, port = url.hostname or "localhost", url.port or 6379
        path = unquote(url.path) if url.scheme == "unix" else ""
        with _Wire(host, port, path, tls) as wire:
            self._log_in(wire, config.username, config.password_file)
            yield wire

    def _master(self, sentinel: Sentinel) -> tuple[str, int]:
        for place in sentinel.addresses:
            address = parse_address(place)
            with contextlib.suppress(OSError), _Wire(address.host, address.port, "", None) as wire:
                self._log_in(wire, sentinel.username, sentinel.password_file)
                said = wire.command("SENTINEL", "get-master-addr-by-name", sentinel.master)
                if isinstance(said, list) and len(said) == 2:
                    return said[0].decode(), int(said[1])
        raise SourceFailure(f"{self.name}: no sentinel knows the master {sentinel.master}")

    def _log_in(self, wire: "_Wire", username: str | None, password_file: str | None) -> None:
        if password_file is None:
            return
        try:
            with open(password_file, encoding="utf-8") as file:
                password = file.read(65_536).rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or "not text"
            raise SourceFailure(f"{self.name}: password_file: {password_file}: {said}") from None
        try:
            wire.command("AUTH", *([username] if username else []), password)
        except SourceFailure:
            raise SourceFailure(f"{self.name}: the server refuses the password; look at password_file") from None

    # Restoring ----------------------------------------------------------------------------------------------------

    def validate(self, restored: str, point: SourcePoint) -> list[str]:  # noqa: ARG002 - the port's
        path = os.path.join(restored, FILE)
        try:
            with open(path, "rb") as file:
                head = file.read(9)
        except OSError as error:
            return [f"{FILE}: {error.strerror}"]
        if not head.startswith(b"REDIS"):
            return [f"{FILE} is no RDB"]
        if shutil.which("redis-check-rdb") is None:
            return []
        said: list[bytes] = []
        ended = run(["redis-check-rdb", path], environment(), hear=said.append)
        return [] if ended.code == 0 else [f"{FILE}: {said[-1].decode(errors='replace') if said else 'it is damaged'}"]

    def placements(self, point: SourcePoint) -> list[Placement]:  # noqa: ARG002 - the port's
        """None: a running server would write over it."""
        return []

    def beside(self, placement: Placement) -> list[str]:  # noqa: ARG002 - the port's
        return []


class _Wire:
    """A blocking connection, as much of RESP as this takes."""

    def __init__(self, host: str, port: int, path: str, tls: ssl.SSLContext | None) -> None:
        if path:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.settimeout(_SILENCE)
            self._sock.connect(path)
        else:
            self._sock = socket.create_connection((host, port), 10.0)
            self._sock.settimeout(_SILENCE)
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname=host)
        self._buffer = b""

    def __enter__(self) -> "_Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, *words: str) -> None:
        parts = [word.encode() for word in words]
        self._sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in parts))

    def command(self, *words: str) -> bytes | list[bytes] | None:
        """Raises SourceFailure for an error."""
        self.send(*words)
        return self._answer(words[0])

    def _answer(self, asked: str) -> bytes | list[bytes] | None:
        line = self.line()
        sort, rest = line[:1], line[1:]
        if sort == b"-":
            raise SourceFailure(f"{asked}: {rest[:200].decode(errors='replace')}")
        if sort == b"$":
            return None if rest == b"-1" else self._exactly(int(rest) + 2)[:-2]
        if sort == b"*":
            return [item for _ in range(int(rest)) if isinstance(item := self._answer(asked), bytes)]
        return rest

    def line(self) -> bytes:
        """Without its end."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > 1 << 16:
                raise SourceFailure("what answers is no Redis")
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def some(self, most: int) -> bytes:
        """At least a byte."""
        if not self._buffer:
            self._more()
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def until(self, mark: bytes, put: Callable[[bytes], int]) -> int:
        """Everything before `mark`, which ends it; how much it was."""
        done, kept = 0, b""
        while True:
            kept += self.some(_PIECE)
            if kept.endswith(mark):
                return done + put(kept[: -len(mark)])
            done += put(kept[: -len(mark)]) if len(kept) > len(mark) else 0
            kept = kept[-len(mark) :]

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        piece, self._buffer = self._buffer[:count], self._buffer[count:]
        return piece

    def _more(self) -> None:
        piece = self._sock.recv(_PIECE)
        if not piece:
            raise ConnectionError("the server closed the connection")
        self._buffer += piece


def _fields(said: bytes | list[bytes] | None) -> dict[str, str]:
    text = said.decode(errors="replace") if isinstance(said, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _saved_at(path: str) -> datetime | None:
    """When the server began to save, as the RDB's head tells."""
    with open(path, "rb") as file:
        head = file.read(512)
    place = head.find(b"\x05ctime\xc2")  # a string of five letters, then a whole number of four bytes
    if place < 0:
        return None
    seconds = int.from_bytes(head[place + 7 : place + 11], "little")
    return datetime.fromtimestamp(seconds, UTC) if abs(seconds - time.time()) < 86_400 else None
