"""One backup: one point over all sources. It exists once its manifest is written, the very last thing.

A source that fails does not keep the others from being backed up, but the point is then incomplete: it is never planned
from, and the run has failed. Killed at any moment, nothing half is left that anybody would take for a backup.
"""

import collections
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

import sidecar
from sidecar.agent.catalog import Catalog
from sidecar.agent.faults import Damaged, NotEmpty, SourceFailure, Stirred, StorageFailure
from sidecar.agent.ports import (
    Hold,
    Kind,
    Manifest,
    Parent,
    Progress,
    SourceFault,
    SourcePoint,
    SourcePort,
    Staged,
    Tell,
)
from sidecar.agent.repository.lease import HeldLease
from sidecar.agent.repository.repository import IndexWriter, Repository
from sidecar.agent.verdicts import damaged_snapshots, newest_troubles
from sidecar.config.backup import Backup


def run_backup(
    config: Backup,
    who: tuple[str, str],
    repository: Repository,
    catalog: Catalog,
    sources: Sequence[SourcePort],
    requested: Kind,
    tell: Tell,
    reason: str = "operator",
    held: HeldLease | None = None,
) -> Manifest:
    """Make a point; `who`: service and instance; `held`: the lease, when the caller has it already.

    Raises Busy, SourceFailure when no source could be backed up.
    """
    with repository.lease("backup", create=True) if held is None else contextlib.nullcontext(held) as lease:
        began = datetime.now(UTC)
        name = f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        distrusted = damaged_snapshots(catalog)
        there = repository.readable()[0]
        if there and who[0] not in {point.service for point in there} and reason != "safety":
            raise NotEmpty(
                f"the repository {config.repository.url} holds backups of {there[0].service}, and this is {who[0]}: "
                "each would take the other's for its own; name another place in backup.repository.url"
            )
        earlier = [point for point in there if point.complete]
        if bad := newest_troubles(catalog):
            repository.engine.mend(bad)
        points: list[SourcePoint] = []
        faults: list[SourceFault] = []
        for source in sources:
            try:
                points.append(
                    _store(
                        config,
                        repository,
                        source,
                        name,
                        requested,
                        _parent(earlier, source, requested, repository, distrusted),
                        tell,
                    )
                )
            except SourceFailure as failure:
                said = str(failure).removeprefix(f"{source.name}: ")
                faults.append(SourceFault(name=source.name, reason=f"{source.name}: {said}"))
        if not points:
            raise SourceFailure("; ".join(fault.reason for fault in faults))
        manifest = Manifest(
            id=name,
            service=who[0],
            instance=who[1],
            began_at=began,
            finished_at=datetime.now(UTC),
            requested=requested,
            generation=lease.generation,
            engine=repository.engine.name,
            engine_version=repository.engine.version(),
            sidecar_version=sidecar.__version__,
            complete=not faults and len(points) == len(config.sources),
            sources=tuple(points),
            failures=tuple(faults),
            reason=reason,
        )
        catalog.add(repository.put_manifest(lease, manifest))
        return manifest


def _parent(
    earlier: list[Manifest], source: SourcePort, requested: Kind, repository: Repository, distrusted: frozenset[str]
) -> Parent | None:
    """The newest complete point that a new one may lean on; for a differential one, a full one.

    Nothing is built on what is known to be damaged, nor on an index that cannot be read: then all is stored anew.
    """
    if requested is Kind.FULL:
        return None
    for point in earlier:
        found = point.source(source.name)
        if found is None or found.sort != source.sort or not distrusted.isdisjoint((found.snapshot, *found.leans_on)):
            continue
        if requested is Kind.DIFFERENTIAL and found.kind is not Kind.FULL:
            continue
        try:
            collections.deque(repository.index(found), maxlen=0)
        except Damaged:
            continue
        return Parent(point=point.id, source=found, index=lambda found=found: repository.index(found))  # type: ignore[misc]
    return None


def _store(
    config: Backup,
    repository: Repository,
    source: SourcePort,
    name: str,
    requested: Kind,
    parent: Parent | None,
    tell: Tell,
) -> SourcePoint:
    staging = os.path.join(config.state_dir, "staging")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # what a killed run left; the lease is ours
        os.makedirs(staging, mode=0o700)
        into = tempfile.mkdtemp(prefix=f"{source.name}-", dir=staging)
    except OSError as error:
        raise StorageFailure(f"backup.state_dir: {staging}: {error.strerror}; it must be writable") from None
    try:
        try:
            return _stage_and_store(repository, source, into, name, requested, parent, tell)
        except Stirred:
            return _stage_and_store(repository, source, into, name, requested, parent, tell)
    except OSError as error:  # what an engine spools there; what it reads and where it writes it names itself
        raise StorageFailure(f"{source.name}: {error.strerror}; is there room in backup.state_dir?") from None
    finally:
        shutil.rmtree(into, ignore_errors=True)


def _stage_and_store(
    repository: Repository,
    source: SourcePort,
    into: str,
    name: str,
    requested: Kind,
    parent: Parent | None,
    tell: Tell,
) -> SourcePoint:
    """Raises Stirred when the source did not stay as it was: staged again, it does."""
    began, started = datetime.now(UTC), time.monotonic()
    staged = source.stage(into, parent, tell)
    if staged.unchanged and parent is not None:
        return _going_on(parent, staged, requested, began, time.monotonic() - started)
    with (
        _kept_still(staged.still, tell) as told,
        IndexWriter(repository, f"{name}-{source.name}") as index,
    ):
        stored = repository.engine.store(source.name, staged, requested, parent, index.put, told)
        digest = index.close()
    return SourcePoint(
        name=source.name,
        sort=source.sort,
        snapshot=stored.snapshot,
        requested=requested,
        kind=stored.kind,
        parent=parent.point if parent else None,
        leans_on=stored.leans_on,
        consistent_at=staged.consistent_at,
        behind=staged.behind,
        began_at=began,
        seconds=time.monotonic() - started,
        files=index.files,
        bytes=index.bytes,
        bytes_added=stored.bytes_added,
        index=index.name,
        index_bytes=index.length,
        index_sha256=digest,
        details=staged.details | stored.details,
    )


@contextlib.contextmanager
def _kept_still(still: Hold | None, tell: Tell) -> Iterator[Tell]:
    """What is stored within is what was staged. Raises Stirred."""
    if still is None:
        yield tell
        return

    def told(progress: Progress) -> None:
        still.check()
        tell(progress)

    with still:
        try:
            yield told
        except SourceFailure:  # perhaps since it did not stay as it was
            still.check()
            raise
        still.check()


def _going_on(parent: Parent, staged: Staged, requested: Kind, began: datetime, seconds: float) -> SourcePoint:
    """What the parent holds is what is there: the point shares its snapshot and its index."""
    return msgspec.structs.replace(
        parent.source,
        requested=requested,
        kind=Kind.UNCHANGED,
        parent=parent.point,
        consistent_at=staged.consistent_at,
        behind=staged.behind,
        began_at=began,
        seconds=seconds,
        bytes_added=0,
        details=parent.source.details | staged.details,
    )
