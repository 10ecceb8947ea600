"""One simulated request on its way: the counterpart of the proxy's exchange."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from sidecar.base.names import Decision
from sidecar.machines.breaker import Permit
from sidecar.simulate.network import Connection, Endpoint, Guard, Listener, Route, Upstream

if TYPE_CHECKING:
    from sidecar.simulate.access_log import Entry


class Asked(NamedTuple):
    """What one stream's requests have in common."""

    phase: int
    listener: Listener
    route: Route | None
    """Known beforehand; None: the routing table decides."""
    method: bytes
    host: bytes
    path: bytes
    field_of: Callable[[bytes], bytes | None]


class Call:
    """The state of one request between its arrival and its answer."""

    __slots__ = (
        "admitted",
        "asked",
        "attempt",
        "client",
        "connection",
        "decision",
        "endpoint",
        "free_retry",
        "give_up_at",
        "guard",
        "permit",
        "route",
        "seen",
        "sent",
        "started",
        "step",
        "target",
        "tier",
        "tried",
        "tried_at",
        "upstream",
    )

    route: Route
    upstream: Upstream
    guard: Guard

    def __init__(self, asked: Asked, started: float, target: bytes, client: bytes, seen: "Entry | None" = None) -> None:
        self.asked = asked
        self.started = started
        self.target = target
        self.client = client
        self.seen = seen
        """What an access log says came of it."""
        self.admitted = False
        self.endpoint: Endpoint | None = None
        self.permit: Permit | None = None
        self.connection: Connection | None = None
        self.tried: list[Endpoint] | None = None
        self.attempt = 0
        self.tier = 0
        self.free_retry = True
        self.sent = False
        self.tried_at = 0.0
        self.give_up_at = 0.0
        """When the answer must be there; 0: not fixed yet."""
        self.decision: Decision | None = None
        self.step = 0
        """Grows whenever what was awaited came or is not awaited any more: late events know that they are."""
