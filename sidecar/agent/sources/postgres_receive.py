"""The program that receives the log of one source: pg_receivewal through a replication slot, for as long as it lives.

It writes segments into a directory below `state_dir`, flushed as they come, and tells the server so: the slot holds
back what it has not got. When it dies it is started anew, and so it is when nothing comes though the server goes on: a
connection may be dead without a word. What to do when the server no longer has what comes next is for others to say.
"""

import contextlib
import os
import subprocess

from sidecar.agent.children import Ended, end, run, spawn
from sidecar.agent.faults import SourceFailure
from sidecar.agent.sources.postgres import PostgresSource
from sidecar.agent.sources.postgres_tools import SERVICE, find
from sidecar.base.clock import since_boot

_GONE = ("has already been removed", "cannot be advanced", "exceeds max_slot_wal_keep_size", "invalidated",
         "is not in this server's history", "is ahead of the WAL flush position")  # fmt: skip
STALLED = 10.0
"""Seconds without a byte while the server goes on, after which it is started anew."""


class GoneError(Exception):
    """The server no longer has what comes next: why, in its words."""


class Receiver:
    """Of one source. All of it is called by one thread."""

    def __init__(self, source: PostgresSource) -> None:
        self._source = source
        self._rules = source.rules
        self.files = os.path.join(source.directory, "files")
        """Where the segments come."""
        self._log = os.path.join(source.directory, "log")
        self._child: subprocess.Popen[bytes] | None = None
        self._reached = contextlib.ExitStack()
        self._moved: tuple[int | None, float] = (None, 0.0)
        """How far it was, and since when."""

    @property
    def alive(self) -> bool:
        """The program runs."""
        return self._child is not None and self._child.poll() is None

    def see_to(self, major: int, flushed: int | None, here: int) -> None:
        """See that it runs; `flushed`: what it has on the disk, `here`: what the server has. Raises GoneError."""
        if self.alive:
            self._reached.close()  # it is connected, or ends: the password is read once
            if not self._stalled(flushed, here):
                return
            self.stop()
            self.start(major)
            raise SourceFailure(f"{self._source.name}: nothing came for {STALLED:.0f} s: the receiver is started anew")
        if self._child is not None:
            code, said = self._child.returncode, _tail(self._log)
            self.stop()
            gone = next((line for line in said if any(word in line for word in _GONE)), None)
            if gone is not None:
                raise GoneError(gone)
            if code:
                failure = self._source.server.failure("pg_receivewal", Ended(code, tuple(said)))
                self.start(major)
                raise failure
        self.start(major)

    def _stalled(self, flushed: int | None, here: int) -> bool:
        now = since_boot()
        if flushed != self._moved[0] or (flushed or 0) >= here:
            self._moved = (flushed, now)
        return now - self._moved[1] > STALLED

    def start(self, major: int) -> None:
        """Make the slot when it is not there, and begin. Raises SourceFailure."""
        program = find("pg_receivewal", self._rules.programs, major)
        env = self._reached.enter_context(self._source.server.reached(self._source.directory))
        base = [program, "-w", "-d", SERVICE, "-S", self._rules.slot]
        made = run([*base, "--create-slot", "--if-not-exists"], env, patience=60.0)
        if made.code or made.stopped:
            self._reached.close()
            raise self._source.server.failure("pg_receivewal", made)
        with contextlib.suppress(OSError):
            os.unlink(self._log)
        words = [*base, "-D", self.files, "--synchronous", "--no-loop", "-s", "2"]
        if major >= 12:  # a session may set it; a receiver that is gone frees its slot soon
            env = {**env, "PGOPTIONS": "-c wal_sender_timeout=15s"}
        self._child = spawn(words, env, self._source.directory, self._log)
        self._moved = (None, since_boot())

    def drop_slot(self, major: int) -> None:
        """It ends, and its slot goes."""
        self.stop()
        with self._source.server.reached(self._source.directory) as env:
            program = find("pg_receivewal", self._rules.programs, major)
            run([program, "-w", "-d", SERVICE, "-S", self._rules.slot, "--drop-slot"], env, patience=60.0)

    def stop(self) -> None:
        """The program that receives ends."""
        if self._child is not None:
            end(self._child)
            self._child = None
        self._reached.close()


def _tail(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return [line.strip()[:400] for line in file.read()[-8000:].splitlines() if line.strip()] or ["it said nothing"]
    return ["it said nothing"]
