"""One turn of the agent's work: a point and its verification, what retention lets go, a part of all data read again.

The same by command and by schedule. All of it waits for disks and programs, so the service calls it in a thread;
`tell` raises to stop it, and nothing half is left then.
"""

import os
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from sidecar.agent import findings, history
from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import AgentFault, Busy
from sidecar.agent.holds import holds
from sidecar.agent.ports import Kind, Level, Manifest, SourcePort, Tell
from sidecar.agent.repository.repository import Repository
from sidecar.agent.retain import carry_out, decide
from sidecar.agent.run import run_backup
from sidecar.agent.verdicts import Verification, concerns, record, records, sampled, verified
from sidecar.agent.verify import manifest_troubles, read_logs, verify_point
from sidecar.config.backup import Backup
from sidecar.machines.backup.schedule import Made, choose


class Stopped(AgentFault):
    """Whoever asked for the work wants it no longer."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run."""

    manifest: Manifest
    seen: Verification
    seconds: float
    """Verification included."""

    @property
    def good(self) -> bool:
        """The point is complete and verified."""
        return self.manifest.complete and self.seen.ok


class PartRead(msgspec.Struct, frozen=True):
    """A part of everything stored was read."""

    part: int
    at: datetime
    troubles: int


def make_point(
    config: Backup,
    who: tuple[str, str],
    repository: Repository,
    catalog: Catalog,
    sources: Sequence[SourcePort],
    requested: Kind,
    tell: Tell,
    asked: str,
) -> Turn:
    """Back up and verify by sample, and remember how it went. Raises what `run_backup` raises."""
    began, started = datetime.now(UTC), time.monotonic()
    try:
        point = run_backup(config, who, repository, catalog, sources, requested, tell, asked)
        scratch = os.path.join(config.state_dir, "scratch")
        by_name = {one.name: one for one in sources}
        seen = verify_point(repository, point, Level.SAMPLE, by_name, scratch, tell, sampled(catalog))
        record(repository, catalog, seen)
    except (Busy, Stopped):
        raise
    except AgentFault as fault:
        seconds = time.monotonic() - started
        history.note(
            catalog, history.Ran(began=began, seconds=seconds, point=None, verified=False, asked=asked, why=str(fault))
        )
        raise
    turn = Turn(manifest=point, seen=seen, seconds=time.monotonic() - started)
    why = "; ".join([one.reason for one in point.failures] or [one.where for one in seen.troubles])
    history.note(
        catalog,
        history.Ran(
            began=began, seconds=turn.seconds, point=point.id, verified=turn.good, asked=asked, why=why
        ),
    )  # fmt: skip
    return turn


def next_kind(config: Backup, catalog: Catalog, now: datetime) -> Kind:
    """The kind of the next scheduled run."""
    made = []
    for point in catalog.points():
        if point.complete:
            full = all(source.kind is Kind.FULL for source in point.sources)
            # a database comes whole each time and makes no chain longer
            added = sum(source.bytes_added for source in point.sources if full or source.leans_on)
            made.append(Made(Kind.FULL if full else point.requested, (now - point.began_at).total_seconds(), added))
    return Kind(choose(made, config.full_every, config.differential_every))


def forget(config: Backup, repository: Repository, catalog: Catalog) -> int:
    """Let go what no rule keeps; how many points."""
    going = decide(config, catalog, holds(repository), datetime.now(UTC)).delete
    return len(carry_out(repository, catalog, list(going))) if going else 0


def prune(repository: Repository, tell: Tell) -> int:
    """Remove the data that no point needs; bytes that came free."""
    with repository.lease("prune") as lease:
        findings.sweep(repository, lease)
        return repository.prune(lease, tell)


def read_part(repository: Repository, catalog: Catalog, part: int, parts: int, tell: Tell) -> list[Verification]:
    """Read part n of m of everything stored, and manifests and indexes of as many points.

    What is damaged is recorded with each point that it concerns.
    """
    at, began = datetime.now(UTC), time.monotonic()
    points = [point for point in catalog.points() if point.complete]
    sources = [source for point in points for source in point.sources]
    troubles = list(repository.engine.check(sources, Level.READ, tell, (part, parts)))
    troubles += read_logs(repository, points, part, parts, tell)
    found = []
    left = {point.id for point in catalog.points()}
    for point in [point for point in points if point.id in left]:  # of what was forgotten meanwhile all may be gone
        mine = [one for one in troubles if concerns(one, point)]
        if zlib.crc32(point.id.encode()) % parts == part - 1:
            mine += manifest_troubles(repository, point)
        if mine:
            seconds = time.monotonic() - began
            found.append(Verification(point=point.id, level=Level.READ, at=at, seconds=seconds, troubles=tuple(mine)))
            record(repository, catalog, found[-1])
    body = msgspec.json.encode(PartRead(part, at, len({trouble.where for one in found for trouble in one.troubles})))
    findings.add(repository, catalog, findings.Sort.READING, findings.ALL, body)
    return found


def last_read(catalog: Catalog) -> tuple[int, datetime] | None:
    """The part read last, and when; when none ever was, the one before the first, when the oldest point was made.

    None: there is nothing to read.
    """
    for _, body in findings.found(catalog, findings.Sort.READING, 1):
        if body is not None:
            said = msgspec.json.decode(body, type=PartRead)
            return said.part, said.at
    oldest = min((point.finished_at for point in catalog.points()), default=None)
    return None if oldest is None else (0, oldest)


def newest_verified(catalog: Catalog) -> Manifest | None:
    """The point that a disaster would bring back."""
    known = records(catalog)
    return next((one for one in catalog.points() if one.complete and verified(known.get(one.id))), None)
