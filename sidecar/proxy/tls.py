"""TLS on a connection: stands between a transport and its protocol, and is the other's part to each.

To the socket's transport it is the protocol, to our protocol it is the transport; between them OpenSSL reads and writes
in memory. So everything above (heads, bodies, tunnels, backpressure) is the same with and without TLS, and one
`write()` of ours is one write to the socket. The event loop's own TLS costs four times as much per request.

Rules. Our protocol hears `connection_made` after the handshake and not before; a handshake that fails is told to
`shaken` alone. close_notify is an end, as FIN is without TLS, and may be half of one; a FIN without it is a cut, and
`connection_lost` gets an error, so that nobody takes a truncated body for whole (RFC 8446, 6.1). What the peer makes us
hold is bounded: in the handshake by HANDSHAKE_BYTES, later by the socket's backpressure, which is passed on both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HANDSHAKE_BYTES = 128 * 1024
"""A peer that sent so much and has not finished its handshake never will."""
ANSWERS_BYTES = 1024 * 1024
"""Bytes of TLS's own answers (key updates) that may wait for a peer who asks and does not read."""
_RECORD = 16 * 1024
"""The most that one record of TLS holds."""
_PIECE = 32 * 1024
"""So much is in OpenSSL's hands at once, for its buffers never shrink."""

_NOBODY = asyncio.Protocol()


