"""A PostgreSQL cluster: a base backup now and then, and its log as it is written.

A base backup is taken by pg_basebackup, with the log that makes it whole, so it can be restored by itself. While the
agent streams the log (`lanes/streaming.py`), a point needs no new one: as long as the log since the last base backup is
here without a gap, a point is that base backup and the log up to a moment. A full one is taken once a day, by order
(`--kind full`), and whenever there is a gap.

Tablespaces outside the data directory are taken with it (`postgres_tablespaces.py`); when there is another one, or one
less, a new base backup begins. A standby is backed up like a primary; how old it is is known by the last commit that it
has.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from sidecar.agent.children import run, written
from sidecar.agent.faults import Damaged, EngineFailure, SourceFailure
from sidecar.agent.ports import Parent, Placement, Progress, Root, SourcePoint, Staged, Tell
from sidecar.agent.sources.postgres_copy import replay, served
from sidecar.agent.sources.postgres_tablespaces import bring_in, link, made, mapping, outside
from sidecar.agent.sources.postgres_tools import MOMENT, SERVICE, Server, find, moment
from sidecar.agent.wal import Span, WalArchive, WalState, lsn, name_of, segments
from sidecar.config.backup import PostgresSource as Rules
from sidecar.runtime.logs import Log

BASE_EVERY = timedelta(days=1)
CATCH_UP = 15.0
"""Seconds that the log may still take to the end of the base backup that it goes on from."""
_ABOUT = f"""SELECT current_setting('server_version_num'), pg_size_bytes(current_setting('wal_segment_size')),
 (SELECT system_identifier FROM pg_control_system()), {MOMENT} AT TIME ZONE 'UTC',
 (SELECT rolname FROM pg_roles WHERE oid = 10), current_database(),
 (SELECT sum(pg_database_size(oid)) FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')),
 extract(epoch FROM now() - {MOMENT})"""  # noqa: S608 - of words of ours

_log = Log(__name__)


class PostgresSource:
    """One cluster."""

    sort = "postgres"

    def __init__(self, name: str, rules: Rules, state_dir: str) -> None:
        self.name = name
        self.rules = rules
        self.server = Server(name, rules.dsn_file, rules.programs)
        self.directory = os.path.join(state_dir, "wal", name)
        """What is streamed lies here until it is in the repository."""

    @property
    def state_path(self) -> str:
        """Where it is written down how far the log is streamed."""
        return os.path.join(self.directory, "state.json")

    # Backing up ---------------------------------------------------------------------------------------------------

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:
        try:
            return self._stage(into, parent, tell)
        except EngineFailure as fault:
            raise SourceFailure(f"{self.name}: {fault}") from None

    def _stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:
        number, size, system, now, superuser, database, total, old = self._about(into)
        at, behind = moment(self.name, now), max(0.0, float(old))
        if parent is not None and self.rules.stream:
            going_on = self._going_on(parent.source, system, at, tell)
            # what has been made since is in the log, where no copy may replay it: asked last
            if going_on is not None and sorted(self._outside(into)) == going_on.details.get("tablespaces", []):
                going_on.behind += behind
                return going_on
        data, tablespaces = os.path.join(into, "data"), self._outside(into)
        self._base(data, int(number) // 10_000, into, tablespaces, int(total or 0), tell)
        manifest = _look_through(self.name, data)
        ended = moment(self.name, self._about(into)[3])
        wal, *more = manifest["WAL-Ranges"]
        if more:
            raise SourceFailure(f"{self.name}: a new timeline began during the base backup: the next run takes another")
        timeline, bytes_ = f"{wal['Timeline']:08X}", int(size)
        first, end = name_of(timeline, lsn(wal["Start-LSN"]) // bytes_, bytes_), lsn(wal["End-LSN"])
        if made(os.path.join(data, "pg_wal"), list(segments(first, end, bytes_)), bytes_):
            raise SourceFailure(
                f"{self.name}: a tablespace was made during the base backup: the next run takes another"
            )
        return Staged(
            roots=(Root(path=data),),
            consistent_at=at,
            behind=behind,
            details={
                "major": int(number) // 10_000,
                "system": system,
                "superuser": superuser,
                "database": database,
                "segment_bytes": bytes_,
                "wal_from": first,
                "wal_to": name_of(timeline, (end - 1) // bytes_, bytes_),
                "end_lsn": end,
                "tablespaces": sorted(tablespaces),
                "base_at": at.isoformat(),
                "restorable_from": ended.isoformat(),
                "streamed": False,
            },
        )

    def _about(self, scratch: str) -> list[str]:
        (found,) = self.server.query(os.path.join(scratch, ".reach"), _ABOUT)
        if len(found) != 8:
            raise SourceFailure(f"{self.name}: the server does not say what it is")
        return found

    def _outside(self, scratch: str) -> dict[str, str]:
        return outside(self.server, os.path.join(scratch, ".reach"))

    def _going_on(self, before: SourcePoint, system: str, now: datetime, tell: Tell) -> Staged | None:
        """The last base backup and the log up to now; None: a new base backup is needed, or the log is far behind."""
        details, until = before.details, time.monotonic() + CATCH_UP
        if details["system"] != system or abs(now - datetime.fromisoformat(details["base_at"])) >= BASE_EVERY:
            return None
        while True:
            state = self.local_state()
            span = state.newest if state is not None and state.system == system else None
            if span is None or not span.begins_within(details):
                return None
            if (now - span.covered_at).total_seconds() > self.rules.max_lag:
                return None
            if span.end >= int(details["end_lsn"]) and span.covered_at >= before.consistent_at:
                break
            if time.monotonic() >= until:
                return None
            tell(Progress(phase="stage", source=self.name))  # the base backup has just ended: its end is still to come
            time.sleep(0.2)
        return Staged(
            roots=(),
            consistent_at=span.covered_at,
            behind=max(0.0, (now - span.covered_at).total_seconds()),
            details={**details, "end_lsn": span.end, "streamed": True},
            unchanged=True,
        )

    def _base(self, data: str, major: int, scratch: str, tablespaces: dict[str, str], total: int, tell: Tell) -> None:
        def beat(pid: int) -> None:
            tell(Progress(phase="stage", source=self.name, done=written(pid), total=total))

        program = find("pg_basebackup", self.rules.programs, major)
        words = [program, "-w", "-d", SERVICE, "-D", data, "-Fp", "-Xstream", "-cfast", "--no-sync"]
        aside = os.path.join(scratch, "tablespaces")
        with self.server.reached(os.path.join(scratch, ".reach")) as env:
            ended = run([*words, "--manifest-checksums=SHA256", *mapping(tablespaces, aside)], env, beat=beat)
        if ended.code or ended.stopped:
            raise self.server.failure("pg_basebackup", ended)
        bring_in(self.name, data, tablespaces, aside)

    def local_state(self) -> WalState | None:
        """How far the log is streamed, as this machine knows; None: it is not."""
        try:
            with open(self.state_path, "rb") as file:
                return msgspec.json.decode(file.read(), type=WalState)
        except (OSError, msgspec.DecodeError):
            return None

    # Restoring ----------------------------------------------------------------------------------------------------

    def validate(self, restored: str, point: SourcePoint) -> list[str]:
        """What pg_basebackup wrote down of its files still holds."""
        try:
            _look_through(self.name, restored)
            with open(os.path.join(restored, "PG_VERSION"), encoding="ascii") as file:
                version = file.read().strip()
        except (OSError, UnicodeError, SourceFailure) as error:
            return [str(error)]
        return [] if version == str(point.details["major"]) else [f"it is of version {version}"]

    def latest(self, archive: WalArchive, point: SourcePoint) -> datetime | None:
        """The last moment that can be brought back, starting from this point; None: its log was not streamed."""
        span = _span(archive, point)
        if span is not None:
            return max(span.covered_at, point.consistent_at)
        return point.consistent_at if point.details["streamed"] else None

    def complete(self, restored: str, at: str, point: SourcePoint, archive: WalArchive, until: datetime | None) -> None:
        """Let the copy end at the moment `until`, at the earliest when it is whole; None: as late as the log goes."""
        link(self.name, restored, at, point.details.get("tablespaces", ()))
        span = _span(archive, point)
        if span is not None or point.details["streamed"]:
            end = span.end if span is not None else int(point.details["end_lsn"])
            whole = datetime.fromisoformat(point.details["restorable_from"])
            replay(restored, point, archive, until and max(until, whole), end, self.rules.programs)

    def opened(
        self, restored: str, point: SourcePoint, scratch: str
    ) -> AbstractContextManager[Callable[[str, float], Any]]:
        """A server on the copy (`ports.Database`)."""
        return served(restored, point, scratch, self.rules.programs)

    def placements(self, point: SourcePoint) -> list[Placement]:  # noqa: ARG002 - the port's
        """None: a running server's directory is not exchanged under it."""
        return []

    def beside(self, placement: Placement) -> list[str]:  # noqa: ARG002 - the port's
        return []


def _span(archive: WalArchive, point: SourcePoint) -> Span | None:
    """What of the log goes on, without a gap, where the base backup ends."""
    try:
        state = archive.state()
    except Damaged as damage:  # the base backups and the points in the log are known without it
        _log.warning("log_state_damaged", source=point.name, reason=str(damage))
        return None
    return None if state is None else state.span_of(point.details)


def _look_through(name: str, data: str) -> dict[str, Any]:
    """The base backup's own manifest, all of whose files are there as it says. Raises SourceFailure."""
    try:
        with open(os.path.join(data, "backup_manifest"), "rb") as file:
            manifest: dict[str, Any] = json.load(file)
        for entry in manifest["Files"]:
            path = os.path.join(data, _path(entry))
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry["Checksum"]:
                raise SourceFailure(f"{name}: {path} is not what the server sent")
    except (OSError, ValueError, KeyError) as error:
        raise SourceFailure(f"{name}: the base backup is not whole: {error}") from None
    return manifest


def _path(entry: dict[str, str]) -> str:
    path = entry["Path"] if "Path" in entry else os.fsdecode(bytes.fromhex(entry["Encoded-Path"]))
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads outside")
    return path
