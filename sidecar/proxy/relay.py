"""Relay: the upstream's answer goes to the client as it comes, head canonical, body framed as the client can read it.

The common answer (head and whole body in one read) leaves in one write. Longer bodies pass through a reader
that finds their end without looking at payload; a reader never copies what is canonical already. Backpressure:
a client that does not read pauses the upstream's socket, so that at most one high-water mark waits here.

What ends badly after bytes went to the client is cut off, never ended cleanly: a truncated answer must look
truncated.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import UpstreamFault
from sidecar.base.names import Decision, Outcome
from sidecar.proxy import deadline, guard
from sidecar.proxy.attempt import cut_off, fail, give_up_answer
from sidecar.proxy.codec.body import BadBody
from sidecar.proxy.codec.head import CHUNKED, UNTIL_CLOSE
from sidecar.proxy.fallback import go_on_keeping, keep_answer, may_keep
from sidecar.proxy.forward import VIA, VIA_OLD
from sidecar.proxy.pool import give_back
from sidecar.proxy.settle import settle
from sidecar.proxy.splice import SPLICE_FROM, splice
from sidecar.proxy.tunnel import open_upgraded

if TYPE_CHECKING:
    from sidecar.proxy.codec.head import ResponseHead
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.exchange import Exchange

MAX_INFORMATIONAL = 64
"""1xx answers that one request may get before its upstream counts as broken."""

_TAIL = VIA + b"\r\n"
_TAIL_CLOSE = VIA + b"Connection: close\r\n\r\n"
_TAIL_KEEP = VIA + b"Connection: keep-alive\r\n\r\n"
_REFRAMED = b"Transfer-Encoding: chunked\r\n"
_IN_CHUNKS = b"\r\n" + _REFRAMED  # with the end of the line before it: no part of a longer name
_OK = Outcome.OK  # an enum's member is dearer to look up than a name of the module
_LAST_CHUNK = b"0\r\n\r\n"


def relay_head(exchange: Exchange, connection: UpstreamConnection, data: bytes) -> None:
    """`data` holds everything since the end of the last head; relay the answer's head when it is whole."""
    plan = exchange.plan
    arrived = monotonic() if exchange.forwarded_at else 0.0
    try:
        head = plan.codec.response(data, exchange.head.method, exchange.upstream.answer_limits)
    except UpstreamFault as fault:
        fail(exchange, fault)
        return
    if head is None:
        connection.buffer = data
        return
    if connection.buffer:
        connection.buffer = b""
    if head.status < 200:
        _relay_informational(exchange, connection, head, data[head.size :])
        return
    route = exchange.route
    status = head.status
    if status in route.given_up and give_up_answer(exchange, head, data):
        return
    exchange.answer = head
    exchange.status = status
    size = head.size
    length = len(data) - size
    if length == head.length and exchange.head.minor == head.minor == 1:
        # the whole answer lies here: one write, and the connection is free again
        keep = exchange.keep_alive = exchange.keep_alive and exchange.uploaded and not plan.state.draining
        tail = _TAIL if keep else _TAIL_CLOSE
        if exchange.decision is not None:
            tail = b"X-Sidecar-Decision: %b\r\n%b" % (exchange.decision.value.encode(), tail)
        elif (cache := route.cache) is not None:
            request = exchange.head
            now = monotonic()
            if cache.wants(request.host, request.target, now) and may_keep(exchange, cache, head, now):
                keep_answer(exchange, cache, head, data[size:], now)
        written = b"".join((head.wire, tail, data[size:])) if length else head.wire + tail
        exchange.begun = True
        exchange.bytes_out += len(written)
        exchange.client.transport.write(written)
        if arrived:
            plan.overhead.observe(exchange.forwarded_at - exchange.started + monotonic() - arrived)
        give_back(exchange, connection, reusable=head.keep_alive and exchange.uploaded)
        settle(exchange, exchange.decision or _OK)
    else:
        _relay_long(exchange, head, data[size:])


