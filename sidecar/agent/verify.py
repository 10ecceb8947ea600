"""Verification: is a point what was stored, and would it come back? Three levels, and a record (`verdicts.py`).

* manifest: the signature, the index, and that every object is there with its size. Cheap.
* sample (the default, and what *verified* means): besides, some files and every database are restored into a scratch
  directory; files are compared with the hashes that the index holds, databases are opened and checked. Of a log the
  newest segment and some others are read.
* read: besides, every stored byte is read and opened.

What is wrong is named: the object, the file, and what is the matter with it. Verification changes nothing of what is
stored, so it needs no lease; it may run beside a backup.
"""

import contextlib
import hashlib
import os
import random
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from sidecar.agent.faults import AgentFault, Damaged, StorageFailure, Unknown
from sidecar.agent.paths import safe_join
from sidecar.agent.ports import FileEntry, Kind, Level, Manifest, Progress, SourcePoint, SourcePort, Tell, Trouble
from sidecar.agent.repository.repository import MANIFESTS, Repository
from sidecar.agent.scratch import own_directory
from sidecar.agent.verdicts import Verification
from sidecar.agent.wal import number_of

SAMPLE_FILES, SAMPLE_BYTES = 16, 64 << 20
"""Of a source of files, at most; a database is always restored whole."""


def verify_point(
    repository: Repository,
    manifest: Manifest,
    level: Level,
    sources: dict[str, SourcePort],
    scratch: str,
    tell: Tell,
    looked_at: Set[str] = frozenset(),
) -> Verification:
    """Look at one point; `scratch` is a directory on this machine in which a sample may be restored.

    `looked_at`: snapshots that were sampled before, and were sound; where nothing changed since they are not again.
    """
    at, began = datetime.now(UTC), time.monotonic()
    troubles = [*repository.engine.check(manifest.sources, Level.MANIFEST, tell)]
    troubles += manifest_troubles(repository, manifest)
    for source in manifest.sources:
        if source.sort == "postgres":
            troubles += _log_troubles(repository, source, level)
    if level is Level.READ and not troubles:
        troubles += repository.engine.check(manifest.sources, Level.READ, tell)
    if level is not Level.MANIFEST and not troubles:
        for source in manifest.sources:
            if level is Level.SAMPLE and source.kind is Kind.UNCHANGED and source.snapshot in looked_at:
                continue
            troubles += _sample(repository, source, sources.get(source.name), scratch, tell)
    seconds = time.monotonic() - began
    return Verification(point=manifest.id, level=level, at=at, seconds=seconds, troubles=tuple(troubles))


def manifest_troubles(repository: Repository, manifest: Manifest) -> Iterator[Trouble]:
    """What is wrong with the manifest in the repository, and with the indexes that it names.

    A rotten manifest harms its own point alone: what others lean on is still there.
    """
    place = f"{MANIFESTS}/{manifest.id}"
    try:
        if repository.manifest(manifest.id) != manifest:
            yield Trouble(what="exchanged", where=place, detail="it is not the one that was written")
    except Damaged as damage:
        yield Trouble(what="damaged", where=place, detail=str(damage))
    except Unknown:
        yield Trouble(what="missing", where=place)
    for source in manifest.sources:
        try:
            for _ in repository.index(source):  # every entry is read, and the whole compared with its hash
                pass
        except Damaged as damage:
            yield _damaged(damage, source)


