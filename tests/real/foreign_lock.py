"""A lock of restic's own, left by one that was killed on a machine of another name, as in a pod that is no more."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.wire import PATIENCE

GONE = "pod-that-is-gone"


@contextlib.contextmanager
def foreign_lock(repository: Path, key: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Kill a restic that waits for its input: a backup, or one that wants to be alone. It is gone at the end."""
    locks = repository / "locks"
    before = set(locks.iterdir())
    silent = key.with_name("nobody-writes-to-it")
    os.mkfifo(silent)
    words = ["key", "passwd", "--new-password-file", str(silent)] if exclusive else ["backup", "--stdin"]
    restic = ["restic", "-r", str(repository), "--password-file", str(key), "--no-cache", *words]
    process = subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", f'hostname {GONE} && exec "$@"', "sh", *restic],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not (made := {path for path in locks.iterdir() if len(path.name) == 64} - before):  # longer: half written
            if process.poll() is not None:
                pytest.skip("a machine of another name needs root")
            assert time.monotonic() < deadline, "restic takes no lock"
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
        silent.unlink()
    lock = next(iter(made))
    yield lock
    assert lock.exists(), "nobody's lock is removed by force"
    lock.unlink()