def _relay_long(exchange: Exchange, head: ResponseHead, body: bytes) -> None:
    """An answer whose body is still coming, or one from HTTP/1.0 or for its clients, who know no chunks."""
    wire = head.wire
    old = exchange.head.minor == 0
    keep = exchange.keep_alive and exchange.uploaded and not exchange.plan.state.draining
    if old:
        wire = wire.replace(_IN_CHUNKS, b"\r\n", 1)
        keep = keep and head.length >= 0
    elif head.length == UNTIL_CLOSE:
        wire += _REFRAMED
    exchange.keep_alive = keep
    exchange.answer_reader = exchange.plan.codec.body(head.length, old and head.length == CHUNKED)
    if exchange.decision is not None:
        wire += b"X-Sidecar-Decision: %b\r\n" % exchange.decision.value.encode()
    elif (cache := exchange.route.cache) is not None and not old:
        request, now = exchange.head, monotonic()
        if cache.wants(request.host, request.target, now) and may_keep(exchange, cache, head, now):
            exchange.kept = []
    tail = (_TAIL_KEEP if old else _TAIL) if keep else _TAIL_CLOSE
    before = wire + (tail if head.minor else tail.replace(VIA, VIA_OLD))
    now = monotonic()
    guard.answered(exchange, head.status, now)
    deadline.rearm(exchange, now)
    _relay_piece(exchange, body, before)
    left = head.length - len(body)
    if left >= SPLICE_FROM and exchange.uploaded and exchange.kept is None and exchange.connection is not None:
        splice(exchange, exchange.connection, left, _spliced)


def _spliced(exchange: Exchange, quiet: bool) -> None:
    answer = exchange.answer
    assert answer is not None, "its head came before its body"
    _finish(exchange, reusable=answer.keep_alive and quiet)


def relay_body(exchange: Exchange, data: bytes) -> None:
    """A further piece of the answer's body."""
    exchange.client.deadline = monotonic() + exchange.upstream.idle_timeout
    _relay_piece(exchange, data, b"")


def _relay_piece(exchange: Exchange, data: bytes, before: bytes) -> None:
    reader = exchange.answer_reader
    answer = exchange.answer
    assert reader is not None and answer is not None  # noqa: PT018 - the head came before
    transport = exchange.client.transport
    try:
        piece, consumed = reader.feed(data)
    except BadBody:
        if exchange.begun:
            cut_off(exchange, Decision.BAD_RESPONSE)
        else:
            exchange.answer = exchange.answer_reader = exchange.kept = None
            fail(exchange, UpstreamFault("the upstream's answer breaks its framing"))
        return
    exchange.begun = True
    if piece and answer.length == UNTIL_CLOSE and exchange.head.minor == 1:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    exchange.bytes_out += len(before) + len(piece)
    if exchange.kept is not None:
        go_on_keeping(exchange, piece, reader.received, done=reader.done)
    if before:
        transport.write(before + piece)
    elif piece:
        transport.write(piece)
    if reader.done:
        # bytes beyond the answer's end belong to nobody: such a connection is never used again
        _finish(exchange, reusable=answer.keep_alive and consumed == len(data))


def _relay_informational(exchange: Exchange, connection: UpstreamConnection, head: ResponseHead, rest: bytes) -> None:
    """100 and 103 pass to clients that speak HTTP/1.1; 101 opens the tunnel that the client asked for."""
    if head.status == 101:
        if exchange.upgrade is None or head.upgrade != exchange.upgrade or not exchange.uploaded:
            fail(exchange, UpstreamFault("the upstream switched protocols without being asked to"))
        else:
            open_upgraded(exchange, connection, head, rest)
        return
    exchange.informational += 1
    if exchange.informational > MAX_INFORMATIONAL:
        fail(exchange, UpstreamFault("the upstream sent too many interim answers"))
        return
    if exchange.head.minor == 1:
        exchange.client.transport.write(head.wire + b"\r\n")
    if rest:
        relay_head(exchange, connection, rest)


def _finish(exchange: Exchange, *, reusable: bool) -> None:
    """The answer is whole: give the connection back and end the exchange."""
    connection = exchange.connection
    if connection is not None:
        give_back(exchange, connection, reusable=reusable and exchange.uploaded)
    settle(exchange, exchange.decision or _OK)
    if exchange.plan.state.draining:  # its head may have promised more requests before that
        exchange.client.drain(monotonic())


def upstream_gone(exchange: Exchange, *, unanswered: bool, clean: bool) -> None:
    """The connection that served this exchange is lost. `unanswered`: reused, and not a byte of an answer came."""
    answer = exchange.answer
    if answer is None:
        words = "the upstream closed the connection before its answer was whole"
        fail(exchange, UpstreamFault(words, 502, Decision.RESET), reused=unanswered)
    elif answer.length == UNTIL_CLOSE and clean:
        if exchange.head.minor == 1:
            exchange.bytes_out += len(_LAST_CHUNK)
            exchange.client.transport.write(_LAST_CHUNK)
        _finish(exchange, reusable=False)
    else:
        cut_off(exchange, Decision.RESET)
