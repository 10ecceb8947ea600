"""An SQLite database that stands still while it is read where it lies, by the keeper's grace (`sqlite_keeper.py`).

What others write meanwhile stays in the log, which may grow by an eighth of the database (64 MiB at least), no more: so
much the file system is asked for instead of room for a whole copy, and so much is there to checkpoint afterwards. Locks
do not hold everywhere (some network file systems), so the file is looked at as well: what has the same inode, size and
time was not written to.
"""

import os
import selectors
import subprocess
import sys

from sidecar.agent import children
from sidecar.agent.faults import EngineFailure, Stirred
from sidecar.agent.sources import sqlite_keeper

_PATIENCE = 30.0
"""Seconds that the keeper has to say whether it can be had."""
_LEAST_GROWTH = 64 << 20


class Still:
    """A database that is kept as it is while the context lasts."""

    def __init__(self, path: str, keeper: "subprocess.Popen[bytes]") -> None:
        """`path`: the file itself, no symlink; `keeper`: who keeps it."""
        self._path = path
        self._keeper = keeper
        self._seen = self._look()
        self._log = self._logged()
        self._growth = max(_LEAST_GROWTH, self._seen[1] // 8)
        self.stirred = False
        """Whether it was found not to stand still."""

    def __enter__(self) -> "Still":
        return self

    def __exit__(self, *_: object) -> None:
        children.end(self._keeper)

    def check(self) -> None:
        """Raises Stirred when it is not kept any more, or at too high a price."""
        grown = self._logged() - self._log > self._growth
        self.stirred = grown or self._keeper.poll() is not None or self._look() != self._seen
        if self.stirred:
            why = f"others wrote more than {self._growth} bytes" if grown else "it did not stay as it was"
            raise Stirred(f"{self._path}: {why} while it was read")

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.lstat(self._path)
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _logged(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0


def keep_still(path: str) -> Still | None:
    """Have the database kept as it is; None: that cannot be had, copy it."""
    real = os.path.realpath(path)
    words = [sys.executable, "-I", "-S", sqlite_keeper.__file__, real]
    try:
        keeper = children.spawn(words, children.environment())
    except EngineFailure:
        return None
    assert keeper.stdout is not None, "it is a pipe"
    with selectors.DefaultSelector() as selector:
        selector.register(keeper.stdout, selectors.EVENT_READ)
        said = keeper.stdout.readline() if selector.select(_PATIENCE) else b""
    if said == b"still\n":
        return Still(real, keeper)
    children.end(keeper)
    return None
