"""The words and ports that the two halves of the agent share: what stores, and what decides when and proves.

A *point* is one run over all sources, and exists once its manifest is written. For each source it names a *snapshot*:
an id that the engine understands. Points may share a snapshot (nothing had changed), and a snapshot may lean on older
ones; so forgetting a point removes its manifest only, and `Repository.prune` later removes what no point needs.

Beside the manifest each source has an *index*: every file with its size, mode and the SHA-256 of its plain text, sorted
by path. It makes verification independent of the engine. Indexes can be large and are read as a stream.

Times are aware UTC. Order among points is by `generation`, which the lease hands out, never by a clock.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from sidecar.agent.wal import WalArchive


class Kind(StrEnum):
    """What was asked for (the first three), and what is physically stored."""

    FULL = "full"
    """Everything again."""
    INCREMENTAL = "incremental"
    """What changed since the last point; leans on its snapshots."""
    DIFFERENTIAL = "differential"
    """What changed since the last full one; leans on that."""
    DEDUPLICATED = "deduplicated"
    """New blocks only, in a snapshot that stands alone."""
    UNCHANGED = "unchanged"
    """Nothing: the parent's snapshot still is what is there."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file, directory or link of an index.

    `path` is relative to the restored source's directory; `agent/paths.py` says how a name that is not UTF-8 is spelt.
    """

    path: str
    sort: str = "file"
    """file, dir, symlink, hardlink or fifo."""
    size: int = 0
    sha256: str = ""
    """Of the plain text, hexadecimal; files only."""
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    link: str = ""
    """A symlink's target, or the path whose content a hard link shares."""
    xattrs: dict[str, bytes] = {}
    sparse: bool = False
    ctime_ns: int = 0
    inode: int = 0
    held: str = ""
    """The snapshot in which its content stands, when it is not this one (sealed engine)."""
    place: int = -1
    """Where the content begins within that snapshot's plain stream (sealed engine)."""


class SourcePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a point holds of one source."""

    name: str
    sort: str
    """sqlite, files, redis or postgres."""
    snapshot: str
    requested: Kind
    kind: Kind
    parent: str | None
    """The point that this one was made against."""
    leans_on: tuple[str, ...] = ()
    """Other snapshots without which this one cannot be restored."""
    consistent_at: datetime
    """The moment whose state the copy has."""
    behind: float = 0.0
    """Seconds by which it was old already when the run came to it, by the source's own clock."""
    began_at: datetime
    seconds: float
    files: int
    bytes: int
    """Of plain text."""
    bytes_added: int
    """That the repository grew by, as the engine counts."""
    index: str
    """The index's name in the repository."""
    index_bytes: int
    """Of the index's plain text."""
    index_sha256: str
    details: dict[str, Any] = {}
    """What the source wants to know at restore: versions, LSNs, roots."""


class SourceFault(msgspec.Struct, frozen=True, kw_only=True):
    """A source that failed, and why."""

    name: str
    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A point: one run over all sources."""

    format: int = 1
    id: str
    service: str
    instance: str
    began_at: datetime
    finished_at: datetime
    requested: Kind
    generation: int
    engine: str
    engine_version: str
    sidecar_version: str
    complete: bool
    """Whether every source is in it. What is not complete is never planned from."""
    sources: tuple[SourcePoint, ...]
    failures: tuple[SourceFault, ...] = ()
    reason: str = ""
    """Who asked: operator, schedule, safety, …"""

    @property
    def consistent_at(self) -> datetime | None:
        """The oldest of its sources' moments: what is younger may be lost."""
        return min((source.consistent_at for source in self.sources), default=None)

    def source(self, name: str) -> SourcePoint | None:
        return next((source for source in self.sources if source.name == name), None)


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes as they were signed: a manifest's, a finding's."""

    body: bytes
    signature: bytes
    """Ed25519, by a key that comes from the repository's."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a long piece of work has come."""

    phase: str
    """stage, store, index, restore, check, prune, …"""
    source: str = ""
    done: int = 0
    total: int = 0
    """Bytes; 0: not known."""
    files: int = 0


Tell = Callable[[Progress], None]
"""Is told every now and then; raises to stop the work."""


class Level(StrEnum):
    """How thoroughly is looked."""

    MANIFEST = "manifest"
    """Signature, index, and that every object is there with its size."""
    SAMPLE = "sample"
    READ = "read"
    """Every byte."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something stored is not as it should be."""

    what: str
    """missing, damaged, truncated, …"""
    where: str
    """The object, pack or path."""
    detail: str = ""
    snapshots: tuple[str, ...] = ()
    """Whom it concerns; empty: not known."""


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A tree on this machine, and where it stands in the restored source: `at` is "" or a relative path."""

    path: str
    at: str = ""


class Hold(Protocol):
    """Keeps a source as it is, while the context lasts."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...

    def check(self) -> None:
        """Raises Stirred when it did not stay as it was, or when that costs too much."""
        ...


