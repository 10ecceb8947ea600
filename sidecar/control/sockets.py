"""Listening sockets: bound once, by the program that the operator started, and shared by its workers.

A taken port is an error that names the listener and says what to do; SO_REUSEPORT would hide it. A Unix socket
left behind by a process that died is replaced; one that still answers is not ours to take.
"""

import contextlib
import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable

from sidecar.base.errors import ConfigError
from sidecar.config.address import Address, parse_address
from sidecar.config.listeners import Listener

_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06
BACKLOG = 4096
"""Clients that the kernel holds while we do not accept; net.core.somaxconn may allow fewer."""


def bind_all(
    listeners: Iterable[Listener], inherited: Callable[[Listener], socket.socket | None] = lambda _: None
) -> dict[str, socket.socket]:
    """A listening socket for each, by the listener's name; all or none. Raises ConfigError.

    `inherited`: the socket that the program before us had there.
    """
    bound: dict[str, socket.socket] = {}
    try:
        for listener in listeners:
            bound[listener.name] = inherited(listener) or bind(listener.bind, f"listener {listener.name}")
    except ConfigError:
        for sock in bound.values():
            sock.close()
        raise
    return bound


def bind(text: str, whose: str) -> socket.socket:
    """A non-blocking listening socket at the address `text`; raises ConfigError that says `whose` it was to be."""
    address = parse_address(text, ephemeral=True)
    try:
        return _bind_unix(address.path) if address.is_unix else _bind_tcp(address)
    except OSError as error:
        raise ConfigError(f"{whose}: cannot listen on {text}: {_advice(error)}") from None


def _bind_tcp(address: Address) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
        sock.bind(target)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something else under that name; remove it or choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # whoever made it is gone
            else:
                raise OSError(errno.EADDRINUSE, "in use")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "it is taken by another process (see: ss -ltnp); stop that one or choose another port"
        case errno.EACCES:
            return "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, paths a writable directory"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address (see: ip -brief address); 0.0.0.0 is all it has"
    return error.strerror or str(error)


def shown(sock: socket.socket) -> str:
    """Where it listens, for people."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return f"unix:{name}"


def unlink_names(sockets: Iterable[socket.socket]) -> None:
    """Take the names of Unix sockets away, so that nobody comes any more."""
    for sock in sockets:
        if sock.fileno() >= 0 and sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                os.unlink(sock.getsockname())


def shut_door(sock: socket.socket) -> None:
    """Let nobody join the queue of this listening socket any more; who is in it can still be accepted.

    Closing a listening socket resets whoever stands in its queue, and between the last accept and the close somebody
    may join. So the kernel is first told to drop what arrives for it (a socket filter of one instruction: take
    nothing). A client that knocks now tries again after a second and is refused by then, like everybody after a stop.
    """
    if sock.family == socket.AF_UNIX or sock.fileno() < 0:
        return
    take_nothing = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(take_nothing)))


def raise_descriptor_limit() -> int:
    """Lift the soft limit of open files to the hard one; returns it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
