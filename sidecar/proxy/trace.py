"""Trace: which requests get a span, what the next hop is told of it, and what the span says.

W3C Trace Context. A request that names a sound `traceparent` is traced when its caller sampled it: our span becomes the
caller's child, and the upstream is told that its parent is ours. One that names none is traced by the configured ratio,
as the root of a new trace. An unsound `traceparent` names no trace: the request counts as one without. Of requests that
are not traced both fields pass as they came. `tracestate` is nobody's here and passes always.

Without `tracing:` nothing of this runs, and both fields pass untouched. The ratio is even, not drawn: 0.01 is every
hundredth request. A span costs a tuple; JSON is made by whoever delivers it (`runtime/otlp.py`).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange
    from sidecar.runtime.otlp import SpanQueue

_SOUND = re.compile(
    rb"(?:00(?=-.{52}\Z)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_LINE = re.compile(rb"\r\n(?i:traceparent): [^\r]*")
_SAMPLED = 0x01


class TraceContext:
    """One request's place in a trace: ids in hexadecimal, `parent` empty at the root; `traceparent` as we send it."""

    __slots__ = ("parent", "span", "trace", "traceparent")

    def __init__(self, trace: bytes, span: bytes, parent: bytes) -> None:
        self.trace = trace
        self.span = span
        self.parent = parent
        self.traceparent = b"00-%b-%b-01" % (trace, span) if trace else b""


UNTRACED = TraceContext(b"", b"", b"")
"""Of a request that was looked at and gets no span."""


class Tracer:
    """Decides, and collects what the traced requests were."""

    __slots__ = ("_due", "_ratio", "queue")

    def __init__(self, queue: SpanQueue, ratio: float) -> None:
        self.queue = queue
        self._ratio = ratio
        self._due = 1.0 - ratio if ratio else 0.0  # the first request without a parent is the first of its share

    def begin(self, exchange: Exchange, wire: bytes) -> bytes:
        """Decide on `exchange`; the head's `wire` as the upstream is to see it."""
        context = exchange.trace or self.decide(exchange)
        if context is UNTRACED:
            return wire
        line = b"\r\ntraceparent: " + context.traceparent
        if context.parent:
            return _LINE.sub(line, wire, count=1)
        return _LINE.sub(b"", wire)[:-2] + line + b"\r\n"

    def decide(self, exchange: Exchange) -> TraceContext:
        """Set and return `exchange.trace`."""
        given = exchange.head.field(b"traceparent")
        match = None if given is None else _SOUND.fullmatch(given)
        if match is not None:
            sampled = int(match[3], 16) & _SAMPLED
            context = TraceContext(match[1], _hexadecimal(8), match[2]) if sampled else UNTRACED
        else:
            self._due += self._ratio
            if self._due >= 1.0:
                self._due -= 1.0
                context = TraceContext(_hexadecimal(16), _hexadecimal(8), b"")
            else:
                context = UNTRACED
        exchange.trace = context
        return context

    def end(self, exchange: Exchange, endpoint: str, outcome: str, now: float) -> None:
        """The request ended at `now` (monotonic seconds); keep its span, if it has one."""
        context = exchange.trace or self.decide(exchange)
        if context is not UNTRACED:
            head, route, client = exchange.head, exchange.route, exchange.client
            self.queue.put(
                (
                    context.trace, context.span, context.parent, exchange.started, now,
                    head.method, client.forwarding.scheme(head), head.host, head.path, head.minor,
                    head.field(b"user-agent") or b"", exchange.status, exchange.plan.name,
                    route.name, route.upstream_name, endpoint, outcome,
                    exchange.attempt, client.peer, exchange.request_id or b"",
                )
            )  # fmt: skip


def _hexadecimal(size: int) -> bytes:
    return os.urandom(size).hex().encode()
