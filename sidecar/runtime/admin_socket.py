"""The admin interface's Unix socket: whoever may open it may command the program, so only its owner may.

Rules. The mode is 0600 before anyone can connect. A socket file that nobody listens on any more (a crash left it) is
replaced; one that answers, or a file that is no socket, is an error that says what to do. At the end only our own file
is removed, never that of a successor.
"""

import os
import socket
import stat

from sidecar.base.errors import ConfigError

_LONGEST = 107
"""Bytes of a path in sockaddr_un on Linux."""


def bind_unix(path: str, key: str = "admin.socket") -> tuple[socket.socket, int]:
    """Make the socket at `path`, ready for listen; return it and its file's inode. ConfigError when it cannot be."""
    if len(os.fsencode(path)) > _LONGEST:
        raise ConfigError(f"{key}: {path}: longer than {_LONGEST} bytes, the system's limit for a socket's path")
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        _clear(path, key)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            os.chmod(path, 0o600)  # before listen: until then a connection is refused
            sock.setblocking(False)
            return sock, os.stat(path).st_ino
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"{key}: cannot make {path}: {error.strerror}; choose a path in a directory that this process "
            "may write to (in a pod: an emptyDir mounted there)"
        ) from None


def unbind_unix(path: str, inode: int) -> None:
    """Remove the socket's file if it is still the one that we made."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        pass


def _clear(path: str, key: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{key}: {path} exists and is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(1.0)
        try:
            knock.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # busy, or not ours to open: someone is there
    raise ConfigError(
        f"{key}: another sidecar answers at {path}; stop it (sidecar stop --socket {path}) or choose another path; "
        "from a proxy, sidecar run --take-over takes over"
    )
