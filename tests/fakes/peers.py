"""TCP servers that behave badly, one way each, whatever the protocol is."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket], None]


def hangs(sock: socket.socket) -> None:
    """Takes everything, says nothing."""
    while sock.recv(65536):
        pass


def floods(sock: socket.socket) -> None:
    """Sends a gigabyte, as long as anybody takes it."""
    piece = b"A" * 65536
    for _ in range(1 << 14):
        sock.sendall(piece)


def babbles(sock: socket.socket) -> None:
    """Sends random bytes."""
    sock.sendall(os.urandom(4096))
    hangs(sock)


def leaves(sock: socket.socket) -> None:
    """Hangs up at once."""


def announces(sock: socket.socket) -> None:
    """Claims that an enormous message follows, in as many protocols as fit one line."""
    sock.sendall(b"R\x7f\xff\xff\xff")
    floods(sock)


ALL = (hangs, floods, babbles, leaves, announces)


@contextlib.contextmanager
def peer(behaviour: Behaviour) -> Iterator[int]:
    """The port of a server each of whose connections behaves like this."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_now: set[socket.socket] = set()

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            behaviour(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                open_now.add(sock)
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in (listener, *open_now):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
