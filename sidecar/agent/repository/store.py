"""A store of objects: names with slashes, bytes that appear as a whole or not at all. The port, and the local one.

The local store writes beside (`sidecar/tmp`) and renames. An object that others will rely on is put durably: first
everything put before it is on the disk, then it is, then its directory entry. What a killed process left in
`sidecar/tmp` is removed by `heal`, under the lease.
"""

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from sidecar.agent.faults import AgentFault, StorageFailure

TEMPORARY = "sidecar/tmp"


class Missing(AgentFault):
    """There is no such object."""


class Exists(AgentFault):
    """There is such an object already."""


class Object(NamedTuple):
    """An object's name and size in bytes."""

    name: str
    size: int


class Store(Protocol):
    """Where objects are kept. Every call may raise StorageFailure, with advice."""

    url: str

    def put(self, name: str, data: bytes, *, new: bool = False, durable: bool = True) -> None:
        """Store an object, replacing it. `new`: raises Exists when it is there (as well as the store can tell)."""
        ...

    def get(self, name: str) -> bytes:
        """Raises Missing."""
        ...

    def size(self, name: str) -> int | None:
        """None: there is no such object."""
        ...

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Objects below the directory `prefix`, in no order."""
        ...

    def delete(self, name: str) -> None:
        """A missing object is no error."""
        ...

    def heal(self) -> None: ...

    def apart(self) -> "Store":
        """The same place, for another thread."""
        ...


class LocalStore:
    """A directory."""

    def __init__(self, path: str) -> None:
        self.url = path
        self._unsynced: list[str] = []
        self._flushing = threading.Lock()
        """Lanes share a store: who puts durably waits for what another is flushing."""

    def put(self, name: str, data: bytes, *, new: bool = False, durable: bool = True) -> None:
        final = self.path(name)
        with self._told(f"write {name}"):
            beside = self.path(f"{TEMPORARY}/{uuid.uuid4().hex}")
            for directory in (os.path.dirname(beside), os.path.dirname(final)):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            if durable:
                self._flush()
            try:
                fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(fd, "wb", buffering=0) as file:
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                    if durable:
                        os.fsync(fd)
                if new:
                    os.link(beside, final)
                else:
                    os.rename(beside, final)
            except FileExistsError:
                raise Exists(f"{name} is there already") from None
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
            if durable:
                self._sync_directories(os.path.dirname(final))
            else:
                self._unsynced.append(final)

    def get(self, name: str) -> bytes:
        with self._told(f"read {name}"):
            try:
                with open(self.path(name), "rb") as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                raise Missing(f"{name} is missing in {self.url}") from None

    def size(self, name: str) -> int | None:
        with self._told(f"look at {name}"):
            try:
                return os.stat(self.path(name)).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, prefix: str = "") -> Iterator[Object]:
        with self._told(f"list {prefix or 'it'}"):
            top = self.path(prefix)
            for directory, _, files in os.walk(top, onerror=_raise_unless_missing):
                inner = os.path.relpath(directory, self.url)
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        size = os.lstat(os.path.join(directory, file)).st_size
                        yield Object(file if inner == "." else f"{inner}/{file}", size)

    def delete(self, name: str) -> None:
        with self._told(f"delete {name}"):
            path = self.path(name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            with contextlib.suppress(OSError):  # the last of a directory takes it along
                os.rmdir(os.path.dirname(path))

    def heal(self) -> None:
        for left in list(self.list(TEMPORARY)):
            self.delete(left.name)

    def apart(self) -> "LocalStore":
        return LocalStore(self.url)  # what is not on the disk yet is each thread's own

    def path(self, name: str) -> str:
        """Where an object is kept."""
        return os.path.join(self.url, name) if name else self.url

    def _flush(self) -> None:
        """Everything put so far is on the disk."""
        with self._flushing:
            count = len(self._unsynced)  # another lane may put more meanwhile
            waiting = self._unsynced[:count]
            for path in waiting:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            for directory in {os.path.dirname(path) for path in waiting}:
                self._sync_directories(directory)
            del self._unsynced[:count]

    def _sync_directories(self, directory: str) -> None:
        """The entry of a file, and of the directories up to the store's own."""
        while directory.startswith(self.url):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            directory = os.path.dirname(directory)

    @contextlib.contextmanager
    def _told(self, deed: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailure(f"cannot {deed} in the repository {self.url}: {advice(error)}") from error


def advice(error: OSError) -> str:
    """What the system says, and what may help."""
    said = error.strerror or str(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{said}; make room or prune, then run it again: nothing half was kept"
        case errno.EFBIG:
            return f"{said}; the limit of file sizes (ulimit -f) is too small"
        case errno.EACCES | errno.EPERM:
            return f"{said}; give this user access"
        case errno.EROFS:
            return f"{said}; mount it writable"
    return said


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
