"""Bodies: how much of what arrived belongs to this message, and what of it goes on.

A reader is fed what arrives and returns what may be forwarded and how many bytes it took. It takes everything
until its message is over; what it does not take belongs to the next message. With `decode` it yields the payload
alone (for a peer that speaks HTTP/1.0), otherwise the body as it goes out on the wire, canonically framed.
"""

from typing import Protocol

from sidecar.base.errors import SidecarError


class BadBody(SidecarError):
    """A body that breaks its framing, or ends before it is over. Who is at fault, the caller knows."""


class BodyReader(Protocol):
    """One body. `done` once its last byte was taken, `received` counts bytes of payload so far."""

    done: bool
    received: int

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(bytes to forward, bytes taken from `data`); after `done` it takes nothing. Raises BadBody."""
        ...

    def eof(self) -> None:
        """The peer closed its side: ends a body that ends with its connection, raises BadBody within any other."""
        ...