def _to_nobody(*_: object) -> None:
    """There is one end of a handshake, and it was told."""


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One connection's TLS."""

    __slots__ = (
        "_closed",
        "_data_received",
        "_encrypt",
        "_ended",
        "_eof_owed",
        "_feed",
        "_held_open",
        "_incoming",
        "_outgoing",
        "_paused",
        "_protocol",
        "_put",
        "_raw",
        "_read",
        "_received",
        "_shaken",
        "_take",
        "_told",
        "deadline",
        "fault",
        "shaking",
        "tls",
    )

    _raw: asyncio.Transport
    _protocol: asyncio.Protocol

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        shaken: Callable[[TlsTransport, Exception | None], None],
        *,
        server_side: bool = True,
        server_name: str | None = None,
    ) -> None:
        """`shaken(self, None)` is called once when the handshake is done and the protocol not yet told, which it is if
        we are not closing afterwards; with an error when it failed.
        """
        super().__init__()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls = context.wrap_bio(incoming, outgoing, server_side, server_name)
        self._incoming = incoming
        self._outgoing = outgoing
        self._feed = incoming.write
        self._take = outgoing.read
        self._read = tls.read
        self._encrypt = tls.write
        self._shaken = shaken
        self.shaking = True
        self.deadline = inf  # of the handshake; for who watches it
        self.fault: Exception | None = None  # what broke the connection
        self._received = 0  # bytes of the handshake
        self._closed = False  # nothing more is written
        self._ended = False  # the peer has said that it will say no more
        self._eof_owed = False  # and our protocol, which does not read, is to hear of it when it does
        self._held_open = False  # though it has ended our protocol goes on writing
        self._paused = False
        self._told = False  # our protocol knows of us
        self.set_protocol(protocol)

    # The socket's transport calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by type
        self._put = self._raw.write
        if not self.tls.server_side:
            self._shake()

    def data_received(self, data: bytes) -> None:
        if self.shaking:
            if not self._received and not self.begin_shaking(data):
                return
            self._received += len(data)
            self._feed(data)
            if self._shake() and self._incoming.pending:
                self._decrypt(b"")
        elif not self._ended:  # what follows close_notify is nobody's
            self._decrypt(data)

    def eof_received(self) -> bool:
        if self._ended:
            return self._held_open
        if not self.shaking:
            self.fault = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer closed without close_notify")
            self.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self.shaking:
            self.fail(exc or ConnectionResetError("the peer left during the handshake"))
        elif self._told:
            self._told = False
            self._protocol.connection_lost(self.fault or exc)
        self.set_protocol(_NOBODY)  # or each would keep the other alive until a collection

    def pause_writing(self) -> None:
        if self._told:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._told:
            self._protocol.resume_writing()

    # The handshake ------------------------------------------------------------------------------------------------

    def _shake(self) -> bool:
        """Go on with the handshake; whether our protocol may read what follows."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._received > HANDSHAKE_BYTES:
                self.fail(ssl.SSLError(1, "the handshake is too long"))
                self.abort()
            return False
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self.fail(error)
            self.shut()
            return False
        self._flush()
        self.shaking = False
        self._tell(None)
        if not self.is_closing():
            self._told = True
            self._protocol.connection_made(self)
        return self._told

    def begin_shaking(self, data: bytes) -> bool:  # noqa: ARG002
        """The peer's first bytes; whether to read them as TLS."""
        return True

    def fail(self, error: Exception) -> None:
        """The handshake is over, for `error`; who calls this closes the socket."""
        if self.shaking:
            self.shaking = False
            self._closed = self._ended = True
            self.fault = error
            self._tell(error)

    def _tell(self, error: Exception | None) -> None:
        shaken, self._shaken = self._shaken, _to_nobody  # it may be bound to us, and would keep us alive
        shaken(self, error)

    def shut(self) -> None:
        """Close the socket once what is written has left, without close_notify."""
        self._closed = True
        self._raw.close()

    # What comes ---------------------------------------------------------------------------------------------------

    def _decrypt(self, came: bytes) -> None:
        """Read all that is there, and hand it on in one piece."""
        read = self._read
        incoming = self._incoming
        data = b""
        more: list[bytes] = []
        ended = False
        fault: Exception | None = None
        try:
            if len(came) <= _PIECE:
                self._feed(came)
                data = read(_RECORD)
                ended = not data
                while incoming.pending and not ended:
                    more.append(read(_RECORD))
                    ended = not more[-1]
            else:
                ended = self._read_much(came, more)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            fault = error
        if more:
            data = b"".join((data, *more))
        if self._outgoing.pending:
            self._flush()
            if self._raw.get_write_buffer_size() > ANSWERS_BYTES:
                fault = fault or ssl.SSLError(1, "the peer asks for key updates and does not read them")
        if data:
            self._data_received(data)
        if ended:
            self._ended = True
            self._end()
        elif fault is not None:
            self._ended = True
            self.fault = self.fault or fault
            self.abort()

    def _read_much(self, came: bytes, more: list[bytes]) -> bool:
        """The same for what is too much at once; whether the peer has ended."""
        rest = memoryview(came)
        while rest:
            self._feed(rest[:_PIECE])
            rest = rest[_PIECE:]
            try:
                while self._incoming.pending:
                    more.append(self._read(_RECORD))
                    if not more[-1]:
                        return True
            except ssl.SSLWantReadError:
                continue
        return False

    def _end(self) -> None:
        """Tell our protocol that the peer will say no more."""
        if self._raw.is_closing():
            return
        if self._paused:
            self._eof_owed = True
            return
        self._held_open = bool(self._protocol.eof_received())
        if not self._held_open:
            self.close()

    # Our protocol calls -------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._closed or not data:
            return
        try:
            if len(data) <= _PIECE:
                self._encrypt(data)
            else:
                rest = memoryview(data)
                while rest:
                    self._encrypt(rest[:_PIECE])
                    self._put(self._take())
                    rest = rest[_PIECE:]
                return
        except ssl.SSLError as error:
            self.fault = self.fault or error
            self.abort()
            return
        self._put(self._take())

    def write_eof(self) -> None:
        """Say that we will say no more; the peer may go on."""
        if not self._closed:
            self._closed = True
            self._say_goodbye()
            self._raw.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        self._closed = True
        self._raw.abort()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()  # sends close_notify, and would wait for the peer's
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._put(self._take())

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._raw.resume_reading()
        if self._eof_owed:
            self._eof_owed = False
            self._end()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]  # ours all are
        self._data_received = self._protocol.data_received

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the socket's transport has it; `tls`: this."""
        return self if name == "tls" else self._raw.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)
