"""Receives the log of a PostgreSQL cluster by pg_receivewal, and keeps it in the repository.

pg_receivewal writes segments into a directory below `state_dir`, flushed as they come, and tells the server so: the
replication slot holds back what it has not got. A whole segment is kept and removed here; the one that is being
written is kept again and again, every few seconds while it grows, so that a disaster costs seconds. What is kept joins
without a gap from `since` on; when the server no longer has what comes next, the slot is made anew, and the gap is
told: the next backup then begins with a new base.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from sidecar.agent.children import Ended, end, run, spawn
from sidecar.agent.faults import SourceFailure, StorageFailure
from sidecar.agent.sources.postgres import PostgresSource
from sidecar.agent.sources.postgres_tools import SERVICE, find
from sidecar.agent.wal import PARTIAL, SEGMENT, WalArchive, WalState, lsn, name_of, number_of
from sidecar.base.clock import since_boot
from sidecar.machines.replication_lag import Look, ReplicationLag

_QUERY = """SELECT now() AT TIME ZONE 'UTC', pg_current_wal_flush_lsn(),
 (SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'),
 pg_size_bytes(current_setting('wal_segment_size')), (SELECT system_identifier FROM pg_control_system()),
 current_setting('server_version_num'),
 (SELECT coalesce(wal_status, '') FROM pg_replication_slots WHERE slot_name = '{slot}')"""
"""`restart_lsn` is what the receiver said that it has on its disk; what a receiver has is told to monitors only."""
_GONE = ("has already been removed", "cannot be advanced", "exceeds max_slot_wal_keep_size", "invalidated")


class WalStream:
    """The stream of one source. All of it is called by one thread."""

    def __init__(self, source: PostgresSource, lag: ReplicationLag, told: Callable[[str], None]) -> None:
        """`told` hears of a gap."""
        self._source = source
        self._rules = source.rules
        self._directory = source.directory
        self._files = os.path.join(self._directory, "files")
        self._log = os.path.join(self._directory, "log")
        self._told = told
        self.lag = lag
        self._child: subprocess.Popen[bytes] | None = None
        self._reached = contextlib.ExitStack()
        self._state = source.local_state()
        self._last = ""
        """The whole segment that was kept last."""
        self._kept = b""
        """The hash of the partial one as it was kept last."""

    def turn(self, archive: WalArchive | None) -> None:
        """See that it streams, look how far the server is, and keep what has come; without an archive later.

        Raises SourceFailure and others.
        """
        try:
            os.makedirs(self._files, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailure(f"{self._files}: {error.strerror}; backup.state_dir must be writable") from None
        found = self._source.server.query(_QUERY.format(slot=self._rules.slot), self._directory)
        at, here = datetime.fromisoformat(found[0]).replace(tzinfo=UTC), lsn(found[1])
        size, system, major = int(found[3]), found[4], int(found[5]) // 10_000
        self.lag.looked(Look(since_boot(), at, here))
        if self._state is not None and self._state.system != system:
            self._begin_anew(f"{self._source.name}: the server is another cluster than before", major)
        if found[6] == "lost":
            self._lost(f"{self._source.name}: the server gave up the slot {self._rules.slot}", major)
        self._see_to_the_child(major)
        flushed = lsn(found[2]) if found[2] else None
        if archive is not None:
            self._keep(archive, size, system, flushed)

    def stop(self) -> None:
        """The program that receives ends."""
        if self._child is not None:
            end(self._child)
            self._child = None
        self._reached.close()

    # The program --------------------------------------------------------------------------------------------------

    def _see_to_the_child(self, major: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._reached.close()  # it is connected, or ends: the password is read once
            return
        if self._child is not None:
            code, said = self._child.returncode, _tail(self._log)
            self._child = None
            self._reached.close()
            if any(word in "\n".join(said) for word in _GONE):
                self._lost(f"{self._source.name}: {said[-1]}", major)
            elif code:
                failure = self._source.server.failure("pg_receivewal", Ended(code, tuple(said)))
                self._start(major)
                raise failure
        self._start(major)

    def _start(self, major: int) -> None:
        program = find("pg_receivewal", self._rules.programs, major)
        env = self._reached.enter_context(self._source.server.reached(self._directory))
        base = [program, "-w", "-d", SERVICE, "-S", self._rules.slot]
        made = run([*base, "--create-slot", "--if-not-exists"], env, patience=60.0)
        if made.code or made.stopped:
            self._reached.close()
            raise self._source.server.failure("pg_receivewal", made)
        with contextlib.suppress(OSError):
            os.unlink(self._log)
        words = [*base, "-D", self._files, "--synchronous", "--no-loop", "-s", "5"]
        self._child = spawn(words, env, self._directory, self._log)

    def _lost(self, why: str, major: int) -> None:
        """The server no longer has what comes next."""
        if not self._rules.resync:
            raise SourceFailure(f"{why}; resync is off: drop the slot, and take a full backup")
        self._begin_anew(why, major)

    def _begin_anew(self, why: str, major: int) -> None:
        self.stop()
        with self._source.server.reached(self._directory) as env:
            program = find("pg_receivewal", self._rules.programs, major)
            run([program, "-w", "-d", SERVICE, "-S", self._rules.slot, "--drop-slot"], env, patience=60.0)
        shutil.rmtree(self._files, ignore_errors=True)
        os.makedirs(self._files, mode=0o700, exist_ok=True)
        self._forget()
        self._told(f"{why}; the log has a gap now, and the next backup begins with a new base")

    def _forget(self) -> None:
        self._state, self._last, self._kept = None, "", b""
        self.lag.began_anew()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._directory, "state.json"))

    # Keeping ------------------------------------------------------------------------------------------------------

    def _keep(self, archive: WalArchive, size: int, system: str, flushed: int | None) -> None:
        names = sorted(os.listdir(self._files))
        since = self._state.since if self._state is not None else ""
        for name in names:
            path = os.path.join(self._files, name)
            if name.endswith(".history"):
                archive.put(name, _read(path))
                os.unlink(path)
            elif SEGMENT.fullmatch(name):
                since = self._joined(name, since, size)
                archive.put(name, _read(path))
                archive.delete(name + PARTIAL)
                os.unlink(path)
                self._last, self._kept = name, b""
        partial = next((name for name in names if name.endswith(PARTIAL)), None)
        if partial is None or flushed is None:
            return
        name = partial.removesuffix(PARTIAL)
        since = self._joined(name, since, size)
        try:
            content = _read(os.path.join(self._files, partial))
        except FileNotFoundError:
            return  # it has become whole just now: the next turn keeps it
        digest = hashlib.sha256(content).digest()
        if digest != self._kept:
            archive.put(partial, content)
            self._kept = digest
        first = number_of(name, size) * size
        reached = min(flushed, first + size)
        self.lag.copied(reached)
        covered = self.lag.covered_at
        if covered is None:
            return
        self._say(archive, WalState(
            system=system, timeline=int(name[:8], 16), segment_bytes=size, since=since, end=reached, covered_at=covered,
        ))  # fmt: skip

    def _joined(self, name: str, since: str, size: int) -> str:
        """The segment from which on there is no gap, with this one."""
        before = self._last or (
            name_of(f"{self._state.timeline:08X}", self._state.end // size, size) if self._state else ""
        )
        joins = before and since and number_of(before, size) + 1 >= number_of(name, size) and before[:8] == name[:8]
        return since if joins else name

    def _say(self, archive: WalArchive, state: WalState) -> None:
        before = self._state
        moved = before is None or msgspec.structs.replace(state, covered_at=before.covered_at) != before
        if moved or before is None or (state.covered_at - before.covered_at).total_seconds() >= 30.0:
            archive.put_state(state)
            self._state = state
            beside = os.path.join(self._directory, "state.new")
            with open(beside, "wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, os.path.join(self._directory, "state.json"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _tail(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return [line.strip()[:400] for line in file.read()[-8000:].splitlines() if line.strip()] or ["it said nothing"]
    return ["it said nothing"]