class Staged(msgspec.Struct, kw_only=True):
    """A source, ready to be stored."""

    roots: tuple[Root, ...]
    consistent_at: datetime
    exclude: tuple[str, ...] = ()
    details: dict[str, Any] = {}
    unchanged: bool = False
    """Nothing changed since the parent, for certain: it need not be looked at again."""
    live: bool = False
    """Others may write to it while it is read."""
    behind: float = 0.0
    """Seconds by which the state was old already when it was staged, by the source's own clock."""
    still: Hold | None = None
    """What keeps it as it is until it is stored. Staged again after Stirred, the source has none."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine made of it."""

    snapshot: str
    kind: Kind
    leans_on: tuple[str, ...] = ()
    bytes_added: int = 0
    details: dict[str, Any] = {}
    """What the engine wants to know at restore."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What a new snapshot may lean on."""

    point: str
    source: SourcePoint
    index: Callable[[], Iterator[FileEntry]]
    """Opens its index; sorted by path."""


class Engine(Protocol):
    """Keeps trees. Everything that writes is called under the lease only."""

    name: str

    def version(self) -> str: ...
    def create(self) -> None:
        """Make ready for a first snapshot. Again after an interrupted first time is no error."""
        ...

    def heal(self) -> None:
        """Clear what a killed run left behind: locks, half-written objects. Called once after the lease is taken."""
        ...

    def store(
        self, name: str, staged: Staged, requested: Kind, parent: Parent | None, put: Callable[[FileEntry], None],
        tell: Tell,
    ) -> Stored:  # fmt: skip
        """Store the tree; `put` gets every entry, sorted by path."""
        ...

    def restore(
        self, source: SourcePoint, index: Callable[[], Iterator[FileEntry]], into: str, only: Sequence[str] | None,
        tell: Tell,
    ) -> None:  # fmt: skip
        """Write the source (of which `only` these paths and what is below) into the empty directory `into`."""
        ...

    def check(
        self, sources: Sequence[SourcePoint], level: Level, tell: Tell, part: tuple[int, int] = (1, 1)
    ) -> Iterable[Trouble]:
        """Look at what these lean on; READ reads part n of m of all data."""
        ...

    def mend(self, troubles: Sequence[Trouble]) -> None:
        """Make sure that nothing new counts on what these say is missing or damaged."""
        ...

    def delete(self, snapshots: Sequence[str]) -> None:
        """Forget snapshots that no point names any more."""
        ...

    def prune(self, keep: Sequence[SourcePoint], tell: Tell) -> int:
        """Remove data that none of these needs; bytes that came free. `tell` is asked before anything is removed."""
        ...


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a restored thing belongs: `restored` is relative to the source's directory, `live` absolute."""

    restored: str
    live: str


class SourcePort(Protocol):
    """One configured source."""

    name: str
    sort: str

    def stage(self, into: str, parent: Parent | None, tell: Tell) -> Staged:
        """Make a consistent copy in the empty directory `into`, or name what is to be read where it is.

        Raises SourceFailure when anything of it is missing or cannot be read.
        """
        ...

    def validate(self, restored: str, point: SourcePoint) -> list[str]:
        """Open the copy in the directory `restored` and look whether it is sound; what is wrong with it."""
        ...

    def placements(self, point: SourcePoint) -> list[Placement]:
        """Where each part belongs. Empty: it cannot be put into place as files (a running server)."""
        ...

    def beside(self, placement: Placement) -> list[str]:
        """Files next to the live one that must go when it is replaced (SQLite's -wal and -shm)."""
        ...


@runtime_checkable
class Database(Protocol):
    """A source whose copy can be asked questions."""

    def opened(
        self, restored: str, point: SourcePoint, scratch: str
    ) -> AbstractContextManager[Callable[[str, float], Any]]:
        """Open the copy, with a server of its own if it needs one: (query, patience in seconds) -> the first value.

        `scratch`: an empty directory. What is in `restored` may change. The question raises AgentFault.
        """
        ...


@runtime_checkable
class Logged(Protocol):
    """A source whose copy can be brought to any moment by its log."""

    def latest(self, archive: "WalArchive", point: SourcePoint) -> datetime | None:
        """The last moment to which it can be brought; None: it has no log, and stays as it is."""
        ...

    def complete(
        self, restored: str, at: str, point: SourcePoint, archive: "WalArchive", until: datetime | None
    ) -> None:
        """Add the log to the copy, so that it ends at `until`; None: as late as it goes. Again is no error.

        `at`: the absolute path where it will stand when it is opened. Raises OutOfReach.
        """
        ...


class Lease(Protocol):
    """The right to write to the repository, held by one agent at a time."""

    generation: int

    def check(self) -> None:
        """Raise LeaseLost unless it certainly is still ours."""
        ...

    def release(self) -> None: ...
