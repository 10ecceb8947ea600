"""The line between a running program and its successor: what they say to each other, and how sockets cross it.

The successor knocks on the running program's admin socket (`POST /take-over`, answered by 101), and from then on both
speak frames over that connection: four bytes of length, then msgpack. Descriptors travel beside a frame (SCM_RIGHTS).

    successor                          the running one
    Hello       ───────────────────▶
                ◀───────────────────   Offer + listening sockets   both could accept now; only the running one does
    Ready       ───────────────────▶                               started, everything but the clients is there
                ◀───────────────────   Yours                       it accepts no more; breakers and health as they are
    Serving     ───────────────────▶                               the successor accepts, probes and admin too
                ◀───────────────────   Goodbye                     it is over: the running one drains

Rules. Until Serving has come the running one can take everything back: it never let go of a socket, and clients waited
in the kernel's queue. Either may say Refusal at any point, with a sentence. An end of the line without one is a death:
of the successor, and the running one goes on; of the running one (the pidfd that comes with Offer tells), and the
successor goes on with what it has. Fields that one of the two does not know are ignored; a higher PROTOCOL means that
the sequence itself has changed, and is refused.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sidecar.base.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROTOCOL = 1
PATH = "/take-over"
UPGRADE = "sidecar-take-over"
MAX_FRAME = 16 * 1024 * 1024
MAX_AT_ONCE = 64
"""Descriptors beside one frame; the kernel allows 253."""
ANSWER_SECONDS = 10.0
"""For what the other side has at hand."""


class TakeOverFailed(SidecarError):
    """The successor cannot take over; the message says why and what to do. The running one goes on."""


class Hello(msgspec.Struct, tag=True):
    """The successor introduces itself."""

    protocol: int
    version: str
    pid: int


Place = tuple[str, str, str]
"""`listener` or `admin`; the listener's name or the door's; the address as the configuration says it."""


class Standing(msgspec.Struct):
    """What the running one knows that a successor should."""

    breakers: dict[str, dict[str, Any]] = {}
    """By name: the fields of `machines/breaker.py`'s Snapshot."""
    unhealthy: list[tuple[str, str]] = []
    """(upstream, endpoint) of those whose active checks fail."""
    orders: dict[str, dict[str, Any]] = {}
    """Of the fleet, by the breaker's name: the fields of `machines/fleet/words.py`'s Record."""


class Offer(msgspec.Struct, tag=True):
    """What the running one has. `places` name the sockets that follow in frames of More, in their order."""

    version: str
    pid: int
    places: list[Place]
    standing: Standing
    """At the moment; it counts if the running one dies before it says Yours."""


class More(msgspec.Struct, tag=True):
    """Descriptors come beside it: first the running one's pidfd, then the sockets."""


class Ready(msgspec.Struct, tag=True):
    """The successor has started, but for clients."""


class Yours(msgspec.Struct, tag=True):
    """What the running one knows at the moment in which it accepts no more."""

    standing: Standing


class Serving(msgspec.Struct, tag=True):
    """The successor accepts."""

    left: list[Place]
    """What was offered and is not wanted: the running one closes these for good."""


class Goodbye(msgspec.Struct, tag=True):
    """The running one lets go."""


class Refusal(msgspec.Struct, tag=True):
    """Not so, and why."""

    reason: str


Word = Hello | Offer | More | Ready | Yours | Serving | Goodbye | Refusal
Wanted = TypeVar("Wanted", bound=msgspec.Struct)


def expect(kind: type[Wanted], word: Word | None) -> Wanted:
    """`word`, which ought to be of this kind; raises TakeOverFailed with the other side's reason when it is not."""
    if isinstance(word, kind):
        return word
    if isinstance(word, Refusal):
        raise TakeOverFailed(word.reason)
    raise TakeOverFailed("it ended" if word is None else f"it said {type(word).__name__}, not {kind.__name__}")


