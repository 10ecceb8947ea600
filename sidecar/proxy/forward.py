"""Forward: send the request to the connection that was picked, head and what is there of the body in one write.

The head goes as the codec cut it, plus what a proxy owes its upstream: X-Forwarded-For, -Proto and -Host,
Via (RFC 9110 section 7.6.3), X-Request-Id when the client sent none, and for an upgrade the two fields that
ask for it. What a client claims in X-Forwarded-* is believed only from a trusted peer; others' is replaced, and their
Forwarded (RFC 7239), which says the same to upstreams that read it, goes no further. Where the listener says so,
X-Forwarded-Client-Cert tells what the client's certificate says; the client itself never does.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from sidecar.proxy.exchange import REPLAY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.proxy.codec.head import RequestHead
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.greet import Greeting

VIA = b"Via: 1.1 sidecar\r\n"
VIA_OLD = b"Via: 1.0 sidecar\r\n"
"""Of a message that came as HTTP/1.0: Via names what was received, not what is sent."""


def _request_ids() -> Iterator[bytes]:
    """32 hexadecimal digits each, unique: half of them drawn for this process, the rest counted from a random start."""
    process = os.urandom(8).hex().encode()
    last_digits = [b"%03x" % number for number in range(4096)]
    for thousands in itertools.count(int.from_bytes(os.urandom(6))):
        front = b"%b%013x" % (process, thousands)
        for digits in last_digits:
            yield front + digits


next_request_id = _request_ids().__next__


class Forwarding:
    """The forwarding fields of one client connection; the last host's are kept, for most clients name one."""

    __slots__ = ("_address", "_last", "_proto", "host", "rendered", "trusted")

    def __init__(self, address: bytes | None, *, trusted: bool, tls: Greeting | None = None) -> None:
        self._address = address  # the peer's, as X-Forwarded-For writes it; None over a Unix socket
        self._proto = b"http" if tls is None else b"https"
        certificate = None if tls is None else tls.certificate_element()
        self._last = VIA if certificate is None else b"X-Forwarded-Client-Cert: " + certificate + b"\r\n" + VIA
        self.trusted = trusted
        self.host: bytes | None = None
        self.rendered = b""
        """The lines for a request to `host` that claims nothing itself."""

    def fields(self, head: RequestHead) -> bytes:
        """`X-Forwarded-*`, `Forwarded` and `Via` lines for this request."""
        claims = head.claims
        if claims is None:
            if head.host != self.host:
                self.host = head.host
                self.rendered = self._render(self._address, self._proto, head.host)
            return self.rendered
        if not self.trusted:
            return self._render(self._address, self._proto, head.host)
        chain = claims.forwarded_for
        if self._address is not None:
            chain = self._address if chain is None else chain + b", " + self._address
        passed = b"" if claims.forwarded is None else b"Forwarded: " + claims.forwarded + b"\r\n"
        proto, host = claims.forwarded_proto or self._proto, claims.forwarded_host or head.host
        return passed + self._render(chain, proto, host)

    def scheme(self, head: RequestHead) -> bytes:
        """What the client speaks, or what its own client spoke, where we believe who says so."""
        told = head.claims.forwarded_proto if self.trusted and head.claims is not None else None
        return self._proto if told is None else told.partition(b",")[0]

    def _render(self, chain: bytes | None, proto: bytes, host: bytes) -> bytes:
        line = b"" if chain is None else b"X-Forwarded-For: " + chain + b"\r\n"
        named = b"X-Forwarded-Host: " + host + b"\r\n" if host else b""
        return line + b"X-Forwarded-Proto: " + proto + b"\r\n" + named + self._last


def render_request(exchange: Exchange) -> bytes:
    """The request head as it goes upstream, empty line included. Made once; another try sends the same."""
    head = exchange.head
    route = exchange.route
    wire = head.wire
    if route.host_rewrite is not None:
        wire = head.with_host(route.host_rewrite)
    elif not head.host:
        # HTTP/1.0 may go without a Host; many servers refuse HTTP/1.1 that names none
        wire = head.with_host(route.upstream_name.encode())
    tracer = exchange.plan.state.tracer
    if tracer is not None:
        wire = tracer.begin(exchange, wire)
    forwarding = exchange.client.forwarding
    known = head.claims is None and head.host == forwarding.host  # what `fields` would find out, without a call
    fields = forwarding.rendered if known else forwarding.fields(head)
    if head.minor == 0:
        fields = fields.replace(VIA, VIA_OLD)
    if exchange.upgrade is not None:
        fields += b"Connection: Upgrade\r\nUpgrade: " + exchange.upgrade + b"\r\n"
    if head.request_id is not None:
        rendered = wire + fields + b"\r\n"
    else:
        exchange.request_id = request_id = next_request_id()
        rendered = b"".join((wire, fields, b"X-Request-Id: ", request_id, b"\r\n\r\n"))
    exchange.wire = rendered
    return rendered


def forward(exchange: Exchange, connection: UpstreamConnection) -> None:
    """Give the exchange to `connection` and write what is there of the request."""
    exchange.connection = connection
    exchange.sent = True
    connection.exchange = exchange
    connection.uses += 1
    rendered = exchange.wire or render_request(exchange)
    if exchange.body is not None:
        rendered = b"".join((rendered, *exchange.body))
        if exchange.body_size > REPLAY_LIMIT:
            exchange.body = None
            exchange.replayable = False
    connection.transport.write(rendered)


def forward_body(exchange: Exchange, piece: bytes) -> None:
    """Send a further piece of the request body, or keep it until there is a connection."""
    if not piece:
        return
    connection = exchange.connection
    if connection is not None:
        connection.transport.write(piece)
        if not exchange.replayable:
            return
        if exchange.body_size + len(piece) > REPLAY_LIMIT or exchange.begun:
            exchange.body = None
            exchange.replayable = False
            return
    if exchange.body is None:
        exchange.body = []
    exchange.body.append(piece)
    exchange.body_size += len(piece)
