"""The engine that needs no binary: contents of files, one after the other, in sealed segments.

A snapshot is a stream under `objects/SNAPSHOT/` and a small object `meta` that names its length and the size of every
segment. A file that has not changed since the parent (same size, times and inode) is not read again: its entry names
the snapshot that holds it. So an incremental snapshot leans on those that it names, and on nothing else.

Restoring makes symlinks last, so that nothing is ever written through one. Devices and sockets are left out. Names of
one file within a root (hard links) are stored once and come back as such.
"""

import contextlib
import hashlib
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sidecar.agent.engines.dress import dress, dress_link, fill, xattrs
from sidecar.agent.engines.tree import Known, same, walk
from sidecar.agent.faults import Damaged, SourceFailure, unreadable
from sidecar.agent.paths import chosen, safe_join, unspell
from sidecar.agent.ports import (
    FileEntry,
    Kind,
    Level,
    Parent,
    Progress,
    SourcePoint,
    Staged,
    Stored,
    Tell,
    Trouble,
)
from sidecar.agent.repository.seal import Keys
from sidecar.agent.repository.store import Missing, Store
from sidecar.agent.repository.streams import Reader, Writer, load_segment, segment_name

OBJECTS = "objects"
_PIECE = 1 << 20


class Meta(msgspec.Struct, frozen=True):
    """What a snapshot's stream consists of."""

    length: int
    sizes: tuple[int, ...]


