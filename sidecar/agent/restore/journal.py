"""The journal of a restore: JSON lines in `state_dir/restores/HASH.journal`, each on the disk before the next deed."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

import msgspec

from sidecar.agent.faults import Damaged, StorageFailure
from sidecar.agent.restore.plan import PLANS, RestorePlan
from sidecar.config.backup import Backup
from sidecar.machines.backup.restore import Entry


class Journal:
    """Of one plan."""

    def __init__(self, config: Backup, plan: RestorePlan) -> None:
        self._path = os.path.join(config.state_dir, PLANS, f"{plan.hash}.journal")

    def entries(self) -> Iterator[Entry]:
        """What was written; a half-written last line was never acted on. Raises Damaged, after what is whole."""
        try:
            with open(self._path, "rb") as file:
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if line.endswith(b"\n"):
                try:
                    entry = msgspec.json.decode(line, type=Entry)
                except msgspec.DecodeError:
                    raise Damaged(
                        f"{self._path} is damaged: how far the restore came is not known; look at the data, and remove "
                        "the file once it is as it should be"
                    ) from None
                yield entry

    def write(self, entry: Entry) -> None:
        """It is on the disk when this returns. Raises StorageFailure; what is not written is not done."""
        try:
            with open(self._path, "r+b" if os.path.exists(self._path) else "w+b") as file:
                whole = file.read()
                file.seek(whole.rfind(b"\n") + 1)  # over what a kill left half written
                file.truncate()
                file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageFailure(
                f"cannot write {self._path}: {error.strerror}; the restore stopped before {entry.step}: make room in "
                "backup.state_dir, then run sidecar restore resume"
            ) from None

    def put_away(self) -> None:
        """A plan is applied once."""
        os.rename(self._path, self._path.removesuffix(".journal") + ".applied")

    def forget(self) -> None:
        """Nothing was touched: the plan may be applied anew."""
        os.unlink(self._path)


@contextlib.contextmanager
def at_work(config: Backup, *, wait: bool = True) -> Iterator[bool]:
    """Alone with the journals; False without `wait`: somebody else is at work."""
    directory = os.path.join(config.state_dir, PLANS)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def unfinished(config: Backup) -> list[str]:
    """The hashes of plans whose journal has not come to its end."""
    directory = os.path.join(config.state_dir, PLANS)
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [name.removesuffix(".journal") for name in names if name.endswith(".journal")]
