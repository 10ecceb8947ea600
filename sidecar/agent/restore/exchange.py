"""Putting a restored thing in the place of a live one, by renames, so that it can be killed between any two of them.

Nothing is overwritten: what stood there is renamed to a name of the restore's own next to it, and removed at the very
end. Each rename looks first at where things stand, so doing all of it again is no harm. The names hold the plan's hash.

What was restored is on the disk before anything gives way to it: a machine that dies afterwards loses neither.

A place that is a mount point cannot be renamed: then what is in it changes places, entry by entry, and a mark on the
disk divides taking out from putting in.
"""

import contextlib
import ctypes
import os
import shutil
import threading
from collections.abc import Iterator, Sequence

from sidecar.agent.faults import StorageFailure

_LIBC = ctypes.CDLL(None, use_errno=True)
_SOON = 0.2
"""Seconds between two goes: a disk gets its share of the work from the first moment on."""


class Exchange:
    """Of one place: `live`, absolute."""

    def __init__(self, live: str, hash_: str, number: int) -> None:
        self.live = live
        self.mounted = os.path.ismount(live)
        self.directory = live if self.mounted else os.path.dirname(live)
        """Where the names of our own stand; the same file system as the place."""
        self.fresh = os.path.join(self.directory, f".sidecar-restore-{hash_}-{number}")
        self.old = os.path.join(self.directory, f".sidecar-old-{hash_}-{number}")

    def check(self) -> None:
        """Whether it can be done here. Raises StorageFailure."""
        for own in (self.fresh, self.old):
            if os.path.islink(own):
                raise StorageFailure(f"{own} is a symlink that somebody put there; remove it")
        if os.path.islink(self.live):
            raise StorageFailure(f"{self.live} is a symlink: what it leads to is not ours to exchange")
        if not os.path.isdir(self.directory):
            raise StorageFailure(f"{self.directory} is not there; make it, with the owner that the service expects")
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise StorageFailure(f"{self.directory} cannot be written to by this user")

    def fetch_into(self) -> str:
        """An empty directory for what is restored."""
        self.check()
        shutil.rmtree(self.fresh, ignore_errors=True)  # what a killed one left
        os.mkdir(self.fresh, 0o700)
        return self.fresh

    def swap(self, restored: str, beside: Sequence[str]) -> None:
        """`restored`: the path below `fetch_into` of what comes here; `beside`: live files that must go as well."""
        new = os.path.join(self.fresh, restored) if restored else self.fresh
        settle(self.directory)
        if self.mounted:
            self._swap_contents(new)
            return
        os.makedirs(self.old, mode=0o700, exist_ok=True)
        for path in beside:
            _move(path, os.path.join(self.old, os.path.basename(path)))
        aside = os.path.join(self.old, os.path.basename(self.live))
        if os.path.lexists(new) and os.path.lexists(self.live) and not os.path.lexists(aside):
            os.rename(self.live, aside)
            sync(self.directory)
        if os.path.lexists(new):
            os.rename(new, self.live)
        if not os.path.lexists(self.live):
            raise StorageFailure(f"what was restored for {self.live} is gone; it was {new}, the old is {aside}")
        sync(self.directory)

    def _swap_contents(self, new: str) -> None:
        taken_out = f"{self.old}.taken-out"
        own = {os.path.basename(one) for one in (self.fresh, self.old, taken_out)}
        os.makedirs(self.old, mode=0o700, exist_ok=True)
        if not os.path.exists(taken_out):
            for name in os.listdir(self.live):
                if name not in own and not name.startswith((".sidecar-", "lost+found")):
                    _move(os.path.join(self.live, name), os.path.join(self.old, name))
            with open(taken_out, "xb") as mark:
                os.fsync(mark.fileno())
            sync(self.live)
        for name in os.listdir(new) if os.path.isdir(new) else ():
            os.rename(os.path.join(new, name), os.path.join(self.live, name))
        sync(self.live)

    def clear(self) -> None:
        """Remove what was there before, and what is left of the restore."""
        for path in (self.fresh, self.old):
            shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(f"{self.old}.taken-out"):
            os.unlink(f"{self.old}.taken-out")


def _move(path: str, to: str) -> None:
    if os.path.lexists(path) and not os.path.lexists(to):
        os.rename(path, to)


def settle(directory: str) -> None:
    """What was restored below it is on the disk, whatever wrote it; all at once, which is quicker than file by file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(fd) != 0:
            raise StorageFailure(f"{directory}: {os.strerror(ctypes.get_errno())} while what was restored was written")
    finally:
        os.close(fd)


@contextlib.contextmanager
def settling(directory: str) -> Iterator[None]:
    """What is written below it meanwhile goes to the disk soon, beside the work: `settle` finds little left to do.

    Raises what `settle` does: the kernel tells of a failure once, and perhaps here.
    """
    over = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        while not over.wait(_SOON) and not failures:
            try:
                settle(directory)
            except (OSError, StorageFailure) as failure:
                failures.append(failure)

    thread = threading.Thread(target=work, name="settle", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    for failure in failures:
        raise failure


def sync(directory: str) -> None:
    """Its entries are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