class SealedEngine:
    """Keeps trees in a store of objects."""

    name = "sealed"

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def version(self) -> str:
        return "1"

    def create(self) -> None:
        """Nothing to make."""

    def heal(self) -> None:
        """What a killed run left is named by nobody: prune removes it."""

    def store(
        self,
        name: str,
        staged: Staged,
        requested: Kind,
        parent: Parent | None,
        put: Callable[[FileEntry], None],
        tell: Tell,
    ) -> Stored:
        snapshot = uuid.uuid4().hex
        prefix = f"{OBJECTS}/{snapshot}"
        known = Known(parent)
        held: set[str] = set()
        gone: set[str] = set()
        with Writer(self._store, self._keys, prefix) as writer:

            def tell_more() -> None:
                tell(Progress(phase="store", source=name, done=writer.length))

            for path, entry in walk(staged):
                before = known.of(entry.path)
                if entry.sort == "dir":
                    put(msgspec.structs.replace(entry, xattrs=xattrs(path)))
                elif entry.sort != "file":
                    put(entry)
                elif entry.link and entry.link not in gone:
                    put(msgspec.structs.replace(entry, sort="hardlink"))
                elif before is not None and parent is not None and same(before, entry, parent.source):
                    holder = before.held or parent.source.snapshot
                    held.add(holder)
                    told = msgspec.structs.replace(before, held=holder, mode=entry.mode, uid=entry.uid, gid=entry.gid)
                    put(told)
                else:
                    whole = _copy(path, entry, writer, tell_more, live=staged.live)
                    if whole is None:
                        gone.add(entry.path)
                    else:
                        put(whole)
            writer.close()
            meta = f"{prefix}/meta"
            said = msgspec.json.encode(Meta(writer.length, tuple(writer.sizes)))
            self._store.put(meta, self._keys.seal(meta, said))
            kind = requested if held else Kind.FULL  # what leans on nothing holds everything, whatever was asked for
            return Stored(snapshot=snapshot, kind=kind, leans_on=tuple(sorted(held)), bytes_added=sum(writer.sizes))

    def restore(
        self,
        source: SourcePoint,
        index: Callable[[], Iterator[FileEntry]],
        into: str,
        only: Sequence[str] | None,
        tell: Tell,
    ) -> None:
        top = os.fsencode(into)
        readers: dict[str, Reader] = {}
        links: list[FileEntry] = []
        directories: list[FileEntry] = []
        done = 0

        def came(size: int) -> None:
            nonlocal done
            done += size
            tell(Progress(phase="restore", source=source.name, done=done, total=source.bytes))

        for entry in index():
            if not chosen(entry.path, only):
                continue
            path = safe_join(top, entry.path)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            if entry.sort == "symlink":
                links.append(entry)
            elif entry.sort == "dir":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
                directories.append(entry)
            elif entry.sort == "fifo":
                os.mkfifo(path, 0o600)
                dress(path, entry)
            elif entry.sort == "hardlink":
                os.link(safe_join(top, entry.link), path, follow_symlinks=False)
            elif entry.sort == "file":
                self._bring_back(path, entry, entry.held or source.snapshot, readers, came)
        for entry in links:
            path = safe_join(top, entry.path)
            os.symlink(unspell(entry.link), path)
            dress_link(path, entry)
        for entry in reversed(directories):
            dress(safe_join(top, entry.path), entry)

    def _bring_back(
        self, path: bytes, entry: FileEntry, snapshot: str, readers: dict[str, Reader], came: Callable[[int], None]
    ) -> None:
        reader = readers.get(snapshot)
        if reader is None:
            prefix = f"{OBJECTS}/{snapshot}"
            reader = readers[snapshot] = Reader(self._store, self._keys, prefix, self._meta(snapshot).length)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", buffering=0) as file:
            fill(file, _counted(reader.read(entry.place, entry.size), came) if entry.size else (), entry)
        dress(path, entry)

    def _meta(self, snapshot: str) -> Meta:
        name = f"{OBJECTS}/{snapshot}/meta"
        try:
            return msgspec.json.decode(self._keys.unseal(name, self._store.get(name)), type=Meta)
        except Missing:
            raise Damaged(f"{name} is missing in {self._store.url}") from None

    def check(
        self, sources: Sequence[SourcePoint], level: Level, tell: Tell, part: tuple[int, int] = (1, 1)
    ) -> Iterable[Trouble]:
        found: list[Trouble] = []
        done = 0
        for snapshot in sorted({name for source in sources for name in (source.snapshot, *source.leans_on)}):
            prefix, whom = f"{OBJECTS}/{snapshot}", (snapshot,)
            try:
                meta = self._meta(snapshot)
            except Damaged as damage:
                found.append(Trouble(what="missing", where=f"{prefix}/meta", detail=str(damage), snapshots=whom))
                continue
            for number, size in enumerate(meta.sizes):
                name = segment_name(prefix, number)
                stored = self._store.size(name)
                if stored is None:
                    found.append(Trouble(what="missing", where=name, snapshots=whom))
                elif stored != size:
                    detail = f"{stored} bytes instead of {size}"
                    found.append(Trouble(what="truncated", where=name, detail=detail, snapshots=whom))
                elif level is Level.READ and zlib.crc32(name.encode()) % part[1] == part[0] - 1:
                    try:
                        load_segment(self._store, self._keys, prefix, number)
                    except Damaged as damage:
                        found.append(Trouble(what="damaged", where=name, detail=str(damage), snapshots=whom))
                    done += size
                    tell(Progress(phase="check", done=done))
        return found

    def mend(self, troubles: Sequence[Trouble]) -> None:
        """Nothing: a new snapshot leans on none that is known to be damaged."""

    def delete(self, snapshots: Sequence[str]) -> None:
        for snapshot in snapshots:
            for found in list(self._store.list(f"{OBJECTS}/{snapshot}")):
                self._store.delete(found.name)

    def prune(self, keep: Sequence[SourcePoint], tell: Tell) -> int:
        needed = {name for source in keep for name in (source.snapshot, *source.leans_on)}
        freed = 0
        for found in list(self._store.list(OBJECTS)):
            if found.name.split("/")[1] not in needed:
                tell(Progress(phase="prune", done=freed))
                self._store.delete(found.name)
                freed += found.size
        return freed


def _counted(pieces: Iterator[memoryview], came: Callable[[int], None]) -> Iterator[memoryview]:
    for piece in pieces:
        yield piece
        came(len(piece))


def _copy(
    path: bytes, entry: FileEntry, writer: Writer, tell_more: Callable[[], None], *, live: bool
) -> FileEntry | None:
    """Write the content into the stream; the entry with hash, size and place. None: it went meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if live:
            return None
        raise SourceFailure(f"{os.fsdecode(path)} is not there any more") from None
    except OSError as error:
        raise unreadable(os.fsdecode(path), error) from None
    place, digest, size = writer.length, hashlib.sha256(), 0
    with open(fd, "rb", buffering=0) as file:
        while True:
            try:
                piece = file.read(_PIECE)
            except OSError as error:
                raise unreadable(os.fsdecode(path), error) from None
            if not piece:
                break
            digest.update(piece)
            writer.write(piece)
            size += len(piece)
            tell_more()
    told = {"size": size, "sha256": digest.hexdigest(), "place": place, "xattrs": xattrs(path), "link": ""}
    return msgspec.structs.replace(entry, **told)