class Line:
    """One end of the connection. Owns its socket, and the descriptors that came and were not taken."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = bytearray()
        self._descriptors: list[int] = []

    @property
    def closed(self) -> bool:
        """It was hung up, by us."""
        return self._sock.fileno() < 0

    async def send(self, word: Word, descriptors: Sequence[int] = ()) -> None:
        """Say it; raises OSError when the other side is gone."""
        body = msgspec.msgpack.encode(word)
        frame = len(body).to_bytes(4, "big") + body
        loop = asyncio.get_running_loop()
        if descriptors:
            # the kernel's buffer is empty between two of our frames: a first byte always finds room
            sent = socket.send_fds(self._sock, [frame], list(descriptors))
            frame = frame[sent:]
        if frame:
            await loop.sock_sendall(self._sock, frame)

    async def receive(self, within: float | None = ANSWER_SECONDS) -> Word | None:
        """What the other side says next; None: it is gone. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while (word := self._whole()) is None:
                await self._readable()
                try:
                    data, descriptors, _, _ = socket.recv_fds(self._sock, 65536, MAX_AT_ONCE, socket.MSG_CMSG_CLOEXEC)
                except BlockingIOError:
                    continue
                except OSError:
                    return None
                self._descriptors += descriptors
                if not data:
                    return None
                self._received += data
        return word

    def take(self) -> list[int]:
        """The descriptors that have come; from now on the caller's."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Hang up."""
        self._sock.close()
        for one in self.take():
            os.close(one)

    def _whole(self) -> Word | None:
        if len(self._received) < 4:
            return None
        size = int.from_bytes(self._received[:4], "big")
        if size > MAX_FRAME:
            raise TakeOverFailed("the other side does not speak this protocol")
        if len(self._received) < 4 + size:
            return None
        body = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        try:
            word: Word = msgspec.msgpack.decode(body, type=Word)
        except msgspec.DecodeError as error:
            raise TakeOverFailed(f"the other side says what this version does not understand: {error}") from None
        return word

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        there = loop.create_future()
        loop.add_reader(self._sock.fileno(), lambda: None if there.done() else there.set_result(None))
        try:
            await there
        finally:
            loop.remove_reader(self._sock.fileno())


async def knock(path: str) -> Line | None:
    """Ask the program behind the admin socket `path` to be taken over; None: nobody is there.

    Raises TakeOverFailed when somebody is who does not want to, or cannot.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise TakeOverFailed(f"{path}: {error.strerror}; take over as the user that runs the proxy") from None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            ask = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n\r\n"
            await loop.sock_sendall(sock, ask.encode())
            answer = bytearray()
            while not _is_whole(answer) and (piece := await loop.sock_recv(sock, 4096)):
                answer += piece
        status = answer.split(b" ", 2)[1:2]
        if status == [b"101"]:
            return Line(sock)
        said = bytes(answer).partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
        if status == [b"404"]:
            said = "it is of a version that cannot hand over: stop it, then start this one"
        raise TakeOverFailed(f"the proxy on {path} cannot be taken over: {said or 'it does not answer'}")
    except TimeoutError:
        sock.close()
        raise TakeOverFailed(f"the proxy on {path} does not answer") from None
    except BaseException:
        sock.close()
        raise


def _is_whole(answer: bytes | bytearray) -> bool:
    """Whether an answer over HTTP is here with its body."""
    head, end, body = bytes(answer).partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def is_gone(pidfd: int, within: float) -> bool:
    """Whether the process behind `pidfd` has ended, or does within so many seconds. Blocks."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within * 1000))


class Inheritance:
    """The listening sockets that came with an Offer, each taken at most once."""

    def __init__(self, sockets: Mapping[Place, socket.socket]) -> None:
        self._sockets = dict(sockets)

    def left(self) -> list[Place]:
        """What nobody has taken yet."""
        return list(self._sockets)

    def take(self, kind: str, name: str, address: str) -> socket.socket | None:
        """The one for this place, else one of this kind at this very address."""
        exact = (kind, name, address)
        if exact in self._sockets:
            return self._sockets.pop(exact)
        if address.endswith(":0"):
            return None  # any port: two of these are not the same place
        found = next((place for place in self._sockets if (place[0], place[2]) == (kind, address)), None)
        return None if found is None else self._sockets.pop(found)

    def close(self) -> None:
        """Let go of what nobody took."""
        while self._sockets:
            self._sockets.popitem()[1].close()


def adopt(descriptor: int) -> socket.socket:
    """The socket behind a descriptor that came over the line."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock
