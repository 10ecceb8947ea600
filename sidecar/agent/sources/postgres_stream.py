"""Keeps the log of a PostgreSQL cluster in the repository, as it is received (`postgres_receive.py`).

A whole segment is kept and removed here; the one that is being written is kept again and again, every few seconds while
it grows, so that a disaster costs seconds. How far the log is copied is counted from what is in the repository, never
from what lies here: a pod may die with its disk.

What is kept joins without a gap within a span (`wal.py`). When the server no longer has what comes next, or went back
to an earlier state of its own, the slot is made anew; that, and a new timeline, begins another span, which is told: the
next point needs a base backup.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from sidecar.agent.faults import Damaged, SourceFailure, StorageFailure
from sidecar.agent.sources.postgres import PostgresSource
from sidecar.agent.sources.postgres_receive import GoneError, Receiver
from sidecar.agent.sources.postgres_tools import MOMENT, moment
from sidecar.agent.wal import PAGE, PARTIAL, SEGMENT, Span, WalArchive, WalState, lsn, name_of, number_of, reaches
from sidecar.base.clock import since_boot
from sidecar.machines.backup.replication_lag import Look, ReplicationLag
from sidecar.runtime.logs import Log

_LOOK = f"""SELECT {MOMENT} AT TIME ZONE 'UTC', extract(epoch FROM now() - {MOMENT}),
 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN pg_is_in_recovery() THEN to_hex((SELECT timeline_id FROM pg_control_checkpoint()))
  ELSE substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) END,
 pg_size_bytes(current_setting('wal_segment_size')), (SELECT system_identifier FROM pg_control_system()),
 current_setting('server_version_num'), pg_is_in_recovery()"""  # noqa: S608 - of words of ours
_MEANWHILE = "SELECT pg_sleep(0.2)"
"""The receiver gets what the server had at the look; so that the same turn can keep it."""
_SLOT = """SELECT max(restart_lsn::text), coalesce(max(wal_status), '') FROM pg_replication_slots
 WHERE slot_name = '{slot}'"""
"""`restart_lsn` is what the receiver said that it has on its disk; what a receiver has is told to monitors only."""
SAID_AGAIN = 10.0
"""Seconds between two words about how far it reaches while nothing is written."""

_log = Log(__name__)


class _Server(NamedTuple):
    """What it said of itself."""

    system: str
    timeline: int
    segment_bytes: int
    major: int
    end: int
    flushed: int | None
    """What the receiver has on its disk."""
    lost: bool
    """It gave up our slot."""
    standby: bool


class WalStream:
    """The stream of one source. All of it is called by one thread."""

    def __init__(
        self, source: PostgresSource, lag: ReplicationLag, gap: Callable[[str], None], begun: Callable[[], None]
    ) -> None:
        """`gap` hears why there is one; `begun`: another span has begun, in the repository."""
        self._source = source
        self._directory = source.directory
        self._receiver = Receiver(source)
        self._files = self._receiver.files
        self._gap = gap
        self._begun = begun
        self.lag = lag
        self._state: WalState | None = None
        """As the repository has it."""
        self._known = source.local_state()
        """As it was said last on this machine."""
        self._since = ""
        """The segment that the span begins with; empty: what comes begins another one."""
        self._last = ""
        """The whole segment of it that was kept last; empty: none yet."""
        self._kept = b""
        """The hash of the partial one as it was kept last."""

    @property
    def settled(self) -> bool:
        """It streams, and what the server has is kept."""
        return self.alive and self.lag.covered_at is not None

    @property
    def alive(self) -> bool:
        """The program that receives runs."""
        return self._receiver.alive

    def turn(self, archive: Callable[[str], WalArchive | None]) -> None:
        """See that it streams, look how far the server is, and keep what has come; without an archive later.

        `archive`: of the cluster of this number. Raises SourceFailure and others.
        """
        try:
            os.makedirs(self._files, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailure(f"{self._files}: {error.strerror}; backup.state_dir must be writable") from None
        server = self._look()
        if self._state is not None and self._state.system != server.system:
            self._begin_anew("the server is another cluster than before", server.major)
            self._state = None
        if server.lost:
            self._lost(f"the server gave up the slot {self._source.rules.slot}", server.major)
        if self._went_back(server):
            self._begin_anew("the server is at an earlier state than before", server.major)
        try:
            self._receiver.see_to(server.major, server.flushed, server.end)
        except GoneError as gone:
            self._lost(str(gone), server.major)
            self._receiver.start(server.major)
        kept = archive(server.system)
        if kept is not None:
            self._keep(kept, server)

    def stop(self) -> None:
        """The program that receives ends."""
        self._receiver.stop()

    def _look(self) -> _Server:
        slot, now = _SLOT.format(slot=self._source.rules.slot), since_boot()
        said, _, (flushed, status) = self._source.server.query(self._directory, _LOOK, _MEANWHILE, slot)
        at, old, here, timeline, size, system, version, standby = said
        when = moment(self._source.name, at)
        self.lag.looked(Look(now, when, lsn(here), max(0.0, float(old))))
        return _Server(
            system, int(timeline, 16), int(size), int(version) // 10_000, lsn(here),
            lsn(flushed) if flushed else None, status == "lost", standby == "t",
        )  # fmt: skip

    def _went_back(self, server: _Server) -> bool:
        """It is a primary, and has less than it had, without a new timeline: somebody put an old copy in its place."""
        spans = self._state.spans if self._state is not None and self._since else ()
        return bool(spans) and not server.standby and (
            spans[-1].timeline == server.timeline and spans[-1].end > server.end
        )  # fmt: skip

    def _lost(self, why: str, major: int) -> None:
        """The server no longer has what comes next."""
        if not self._source.rules.resync:
            raise SourceFailure(f"{self._source.name}: {why}; resync is off: drop the slot, and take a full backup")
        self._begin_anew(why, major)

    def _begin_anew(self, why: str, major: int) -> None:
        self._receiver.drop_slot(major)
        shutil.rmtree(self._files, ignore_errors=True)
        os.makedirs(self._files, mode=0o700, exist_ok=True)
        self._since, self._last, self._kept = "", "", b""
        self.lag.began_anew()
        with contextlib.suppress(OSError):
            os.unlink(self._source.state_path)
        self._gap(f"{self._source.name}: {why}; the log has a gap now, and the next backup begins with a new base")

    # Keeping ------------------------------------------------------------------------------------------------------

    def _keep(self, archive: WalArchive, server: _Server) -> None:
        if self._state is None:
            self._remember(archive, server)
        names = sorted(os.listdir(self._files))
        for name in names:
            if SEGMENT.fullmatch(name):
                self._meet(name, server.segment_bytes)
                self._keep_whole(archive, name)
                archive.delete(name + PARTIAL)
                self._last, self._kept = name, b""
            elif name.endswith(".history"):
                self._keep_whole(archive, name)
        *ended, partial = [name for name in names if name.endswith(PARTIAL)] or [""]
        for name in ended:  # its timeline ended in it
            self._keep_ended(archive, name, server.segment_bytes)
        reached = self._keep_partial(archive, partial, server) if partial else 0
        reached = max(reached, self._end(server.segment_bytes))
        if not self._since or not reached or int(self._since[:8], 16) < server.timeline:
            return  # of the timeline that the server is on there is nothing here: it cannot be compared
        self.lag.copied(reached)
        covered = self.lag.covered_at
        if covered is not None:
            timeline = int(self._since[:8], 16)
            self._say(archive, Span(timeline=timeline, since=self._since, end=reached, covered_at=covered))

    def _remember(self, archive: WalArchive, server: _Server) -> None:
        """Go on where the repository ends, whoever brought it there."""
        try:
            state = archive.state()
        except Damaged as damage:  # we know it, too, and write it anew
            _log.warning("log_state_damaged", source=self._source.name, reason=str(damage))
            state = self._known if self._known is not None and self._known.system == server.system else None
        self._state = state or WalState(system=server.system, segment_bytes=server.segment_bytes, spans=())
        if state is None:
            return
        span, size, there = state.newest, state.segment_bytes, set(archive.names())
        number = span.end // size
        while name_of(f"{span.timeline:08X}", number, size) in there:
            number += 1
        self._since, self._last = span.since, name_of(f"{span.timeline:08X}", number - 1, size)

    def _meet(self, name: str, size: int) -> None:
        """A segment: does it go on where the last one ended?"""
        goes_on = (
            self._since[:8] == name[:8]
            and number_of(self._since, size) <= number_of(name, size) <= number_of(self._last or self._since, size) + 1
        )
        if not goes_on:
            self._since, self._last = name, ""

    def _end(self, size: int) -> int:
        """The LSN up to which whole segments, and what was said before, reach."""
        whole = (number_of(self._last, size) + 1) * size if self._last else 0
        spans = self._state.spans if self._state is not None else ()
        said = spans[-1].end if spans and spans[-1].since == self._since else 0
        return max(whole, said)

    def _keep_whole(self, archive: WalArchive, name: str) -> None:
        """What does not change any more: into the repository, and gone from here."""
        path = os.path.join(self._files, name)
        archive.put(name, _read(path))
        os.unlink(path)

    def _keep_ended(self, archive: WalArchive, partial: str, size: int) -> None:
        """A receiver that began anew has it up to where the next timeline left; the repository may have more of it."""
        path = os.path.join(self._files, partial)
        content, start = _read(path), number_of(partial.removesuffix(PARTIAL), size) * size
        said = self._said(partial, start, size)
        if not said or reaches(content, start) - PAGE > said:
            archive.put(partial, content)
        os.unlink(path)

    def _said(self, name: str, start: int, size: int) -> int:
        """How far the repository is said to reach in the segment; 0: not into it."""
        spans = self._state.spans if self._state is not None else ()
        ends = [one.end for one in spans if f"{one.timeline:08X}" == name[:8] and start < one.end <= start + size]
        return max(ends, default=0)

    def _keep_partial(self, archive: WalArchive, partial: str, server: _Server) -> int:
        """The LSN up to which it reaches; 0: not known."""
        try:
            content = _read(os.path.join(self._files, partial))
        except FileNotFoundError:
            return 0  # it has become whole just now: the next turn keeps it
        name = partial.removesuffix(PARTIAL)
        start = number_of(name, server.segment_bytes) * server.segment_bytes
        reached = min(server.flushed or 0, reaches(content, start))
        if reached <= max(start, self._said(name, start, server.segment_bytes) - 1):
            return 0  # it comes once more, from its begin: what is kept reaches further
        self._meet(name, server.segment_bytes)
        digest = hashlib.sha256(content).digest()
        if digest != self._kept:
            archive.put(partial, content)
            self._kept = digest
        return reached

    def _say(self, archive: WalArchive, span: Span) -> None:
        state = self._state
        assert state is not None, "it is remembered first"
        before = state.spans[-1] if state.spans else None
        another = before is None or (before.timeline, before.since) != (span.timeline, span.since)
        fresh = before is not None and (span.covered_at - before.covered_at).total_seconds() < SAID_AGAIN
        if before is not None and not another and before.end == span.end and fresh:
            return
        state = state.grown(span)
        archive.put_state(state)
        self._state = state
        beside = self._source.state_path + ".new"
        with open(beside, "wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, self._source.state_path)
        if another:
            self._begun()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
