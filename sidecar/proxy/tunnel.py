"""Tunnel: two connections become one pipe, bytes pass as they are, each way at the pace of its reader.

Made by an upgrade that the upstream accepted (101) and by `protocol: tcp` listeners. A half-close travels on: what
one side has finished saying, the other hears as an end, and may go on speaking. An error on one side breaks
the other. A tunnel in which nothing moves for `idle_timeout` either way is closed by the sweep.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.names import Decision, Outcome
from sidecar.proxy import guard
from sidecar.proxy.deadline import HOLD_UPSTREAM, close_within
from sidecar.proxy.settle import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.proxy.codec.head import ResponseHead
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.deadline import Sweeper
    from sidecar.proxy.exchange import Exchange


class TunnelSide(asyncio.Protocol):
    """One end: what arrives here goes to the other end's transport."""

    __slots__ = ("ended", "moved", "other", "transport", "tunnel")

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.other: asyncio.Transport = transport  # the other end's, set when both are known
        self.moved = 0  # bytes that arrived here
        self.ended = False  # no more will arrive

    def data_received(self, data: bytes) -> None:
        self.moved += len(data)
        self.other.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.tunnel.both_ended():
            return False
        if self.other.can_write_eof():
            self.other.write_eof()
        return True

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self.ended:
            close_within(self.other, self.tunnel.idle_timeout)
        else:
            self.other.abort()
        self.tunnel.close()


class Tunnel:
    """Two sides and what is owed when they part."""

    __slots__ = ("_on_close", "_sweeper", "client", "closed", "deadline", "idle_timeout", "seen", "upstream")

    def __init__(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        idle_timeout: float,
        sweeper: Sweeper,
        on_close: Callable[[Tunnel, str], None],
    ) -> None:
        self.client = TunnelSide(self, client)
        self.upstream = TunnelSide(self, upstream)
        self.client.other = upstream
        self.upstream.other = client
        self.idle_timeout = idle_timeout
        self.deadline = monotonic() + idle_timeout
        self.seen = 0
        self.closed = False
        self._sweeper = sweeper
        self._on_close = on_close
        client.set_protocol(self.client)
        upstream.set_protocol(self.upstream)
        sweeper.watched.add(self)

    def both_ended(self) -> bool:
        """Whether neither side will say any more."""
        return self.client.ended and self.upstream.ended

    def expire(self, now: float) -> None:
        """Nothing may have moved for too long."""
        moved = self.client.moved + self.upstream.moved
        if moved != self.seen:
            self.seen = moved
            self.deadline = now + self.idle_timeout
        else:
            self.client.transport.abort()
            self.upstream.transport.abort()
            self.close(Decision.TIMEOUT)

    def close(self, outcome: str = Outcome.OK) -> None:
        """The tunnel is over; said once."""
        if not self.closed:
            self.closed = True
            self._sweeper.watched.discard(self)
            self._on_close(self, outcome)


def open_upgraded(exchange: Exchange, connection: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
    """The upstream switched protocols: tell the client and let the bytes pass from here on."""
    client = exchange.client
    state = exchange.plan.state
    upgrade = exchange.upgrade or b""
    exchange.status = 101
    exchange.begun = True
    exchange.keep_alive = False
    exchange.connection = None
    connection.exchange = None
    guard.record(exchange, 101, monotonic())
    deaf = client.holds & HOLD_UPSTREAM
    early = client.leave()
    gauge = exchange.plan.tunnels
    gauge.value += 1

    def closed(tunnel: Tunnel, outcome: str) -> None:
        gauge.value -= 1
        exchange.bytes_in += tunnel.client.moved
        exchange.bytes_out += tunnel.upstream.moved
        connection.connection_lost(None)
        client.closed()
        settle(exchange, outcome)

    tunnel = Tunnel(client.transport, connection.transport, exchange.route.tunnel_timeout, state.sweeper, closed)
    tunnel.client.moved = len(early)
    tunnel.upstream.moved = len(rest)
    client.transport.write(head.wire + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n" + rest)
    if early:
        connection.transport.write(early)
    if deaf:
        client.transport.pause_reading()  # until the upstream's side says that it takes more
    if client.half_closed:
        tunnel.client.eof_received()
