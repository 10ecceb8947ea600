"""A client's connection: bytes become requests, requests become exchanges, one at a time and in order.

Parse happens here: the codec is asked for a head; what it takes is an exchange, what it refuses is answered and the
connection closed. While an exchange runs, further bytes are its body or wait for their turn. A connection is closed
gently when the client may still be sending (answer, half-close, read on for a moment), so that a reset does not
take the answer away; and reading pauses whenever what we hold for the client has nowhere to go.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import ClientFault, OwnRefusal, RequestFault
from sidecar.base.names import Decision, Outcome
from sidecar.proxy import attempt, deadline
from sidecar.proxy.admit import admit
from sidecar.proxy.answer import fault_answer
from sidecar.proxy.codec.body import BadBody
from sidecar.proxy.codec.head import head_end
from sidecar.proxy.connection import HIGH_WATER
from sidecar.proxy.deadline import GRACE_SECONDS, HOLD_CONNECTING, HOLD_PIPELINE
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.expire import expire
from sidecar.proxy.forward import forward_body
from sidecar.proxy.record import record_refused
from sidecar.proxy.route import route

if TYPE_CHECKING:
    from sidecar.proxy.accept import Acceptor
    from sidecar.proxy.codec.head import RequestHead
    from sidecar.proxy.forward import Forwarding

PIPELINE_LIMIT = 64 * 1024
"""Bytes that a client may send ahead of its turn before we stop reading."""
_RESET = struct.pack("ii", 1, 0)
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


class ClientConnection(asyncio.Protocol):
    """One client of one listener."""

    __slots__ = (
        "acceptor",
        "buffer",
        "deadline",
        "exchange",
        "forwarding",
        "gone",
        "half_closed",
        "holds",
        "last",
        "lingering",
        "peer",
        "pumping",
        "transport",
        "unread",
        "write_paused",
    )

    transport: asyncio.Transport
    peer: str
    forwarding: Forwarding
    deadline: float

    def __init__(self, acceptor: Acceptor) -> None:
        self.acceptor = acceptor
        self.exchange: Exchange | None = None
        self.buffer = b""  # a head that is not whole yet, or what came ahead of its turn
        self.last: RequestHead | None = None  # the head before, which the next one most often resembles
        self.holds = 0  # reasons for not reading, as bits
        self.write_paused = False
        self.unread = 0  # bytes that waited for the client when it was last looked at
        self.half_closed = False
        self.lingering = 0  # bytes thrown away since the last answer, plus 1; 0: not lingering
        self.pumping = False
        self.gone = False

    # The transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by type
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.peer, self.forwarding = self.acceptor.plan.welcome(transport)
        self.deadline = monotonic() + self.acceptor.plan.header_read_timeout
        self.acceptor.joined(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.lingering:
                self._linger(data)
            elif self.write_paused:
                self._queue(data)  # who does not read its answers gets no more of them
            elif self.buffer:
                self._read_more_of_head(data)
            elif not self._read_head(data):
                self.deadline = monotonic() + self.acceptor.plan.header_read_timeout
        elif exchange.uploaded:
            self._queue(data)
        else:
            self._read_body(exchange, data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        # a request without its end will never be whole; where none runs, some may wait until their client reads
        owed = self.write_paused and self.buffer != b"" if exchange is None else exchange.uploaded
        if owed:
            self.half_closed = True
            if exchange is not None:
                deadline.rearm(exchange, monotonic())
        return owed

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed()
        exchange = self.exchange
        if exchange is not None:
            attempt.abandon(exchange, Outcome.CLIENT_GONE)

    def pause_writing(self) -> None:
        self.write_paused = True
        self.wait_for_reader(monotonic())
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.transport.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        exchange = self.exchange
        if exchange is not None:
            deadline.rearm(exchange, monotonic())
            if exchange.connection is not None:
                exchange.connection.transport.resume_reading()
        elif self.lingering:
            self.deadline = monotonic() + LINGER_SECONDS
        else:
            plan = self.acceptor.plan
            self.deadline = monotonic() + (plan.header_read_timeout if self.buffer else plan.idle_timeout)
            self._pump()

    # Requests -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Serve what waits in the buffer, one request after the other, while answers come at once."""
        if self.pumping:
            return
        self.pumping = True
        while self.buffer and self.exchange is None and not self.lingering and not self.gone and not self.write_paused:
            waiting, self.buffer = self.buffer, b""
            if not self._read_head(waiting):
                break
        self.pumping = False
        if self.half_closed:
            self._close_when_done()
        if self.holds & HOLD_PIPELINE and len(self.buffer) < PIPELINE_LIMIT:
            self.release(HOLD_PIPELINE)

    def _read_head(self, data: bytes) -> bool:
        """Whether `data` began with a whole head, or with none; False: it is kept until more comes."""
        plan = self.acceptor.plan
        try:
            head = plan.codec.request(data, plan.limits, self.last)
        except ClientFault as fault:
            self._reject(fault)
            return True
        if head is None:
            self.buffer = data
            return False
        self.last = head
        self._serve(Exchange(self, plan, head, monotonic()), head, data)
        return True

    def _read_more_of_head(self, data: bytes) -> None:
        """A head that comes in pieces is parsed once, when its end is there or cannot come any more."""
        start = len(self.buffer)
        self.buffer += data
        if head_end(self.buffer, start) >= 0 or len(self.buffer) > self.acceptor.plan.limits.max_head:
            waiting, self.buffer = self.buffer, b""
            self._read_head(waiting)

    def _serve(self, exchange: Exchange, head: RequestHead, data: bytes) -> None:
        """Route -> admit -> attempt (pick, forward); relay, settle and record follow when the answer comes."""
        self.exchange = exchange
        try:
            if len(data) > head.size or head.length:
                self._begin_body(exchange, head, data[head.size :])
            route(exchange)
            admit(exchange)
            attempt.attempt(exchange)
        except RequestFault as fault:
            attempt.refuse(exchange, fault)

    def _begin_body(self, exchange: Exchange, head: RequestHead, rest: bytes) -> None:
        """`rest` is what came behind the head: body, then perhaps the next request. Raises ClientFault."""
        plan = exchange.plan
        if head.length == 0:
            self._queue(rest)
            return
        if head.length > plan.max_body:
            exchange.uploaded = False
            raise ClientFault("the request body is larger than this listener takes", 413)
        if head.length == len(rest):  # all of it, with the head: nothing to wait for
            exchange.body = [rest]
            exchange.body_size = exchange.bytes_in = head.length
            return
        exchange.uploaded = False
        exchange.reader = plan.codec.body(head.length)
        if rest:
            self._take_body(exchange, rest)

    def _take_body(self, exchange: Exchange, data: bytes) -> None:
        """Read `data` as body and send it on; raises ClientFault when it is none."""
        reader = exchange.reader
        assert reader is not None
        try:
            piece, consumed = reader.feed(data)
        except BadBody:
            raise ClientFault("the request body breaks its framing") from None
        if reader.received > exchange.plan.max_body:
            raise ClientFault("the request body is larger than this listener takes", 413)
        exchange.bytes_in += consumed
        forward_body(exchange, piece)
        if reader.done:
            exchange.uploaded = True
            if consumed < len(data):
                self._queue(data[consumed:])

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        try:
            self._take_body(exchange, data)
        except ClientFault as fault:
            if exchange.begun:
                attempt.cut_off(exchange, fault.decision)
            else:
                attempt.refuse(exchange, fault)
            return
        if not exchange.settled and exchange.answer is None:
            deadline.rearm(exchange, monotonic())

    def _queue(self, data: bytes) -> None:
        """Bytes for after this exchange; bounded, then the client is not read."""
        self.buffer += data
        if len(self.buffer) > PIPELINE_LIMIT:
            self.hold(HOLD_PIPELINE)

    def _reject(self, fault: ClientFault) -> None:
        """Not HTTP, or not HTTP that we take: say so and close. Nothing of it reaches an upstream."""
        self.buffer = b""
        self.transport.write(fault_answer(fault, keep_alive=False))
        record_refused(self.acceptor.plan, self.peer, fault)
        self._close_gently()

    # The end of an exchange ---------------------------------------------------------------------------------------

    def finished(self, exchange: Exchange, now: float) -> None:
        """`exchange` is settled: go on with the next request, or close."""
        self.exchange = None
        if self.gone:
            return
        if not exchange.keep_alive:
            self._close_gently()
            return
        if self.write_paused:  # what goes on, goes on in `resume_writing`
            self.wait_for_reader(now)
            return
        self.deadline = now + self.acceptor.plan.idle_timeout
        if self.buffer:
            self.deadline = now + self.acceptor.plan.header_read_timeout
            self._pump()
        if self.half_closed:
            self._close_when_done()

    def _close_when_done(self) -> None:
        """A client that closed its side has asked for all it will: close ours once everything is answered."""
        if self.exchange is None and not self.pumping and not self.write_paused:
            self.transport.close()

    def fail(self, exchange: Exchange, fault: RequestFault) -> None:
        """The pool could not get a connection for `exchange`."""
        attempt.fail(exchange, fault)

    def expire(self, now: float) -> None:
        """The sweep found our deadline passed."""
        exchange = self.exchange
        if exchange is not None:
            expire(exchange, now)
        elif self.transport.get_write_buffer_size():
            if not self.has_read(now):
                self.transport.abort()
        elif self.lingering:
            self.transport.abort()
        elif self.buffer:
            self._reject(ClientFault("the request head did not come in time", 408, Decision.CLIENT_TIMEOUT))
        else:
            self.deadline = inf
            self.transport.close()

    def wait_for_reader(self, now: float) -> None:
        """The client does not take what we have: it gets `write_timeout` to take something."""
        self.unread = self.transport.get_write_buffer_size()
        self.deadline = now + self.acceptor.plan.write_timeout

    def has_read(self, now: float) -> bool:
        """Whether the client took, or got, anything since the last look; if so it gets another `write_timeout`."""
        before = self.unread
        self.wait_for_reader(now)
        return self.unread != before

    def drain(self, now: float) -> None:
        """Close soon unless a request is under way or comes in time; its answer will close us."""
        if self.exchange is None and not self.buffer:
            self.deadline = min(self.deadline, now + GRACE_SECONDS)

    def end(self) -> None:
        """The proxy ends: a request without an answer gets its last word, an answer on its way is cut off."""
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()
        elif exchange.begun:
            attempt.cut_off(exchange, Decision.DRAINING)
        else:
            attempt.refuse(exchange, OwnRefusal("the proxy is stopping", 503, Decision.DRAINING))

    def is_owed(self) -> bool:
        """Whether anything is to come: all but a client that only lingers has its time to ask or to be answered."""
        return not self.lingering or self.transport.get_write_buffer_size() > 0

    def reset(self) -> None:
        """Break the connection with RST: to a client without chunks, a clean end would say that all is there."""
        if self.gone or self.transport.is_closing():
            return
        theirs = self.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(theirs.fileno())) as ours:  # uvloop's own lets nobody set options
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def leave(self) -> bytes:
        """The connection becomes a tunnel: stop watching it; returns what the client sent ahead."""
        self.acceptor.unwatch(self)
        early, self.buffer = self.buffer, b""
        if self.holds:
            self.release(self.holds)
        return early

    def closed(self) -> None:
        """The connection is lost, as a client's or as a tunnel's."""
        if not self.gone:
            self.gone = True
            self.acceptor.left(self)

    def _close_gently(self) -> None:
        """Send what is written, say that we are done, and read on for a moment so that no reset overtakes it."""
        if self.gone or self.transport.is_closing():
            return
        self.buffer = b""
        if self.half_closed:
            self.transport.close()
            return
        self.lingering = 1
        self.unread = self.transport.get_write_buffer_size() + 1
        self.deadline = monotonic() + LINGER_SECONDS
        if self.holds:
            self.release(self.holds)
        self.transport.write_eof()

    def _linger(self, data: bytes) -> None:
        self.lingering += len(data)
        if self.lingering > LINGER_BYTES:
            self.transport.abort()

    # Reading or not -----------------------------------------------------------------------------------------------

    def hold(self, reason: int) -> None:
        """Do not read from the client, for `reason`."""
        if not self.holds:
            self.transport.pause_reading()
        self.holds |= reason

    def release(self, reason: int) -> None:
        """`reason` is over; read again when it was the last."""
        if self.holds & reason:
            self.holds &= ~reason
            if not self.holds and not self.transport.is_closing():
                self.transport.resume_reading()

    def hold_for_connection(self) -> None:
        """There is no connection yet: a body that still comes must wait in the client's kernel, not here."""
        exchange = self.exchange
        if exchange is not None and not exchange.uploaded:
            self.hold(HOLD_CONNECTING)

    def let_go(self) -> None:
        """The exchange got, or lost, its connection: its reasons for not reading are over."""
        if self.holds:
            self.release(deadline.WAITING)