def _log_troubles(repository: Repository, source: SourcePoint, level: Level) -> Iterator[Trouble]:
    """What the log lacks between the base backup and the point; a sample of it is read, or all."""
    details = source.details
    if not details.get("streamed"):
        return
    size = int(details["segment_bytes"])
    first, last = number_of(str(details["wal_to"]), size), (int(details["end_lsn"]) - 1) // size
    numbers = range(first, max(first, last) + 1)
    sample = random.sample(numbers, min(len(numbers), max(1, SAMPLE_BYTES // size)))
    read = {Level.MANIFEST: None, Level.SAMPLE: sample.__contains__, Level.READ: lambda _number: True}[level]
    yield from repository.log_of(source).troubles(details, source.snapshot, read)


def read_logs(
    repository: Repository, points: Sequence[Manifest], part: int, parts: int, tell: Tell
) -> Iterator[Trouble]:
    """Read part n of m of the logs that these points need, each segment once."""
    furthest: dict[str, SourcePoint] = {}
    """By base backup."""
    for source in (source for point in points for source in point.sources if source.details.get("streamed")):
        before = furthest.setdefault(source.snapshot, source)
        if before.details["end_lsn"] < source.details["end_lsn"]:
            furthest[source.snapshot] = source

    def read(number: int) -> bool:
        tell(Progress(phase="check"))
        return number % parts == part - 1

    for snapshot, source in furthest.items():
        yield from repository.log_of(source).troubles(source.details, snapshot, read)


def _sample(
    repository: Repository, source: SourcePoint, port: SourcePort | None, scratch: str, tell: Tell
) -> Iterator[Trouble]:
    whole = source.sort != "files"
    chosen = {entry.path: entry for entry in _choose(repository.index(source), whole=whole)}
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(scratch, mode=0o700, exist_ok=True)
            into = stack.enter_context(own_directory(scratch, "verify-"))
        except OSError as error:
            raise StorageFailure(
                f"cannot verify in {scratch}: {error.strerror}; backup.state_dir must be writable"
            ) from None
        try:
            repository.engine.restore(
                source, lambda: repository.index(source), into, None if whole else sorted(chosen), tell
            )
            whose = "the source itself was so when it was backed up: look at it"
            for entry, wrong in compare_all(into, chosen.values()):
                if wrong:
                    whose = "the copy is not what was backed up"
                    where = f"{source.name}: {entry.path}"
                    yield Trouble(what="damaged", where=where, detail=wrong, snapshots=(source.snapshot,))
            if port is not None and whole:
                for wrong in port.validate(into, source):
                    detail = f"{wrong}; {whose}"
                    yield Trouble(what="unsound", where=source.name, detail=detail, snapshots=(source.snapshot,))
        except Damaged as damage:
            yield _damaged(damage, source)


def _choose(entries: Iterator[FileEntry], *, whole: bool) -> list[FileEntry]:
    """All files, or a fair sample (by reservoir) of those that fit; memory stays that of the sample."""
    if whole:
        return [entry for entry in entries if entry.sort == "file"]
    chosen: list[FileEntry] = []
    seen = 0
    for entry in entries:
        if entry.sort != "file" or entry.size > SAMPLE_BYTES:
            continue
        seen += 1
        if len(chosen) < SAMPLE_FILES:
            chosen.append(entry)
        elif (place := random.randrange(seen)) < SAMPLE_FILES:
            chosen[place] = entry
    left, fitting = SAMPLE_BYTES, []
    for entry in random.sample(chosen, len(chosen)):
        if entry.size <= left:
            left -= entry.size
            fitting.append(entry)
    return fitting


def compare_all(directory: str, entries: Iterable[FileEntry]) -> Iterator[tuple[FileEntry, str]]:
    """Each restored file and what is wrong with it, in order. Hashing lets go of the interpreter: in threads."""
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="compare") as threads:
        under_way: deque[tuple[FileEntry, Future[str]]] = deque()
        try:
            for entry in entries:
                under_way.append((entry, threads.submit(compare, directory, entry.path, entry)))
                if len(under_way) >= 16 * workers:
                    first, wrong = under_way.popleft()
                    yield first, wrong.result()
            while under_way:
                first, wrong = under_way.popleft()
                yield first, wrong.result()
        finally:
            for _, left in under_way:
                left.cancel()


def compare(directory: str, path: str, entry: FileEntry) -> str:
    """What is wrong with the restored file; empty: nothing."""
    try:
        fd = os.open(safe_join(os.fsencode(directory), path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return f"it did not come back: {error.strerror}"
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            return f"it has {found.st_size} bytes, and had {entry.size}"
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            return "its SHA-256 is another than when it was backed up"
    return ""


def _damaged(damage: AgentFault, source: SourcePoint) -> Trouble:
    return Trouble(what="damaged", where=source.name, detail=str(damage), snapshots=(source.snapshot,))
