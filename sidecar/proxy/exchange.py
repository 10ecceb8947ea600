"""One request on its way: everything that the steps need to know about it, in one object.

A client connection has at most one exchange at a time; pipelined requests wait in its buffer. An
exchange ends exactly once, in `settle.settle`, whatever happened; everything that it took (a place at
the upstream, an endpoint's active count, a connection) is given back there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from sidecar.base.names import Decision
    from sidecar.machines.breaker import Permit
    from sidecar.proxy.breakers import Guarded
    from sidecar.proxy.client import ClientConnection
    from sidecar.proxy.codec.body import BodyReader
    from sidecar.proxy.codec.head import RequestHead, ResponseHead
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.plan import ListenerPlan, RoutePlan
    from sidecar.proxy.trace import TraceContext
    from sidecar.proxy.upstream import Endpoint, Upstream

REPLAY_LIMIT = 64 * 1024
"""Bytes of a request body that are kept so that another try can send them again."""


class Exchange:
    """The state of one request between its head and the last byte of its answer."""

    upstream: Upstream  # set by admit, as the next three
    guarded: Guarded
    tried_at: float  # monotonic seconds, when the present try began
    answered_at: float  # when the head of an answer with more to come was there; 0: not yet

    __slots__ = (
        "admitted",
        "answer",
        "answer_reader",
        "answered_at",
        "attempt",
        "begun",
        "body",
        "body_size",
        "bytes_in",
        "bytes_out",
        "client",
        "connecting",
        "connection",
        "decision",
        "endpoint",
        "forwarded_at",
        "free_retry",
        "give_up_at",
        "guarded",
        "head",
        "informational",
        "keep_alive",
        "kept",
        "permit",
        "plan",
        "reader",
        "replayable",
        "request_id",
        "retry_timer",
        "route",
        "sent",
        "settled",
        "started",
        "status",
        "tier",
        "trace",
        "tried",
        "tried_at",
        "upgrade",
        "uploaded",
        "upstream",
        "wire",
    )

    def __init__(self, client: ClientConnection, plan: ListenerPlan, head: RequestHead, started: float) -> None:
        self.client = client
        self.plan = plan
        self.head = head
        self.started = started  # monotonic seconds, when the head was whole
        self.route: RoutePlan = plan.unrouted
        self.admitted = False  # a place at `upstream` is held
        self.endpoint: Endpoint | None = None  # set while the endpoint counts this request as active
        self.permit: Permit | None = None  # what the breaker wants to hear of the present try
        self.connection: UpstreamConnection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.retry_timer: asyncio.TimerHandle | None = None
        self.tried: list[Endpoint] | None = None
        self.attempt = 0  # tries begun, at the present upstream
        self.tier = 0  # fallbacks tried
        self.kept: list[bytes] | None = None  # the answer's body so far, when it may be kept as the last good one
        self.free_retry = True  # the keep-alive race may be repaired once, outside the retry policy
        self.wire: bytes | None = None  # the request head as it goes upstream
        self.upgrade: bytes | None = None
        self.request_id: bytes | None = head.request_id
        self.keep_alive = head.keep_alive
        self.reader: BodyReader | None = None
        self.uploaded = True
        self.body: list[bytes] | None = None  # pieces kept for (another) sending
        self.body_size = 0
        self.replayable = True  # `body` still holds every piece from the first on
        self.sent = False  # bytes of this request went to some upstream
        self.begun = False  # bytes of an answer went to the client
        self.informational = 0
        self.answer: ResponseHead | None = None
        self.answer_reader: BodyReader | None = None
        self.forwarded_at = 0.0  # monotonic seconds; set on the few requests whose overhead is measured
        self.give_up_at = 0.0  # monotonic seconds; the answer's head must be there by then
        self.status = 0
        self.trace: TraceContext | None = None  # None: not looked at, or tracing is off
        self.decision: Decision | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.settled = False
