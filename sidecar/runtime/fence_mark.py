"""The mark that keeps a service fenced over restarts of its proxy: a file beside the proxy's admin socket.

Who exchanges the service's data writes it before it asks the proxy for anything, and erases it when callers may come
again. A proxy that starts reads it before it serves anybody or starts the service; what people order to be opened or
released, it lifts from it, so that no later restart takes their word back.
"""

import contextlib
import os

import msgspec


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What must stay shut."""

    upstreams: tuple[str, ...] = ()
    """Whose breakers are held open, those of their routes too."""
    service: bool = False
    """A supervised service stands still."""
    by: str = ""
    why: str = ""

    def covers(self, breaker: str) -> bool:
        """Whether this breaker is held open."""
        return breaker.partition("/")[0] in self.upstreams


def read(admin_socket: str) -> Mark | None:
    """None: nothing is fenced."""
    try:
        with open(_path(admin_socket), "rb") as file:
            return msgspec.json.decode(file.read(), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None


def write(admin_socket: str, mark: Mark) -> None:
    """From now on this counts. Raises OSError."""
    beside = f"{_path(admin_socket)}.new"
    with open(beside, "wb") as file:
        file.write(msgspec.json.encode(mark))
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, _path(admin_socket))


def erase(admin_socket: str) -> None:
    """Nothing is fenced any more. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_path(admin_socket))


def lift(admin_socket: str, *, upstream: str | None = None, service: bool = False) -> None:
    """This upstream, or the service, is not fenced any more. Raises OSError."""
    mark = read(admin_socket)
    if mark is None:
        return
    rest = tuple(one for one in mark.upstreams if one != upstream)
    left = msgspec.structs.replace(mark, upstreams=rest, service=mark.service and not service)
    if left.upstreams or left.service:
        write(admin_socket, left)
    else:
        erase(admin_socket)


def _path(admin_socket: str) -> str:
    return f"{admin_socket}.fence"
