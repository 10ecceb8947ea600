"""The index of a restic snapshot: every file with the hash of the plain text that the snapshot holds.

restic tells no SHA-256 of a file. So the tree is walked before restic begins, and meanwhile a thread of ours hashes
what has changed since the parent, into a file without a name. If nothing in the tree was touched from that walk until
restic had ended, both have read the same, and that is all: so it is in a directory of ours, in which nobody writes.
Otherwise that walk is compared with what the snapshot says of each file: the same size and times, read long enough
after the last write, mean the same content. Of the few that others wrote to meanwhile, the content is brought back from
the snapshot and hashed.
"""

import contextlib
import hashlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO

import msgspec

from sidecar.agent.engines.tree import SETTLED, Known, same, tree
from sidecar.agent.faults import SourceFailure, StorageFailure, unreadable
from sidecar.agent.paths import excluder, spell, unspell
from sidecar.agent.ports import FileEntry, Parent, Root, Staged

WALK_SECONDS = 2.0
"""For so long restic waits for the walk, at most; a tree that takes longer is compared with the snapshot."""
_LOST = b"\xef\xbf\xbd"
"""What restic prints for a byte that is no UTF-8."""


class Node(msgspec.Struct):
    """A file as `restic ls --json` tells it."""

    path: str = ""
    type: str = ""
    uid: int = 0
    gid: int = 0
    size: int = 0
    mode: int = 0
    mtime: str = ""
    ctime: str = ""
    struct_type: str = ""


class Walked(msgspec.Struct):
    """What our own walk found."""

    entry: FileEntry
    sure: bool


