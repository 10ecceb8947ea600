"""A connection to an upstream: bytes in go to the steps in `relay.py`, bytes out come from `forward.py`.

It serves one exchange at a time. What an upstream sends while nobody asked is not an answer but an attempt
to poison the next one: the connection is dropped. After an exchange it is reused only when the answer
ended exactly where its framing said, the request was sent whole, and neither side asked to close.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from sidecar.proxy.codec.head import head_end
from sidecar.proxy.deadline import HOLD_UPSTREAM, close_within
from sidecar.proxy.pool import serve_waiting
from sidecar.proxy.relay import relay_body, relay_head, upstream_gone

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.splice import Splice
    from sidecar.proxy.upstream import Endpoint

HIGH_WATER = 256 * 1024
"""Bytes that may wait in a transport before its source is paused."""


class UpstreamConnection(asyncio.Protocol):
    """One connection of an endpoint's pool."""

    __slots__ = ("buffer", "endpoint", "exchange", "idle_since", "lost", "splice", "transport", "uses")

    transport: asyncio.Transport

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.exchange: Exchange | None = None
        self.buffer = b""  # an answer's head that is not whole yet
        self.idle_since = 0.0
        self.uses = 0  # exchanges begun on it
        self.lost = False
        self.splice: Splice | None = None  # moves the rest of an answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by type
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.endpoint.connections += 1
        self.endpoint.upstream.connections += 1

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.discard()
        elif exchange.answer is None:
            if self.buffer:
                start = len(self.buffer)
                data = self.buffer + data
                if head_end(data, start) < 0 and len(data) <= exchange.upstream.answer_limits.max_head:
                    self.buffer = data  # no line ended: parsing again would find nothing new
                    return
            relay_head(exchange, self, data)
        else:
            relay_body(exchange, data)

    def eof_received(self) -> bool:
        return False  # close our side too; connection_lost tells the exchange

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if exc is not None and self.exchange is not None and self.exchange.answer is None:
            tls = self.transport.get_extra_info("tls")
            said = self._last_words()
            if said:
                (tls or self).data_received(said)
        if self.splice is not None:
            self.splice.close()
        endpoint = self.endpoint
        endpoint.connections -= 1
        endpoint.upstream.connections -= 1
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            if self in endpoint.idle:
                endpoint.idle.remove(self)
        else:
            exchange.connection = None
            exchange.client.let_go()
            unanswered = self.uses > 1 and not self.buffer and not exchange.informational
            upstream_gone(exchange, unanswered=unanswered, clean=exc is None)
        serve_waiting(endpoint.upstream)

    def _last_words(self) -> bytes:
        """What lies unread in the kernel. Who refuses an upload, answers, and closes with the rest of it unread, resets
        the connection, and our writing may hear of that before our reading has come to the answer.
        """
        theirs = self.transport.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(theirs.fileno())) as ours:
                return ours.recv(HIGH_WATER, socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.client.hold(HOLD_UPSTREAM)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.client.release(HOLD_UPSTREAM)

    def close(self) -> None:
        """Close once what is written has left, which may take `idle_timeout`."""
        close_within(self.transport, self.endpoint.upstream.idle_timeout)

    def discard(self) -> None:
        """Close without giving it back; an exchange that still uses it must have let go before."""
        if self.splice is not None:
            self.splice.close()
        endpoint = self.endpoint
        if self in endpoint.idle:
            endpoint.idle.remove(self)
        self.transport.abort()
