"""The lease: one agent at a time writes to a repository.

In a directory it is flock on `sidecar/lock`. The kernel gives it back when its holder dies, however it dies. In an
object store it is a claim (`claims.py`).

`generation` grows by one with each lease and orders points where clocks would not.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

import msgspec

from sidecar.agent.faults import Busy, LeaseLost, StorageFailure
from sidecar.agent.repository.store import LocalStore, Store, advice

LOCK = "sidecar/lock"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds it, for people and for telling whether it lives."""

    who: str
    why: str
    pid: int = 0
    machine: str = ""
    """The kernel's boot id and process name space: pids mean the same only within."""
    started: str = ""
    """When the process began, in the kernel's ticks: pids come again."""
    beat: int = 0
    """How often a claim was renewed."""
    generation: int = 0

    def gone(self) -> bool:
        """Whether it certainly does not live any more."""
        return self._near and _started(self.pid) != self.started

    def here(self) -> bool:
        """Whether it certainly lives, on this machine."""
        return self._near and _started(self.pid) == self.started

    @property
    def _near(self) -> bool:
        return self.machine == _machine() and bool(self.started)


def holder(who: str, why: str) -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(who=who, why=why, pid=pid, machine=_machine(), started=_started(pid))


class HeldLease:
    """A lease that is held until `release`."""

    def __init__(self, generation: int, check: Callable[[], None], release: Callable[[], None]) -> None:
        self.generation = generation
        self._check = check
        self._release = release
        self._released = False

    def check(self) -> None:
        if self._released:
            raise LeaseLost("the lease was given back")
        self._check()

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._release()


@contextlib.contextmanager
def lease(store: Store, me: Holder, newest: Callable[[], int], patience: float = 0.0) -> Iterator[HeldLease]:
    """Hold the repository's lease. Raises Busy when another keeps it for longer than `patience` seconds.

    `newest` tells the highest generation that a manifest names.
    """
    if isinstance(store, LocalStore):
        held = _lock(store, me, newest, patience)
    else:
        from sidecar.agent.repository.claims import Claim

        held = Claim(store, me, newest).acquire(patience)
    try:
        yield held
    finally:
        held.release()


def _lock(store: LocalStore, me: Holder, newest: Callable[[], int], patience: float) -> HeldLease:
    path = store.path(LOCK)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailure(f"cannot lock the repository {store.url}: {advice(error)}") from None
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    raise StorageFailure(f"cannot lock the repository {store.url}: {advice(error)}") from None
                if time.monotonic() >= until:
                    raise Busy(busy(read_holder(os.pread(fd, 4096, 0)))) from None
                time.sleep(0.05)
        before = read_holder(os.pread(fd, 4096, 0))
        generation = 1 + max(before.generation if before else 0, newest())
        text = msgspec.json.encode(msgspec.structs.replace(me, generation=generation))
        try:
            os.pwrite(fd, text.ljust(512), 0)
            os.fsync(fd)
        except OSError as error:
            raise StorageFailure(f"cannot lock the repository {store.url}: {advice(error)}") from None
    except BaseException:
        os.close(fd)
        raise
    return HeldLease(generation, lambda: None, lambda: os.close(fd))


def busy(other: Holder | None) -> str:
    """That somebody else holds it."""
    if other is None:
        return "another agent works on the repository; try again when it is done"
    return f"{other.who} (pid {other.pid}) works on the repository ({other.why}); try again when it is done"


def read_holder(said: bytes) -> Holder | None:
    """None: it is not what a holder writes."""
    try:
        return msgspec.json.decode(said, type=Holder)
    except msgspec.DecodeError:
        return None


def _machine() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *rest = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state == "Z" else rest[18]