class Hasher:
    """Walks and hashes in a thread of its own; the context begins after the walk, and leaving it stops the thread."""

    def __init__(self, staged: Staged, roots: list[Root], parent: Parent | None, scratch: str) -> None:
        self._staged = staged
        self._roots = roots
        self._parent = parent
        self._scratch = scratch
        try:
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed at the end
        except OSError as error:
            raise StorageFailure(f"{scratch}: {error.strerror}; backup.state_dir must be writable") from None
        self._ends: list[int] = []
        self.seen = (0, 0)
        """Files and bytes."""
        self._walked = threading.Event()
        self._stop = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="hash", daemon=True)

    def __enter__(self) -> "Hasher":
        self._began = time.time_ns()
        self._thread.start()
        self._walked_before = self._walked.wait(WALK_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        self._spool.close()

    def join(self) -> None:
        """Wait for its end. Raises what stopped it."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def found(self, number: int) -> Iterator[Walked]:
        """What it found below root `number`; asked in ascending order."""
        if number == 0:
            self._spool.seek(0)
        while self._spool.tell() < self._ends[number]:
            yield msgspec.json.decode(self._spool.readline(), type=Walked)

    def all(self) -> Iterator[Walked]:
        """What it found below all roots."""
        for number in range(len(self._ends)):
            yield from self.found(number)

    def still(self) -> bool:
        """Whether nothing that it walked over was touched from before the context began until now."""
        if not self._staged.live:
            return True
        if not self._walked_before:
            return False
        excluded = excluder(self._staged.exclude)
        try:
            for number, root in enumerate(self._roots):
                now = (entry for _, entry in tree(root, excluded, live=True))
                for then, entry in itertools.zip_longest(self.found(number), now):
                    if then is None or entry is None or not then.sure or entry.ctime_ns >= self._began - SETTLED:
                        return False
                    if msgspec.structs.replace(then.entry, sha256="") != entry:
                        return False
        except SourceFailure:
            return False
        return True

    def _work(self) -> None:
        try:
            with tempfile.TemporaryFile(dir=self._scratch) as walked:
                counts = [self._walk(root, walked) for root in self._roots]
                self._walked.set()
                walked.seek(0)
                known = Known(self._parent)
                for count in counts:
                    for line in itertools.islice(walked, count):
                        if self._stop:
                            return
                        path, entry = msgspec.json.decode(line, type=tuple[str, FileEntry])
                        looked = self._look(unspell(path), entry, known.of(entry.path))
                        self._spool.write(msgspec.json.encode(looked) + b"\n")
                    self._ends.append(self._spool.tell())
        except OSError as error:
            self._failure = StorageFailure(f"backup.state_dir: {error.strerror}; make room there")
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            self._failure = error
        finally:
            self._walked.set()

    def _walk(self, root: Root, walked: IO[bytes]) -> int:
        """Write down what is below a root; how much that is."""
        count = 0
        for path, entry in tree(root, excluder(self._staged.exclude), live=self._staged.live):
            if self._stop:
                break
            walked.write(msgspec.json.encode((spell(path), entry)) + b"\n")
            count += 1
            if entry.sort == "file":
                self.seen = self.seen[0] + 1, self.seen[1] + entry.size
        return count

    def _look(self, path: bytes, entry: FileEntry, before: FileEntry | None) -> Walked:
        if entry.sort != "file":
            return Walked(entry, sure=True)
        if before is not None and self._parent is not None and same(before, entry, self._parent.source):
            return Walked(msgspec.structs.replace(entry, sha256=before.sha256), sure=True)
        settled = not self._staged.live or entry.ctime_ns < self._began - SETTLED
        try:
            digest = _digest(path, entry) if settled else None
        except OSError as error:
            if not self._staged.live or os.path.lexists(path):
                raise unreadable(os.fsdecode(path), error) from None
            digest = None
        return Walked(msgspec.structs.replace(entry, sha256=digest or ""), sure=digest is not None)


def merge(
    hasher: Hasher, roots: list[Root], nodes: Callable[[Root], Iterator[Node]], *, live: bool
) -> Iterator[Walked]:
    """Every entry of the snapshot, in order; not `sure`: its content has to be looked up there."""
    for number, root in enumerate(roots):
        mine = hasher.found(number)
        ours = next(mine, None)
        seen = False
        for node in nodes(root):
            path = _relative(node.path, root)
            if path is None:
                continue
            seen = True
            theirs = path.encode(errors="surrogatepass")
            while ours is not None and _before(_printed(ours.entry.path), theirs):
                _gone(ours, live=live)
                ours = next(mine, None)
            if ours is not None and _printed(ours.entry.path) == theirs:
                entry = ours.entry
                if entry.sort != "file" or node.type != "file":
                    yield Walked(_of(node, entry.path) if node.type != entry.sort else entry, sure=node.type != "file")
                elif ours.sure and _agree(entry, node):
                    yield ours
                else:
                    yield Walked(_of(node, entry.path), sure=False)
                ours = next(mine, None)
            elif node.type in {"file", "dir"} and _LOST not in theirs:
                yield Walked(_of(node, path), sure=node.type != "file")
        while ours is not None:
            _gone(ours, live=live)
            ours = next(mine, None)
        if not seen and root.at:
            raise SourceFailure(f"{root.path} did not get into the backup: it went meanwhile")


def is_odd(entry: FileEntry) -> bool:
    """A symlink whose target is no UTF-8."""
    return entry.sort == "symlink" and entry.link.startswith("\0")


def digest_of(path: bytes) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(fd).st_size


def _digest(path: bytes, entry: FileEntry) -> str | None:
    """The file's hash; None when it changed meanwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        now = os.fstat(fd)
    same_file = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
    return found if same_file == (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode) else None


def _gone(walked: Walked, *, live: bool) -> None:
    if not live and walked.entry.sort in {"file", "dir", "symlink"}:
        raise SourceFailure(f"{walked.entry.path} did not get into the backup")


def _of(node: Node, path: str) -> FileEntry:
    """An entry of which only the snapshot knows."""
    return FileEntry(
        path=path, sort=node.type, size=node.size, mode=node.mode & 0o777, uid=node.uid, gid=node.gid,
        mtime_ns=_nanoseconds(node.mtime), ctime_ns=_nanoseconds(node.ctime),
    )  # fmt: skip


def _agree(entry: FileEntry, node: Node) -> bool:
    return (entry.size, entry.mtime_ns, entry.ctime_ns) == (
        node.size,
        _nanoseconds(node.mtime),
        _nanoseconds(node.ctime),
    )


def _nanoseconds(text: str) -> int:
    """Of a time as Go prints it, in UTC."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    with contextlib.suppress(ValueError):
        whole = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp())
        return whole * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
    return 0


def _relative(path: str, root: Root) -> str | None:
    """The path in the index of a path in the snapshot; None: it is not below this root."""
    top = _printed(spell(os.fsencode(root.path))).decode() if root.at else ""
    if path != top and not path.startswith(top + "/"):
        return None
    return _printed(root.at).decode() + path[len(top) :] if root.at else path[1:]


def _printed(path: str) -> bytes:
    """As restic prints it: each byte that is no UTF-8 becomes U+FFFD."""
    text = unspell(path).decode(errors="surrogateescape")
    return "".join("\ufffd" if "\udc80" <= letter <= "\udcff" else letter for letter in text).encode()


def _before(one: bytes, other: bytes) -> bool:
    return one.split(b"/") < other.split(b"/")
