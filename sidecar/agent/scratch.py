"""Directories for copies in plain text: gone afterwards, and what a killed process left goes before the next.

Each is locked while it is used, so what is swept away is what nobody uses any more. Raises OSError.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def own_directory(top: str, prefix: str) -> Iterator[str]:
    """An empty directory in the directory `top`, named with `prefix`; others with it that nobody uses go first."""
    with _locked(top):
        _sweep(top, prefix)
        made = tempfile.mkdtemp(prefix=prefix, dir=top)
        ours = _locked(made)
    with ours:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def sweep(top: str, prefix: str) -> None:
    """Only take away what nobody uses."""
    if os.path.isdir(top):
        with _locked(top):
            _sweep(top, prefix)


def _sweep(top: str, prefix: str) -> None:
    for name in os.listdir(top):
        if name.startswith(prefix):
            path = os.path.join(top, name)
            with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(path, fcntl.LOCK_NB):
                shutil.rmtree(path, ignore_errors=True)


def _locked(directory: str, how: int = 0) -> contextlib.ExitStack:
    """The directory's lock, held from now until the end of the context."""
    with contextlib.ExitStack() as stack:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | how)
        return stack.pop_all()
    raise AssertionError("unreachable")
