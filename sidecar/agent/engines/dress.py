"""What of a file is not its content: owner, mode, times, extended attributes (ACLs are some), and its holes.

All of it comes back as far as this user and the file system there allow; the content alone decides whether a file is
whole.
"""

import contextlib
import os
import stat
from collections.abc import Iterable
from io import FileIO

from sidecar.agent.paths import spell, unspell
from sidecar.agent.ports import FileEntry

_BLOCK = 4096
_ZEROS = bytes(_BLOCK)


def xattrs(path: bytes) -> dict[str, bytes]:
    """The extended attributes of a file or directory; none where there cannot be any."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            with contextlib.suppress(OSError):  # it went meanwhile, or is not for us
                found[spell(os.fsencode(name))] = os.getxattr(path, name, follow_symlinks=False)
    return found


def has_holes(found: os.stat_result) -> bool:
    """Whether the file takes less room than it is long."""
    return stat.S_ISREG(found.st_mode) and found.st_blocks * 512 < found.st_size


def fill(file: FileIO, pieces: Iterable[memoryview], entry: FileEntry) -> None:
    """Write the content into the new, empty `file`; zeros of one that had holes become holes again."""
    for piece in pieces:
        step = _BLOCK if entry.sparse else len(piece)
        for start in range(0, len(piece), step):
            view = piece[start : start + step]
            if entry.sparse and bytes(view) == _ZEROS[: len(view)]:
                file.seek(len(view), os.SEEK_CUR)
                continue
            while view:
                view = view[file.write(view) :]
    if entry.sparse:
        file.truncate(entry.size)


def dress(path: bytes, entry: FileEntry) -> None:
    """Everything of a file or directory."""
    _own(path, entry)
    os.chmod(path, entry.mode)
    for name, value in entry.xattrs.items():
        with contextlib.suppress(OSError):
            os.setxattr(path, unspell(name), value)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def dress_link(path: bytes, entry: FileEntry) -> None:
    """Of a symlink there is less."""
    _own(path, entry)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _own(path: bytes, entry: FileEntry) -> None:
    with contextlib.suppress(PermissionError):
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
