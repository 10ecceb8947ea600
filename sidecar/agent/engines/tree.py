"""A tree on this machine as entries of an index, in the order of an index, and what of it surely has not changed."""

import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from sidecar.agent.engines.dress import has_holes
from sidecar.agent.faults import SourceFailure, unreadable
from sidecar.agent.paths import excluder, order, spell
from sidecar.agent.ports import FileEntry, Parent, Root, SourcePoint, Staged

SETTLED = 100_000_000
"""Nanoseconds: ten ticks of a kernel that counts 100 a second, by which file systems tell the time."""
DEEPEST = 500
"""Levels of directories: much deeper, and no system takes the paths when they come back."""


class Known:
    """The parent's index beside a walk in the same order."""

    def __init__(self, parent: Parent | None) -> None:
        self._entries = iter(()) if parent is None else parent.index()
        self._next: FileEntry | None = next(self._entries, None)

    def of(self, path: str) -> FileEntry | None:
        """What the parent says of this path; asked in ascending order."""
        key = order(path)
        while self._next is not None and order(self._next.path) < key:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next.path == path else None


def same(before: FileEntry, now: FileEntry, then: SourcePoint) -> bool:
    """Whether a file surely was not written since.

    One that was written just before the parent looked may have been written again within the same tick of the file
    system's clock, and would look the same: it is read again (git's "racily clean" entries).
    """
    told = ("sort", "size", "mtime_ns", "ctime_ns", "inode")
    settled = before.ctime_ns < int(then.began_at.timestamp() * 1e9) - SETTLED
    return settled and bool(before.sha256) and all(getattr(before, key) == getattr(now, key) for key in told)


def walk(staged: Staged) -> Iterator[tuple[bytes, FileEntry]]:
    """Every file's place on this machine, and its entry; sorted by path. Raises SourceFailure."""
    excluded = excluder(staged.exclude)
    for root in sorted(staged.roots, key=lambda one: order(one.at)):
        yield from tree(root, excluded, live=staged.live)


def tree(root: Root, excluded: Callable[[bytes, bytes], bool], *, live: bool) -> Iterator[tuple[bytes, FileEntry]]:
    """The same of one root; a file that has had a name before names that as its `link`.

    Not by recursion: who may write to the tree decides how deep it is.
    """
    top = os.fsencode(root.path)

    def within(path: bytes, at: bytes, names: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for name in names:
            inner = os.path.join(path, name)
            if not excluded(name, inner):
                yield inner, os.path.join(at, name)

    names_of: dict[tuple[int, int], str] = {}
    ahead = [iter([(top, os.fsencode(root.at))])]
    while ahead:
        path, at = next(ahead[-1], (b"", b""))
        if not path:
            ahead.pop()
            continue
        try:
            found = os.lstat(path)
            names = sorted(entry.name for entry in os.scandir(path)) if stat.S_ISDIR(found.st_mode) else []
            entry = _entry(at, path, found) if at else None
        except FileNotFoundError:
            if live and path != top:
                continue  # it went while we walked
            raise SourceFailure(f"{os.fsdecode(path)} is not there") from None
        except OSError as error:
            raise unreadable(os.fsdecode(path), error) from None
        if entry is not None:
            if found.st_nlink > 1 and entry.sort == "file":
                first = names_of.setdefault((found.st_dev, found.st_ino), entry.path)
                entry = msgspec.structs.replace(entry, link=first if first != entry.path else "")
            yield path, entry
        ahead.append(within(path, at, names))
        if len(ahead) > DEEPEST:
            raise SourceFailure(f"{root.path}: a directory in it is more than {DEEPEST} levels deep: exclude it")


def _entry(at: bytes, path: bytes, found: os.stat_result) -> FileEntry | None:
    mode = found.st_mode
    plain = FileEntry(
        path=spell(at), mode=stat.S_IMODE(mode), uid=found.st_uid, gid=found.st_gid,
        mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns,
    )  # fmt: skip
    if stat.S_ISDIR(mode):
        return msgspec.structs.replace(plain, sort="dir")
    if stat.S_ISLNK(mode):
        return msgspec.structs.replace(plain, sort="symlink", link=spell(os.readlink(path)))
    if stat.S_ISFIFO(mode):
        return msgspec.structs.replace(plain, sort="fifo")
    if stat.S_ISREG(mode):
        more = {"size": found.st_size, "inode": found.st_ino}
        return msgspec.structs.replace(plain, **more, sparse=has_holes(found))
    return None
