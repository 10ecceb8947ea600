"""TCP: a listener with `protocol: tcp` passes bytes both ways to an endpoint of its only route's upstream.

Nothing of the stream is looked at. The client is not read until there is a connection for it; when an endpoint
cannot be reached, another one is tried as long as there is one, for nothing was sent yet. When the upstream may not be
called or none of its endpoints is reached, the upstreams that the route's `fallback` names are asked in their order.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import RequestFault
from sidecar.base.names import Decision, Outcome
from sidecar.machines.blame import UPSTREAMS_FAULT
from sidecar.machines.breaker import Refusal, Trial
from sidecar.proxy.connection import HIGH_WATER, UpstreamConnection
from sidecar.proxy.fallback import Elsewhere
from sidecar.proxy.pool import connect_fault
from sidecar.proxy.tunnel import Tunnel
from sidecar.runtime import series

if TYPE_CHECKING:
    from sidecar.machines.breaker import Permit
    from sidecar.proxy.accept import Acceptor
    from sidecar.proxy.breakers import Guarded
    from sidecar.proxy.upstream import Endpoint, Upstream

METHOD = "TCP"
"""What the metric's label `method` says of a connection that is no HTTP."""


class TunnelMouth(UpstreamConnection):
    """An upstream's connection until its tunnel is open: what it says first, as a mail server does, is kept."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.transport.pause_reading()


class TcpClient(asyncio.Protocol):
    """A client of a tcp listener until its tunnel is open."""

    __slots__ = (
        "acceptor",
        "deadline",
        "decision",
        "early",
        "gone",
        "half_closed",
        "peer",
        "plan",
        "started",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, acceptor: Acceptor) -> None:
        self.acceptor = acceptor
        self.plan = acceptor.plan
        self.deadline = inf  # connect_timeout bounds this phase, the tunnel keeps its own time
        self.gone = False
        self.decision: Decision | None = None  # fallback_upstream, once it was asked
        self.half_closed = False
        self.early: list[bytes] = []  # what came before there was a connection to pass it on to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by type
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.peer, _ = self.plan.welcome(transport)
        self.started = monotonic()
        self.acceptor.joined(self)
        self.acceptor.state.spawn(self._open())

    def data_received(self, data: bytes) -> None:
        # the first bytes may come before the transport can be told to pause; no more than one read's worth
        self.early.append(data)
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.half_closed = True
        return True  # it may have said all it wants to say, and wait for the answer

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed()

    def closed(self) -> None:
        """The connection is lost, before or within the tunnel."""
        if not self.gone:
            self.gone = True
            self.acceptor.left(self)

    def expire(self, now: float) -> None:  # noqa: ARG002
        self.deadline = inf

    def drain(self, now: float) -> None:
        """A tunnel ends when its ends say so, or when the drain's time is up."""

    async def _open(self) -> None:
        route = self.plan.routes[0]
        route.inflight.value += 1
        refusal = await self._try(route.upstream, route.guarded)
        for tier in route.fallback:
            if refusal is None or not isinstance(tier, Elsewhere):
                break
            self.decision = Decision.FALLBACK_UPSTREAM
            tier.used.value += 1
            refusal = await self._try(tier.upstream, tier.upstream.guarded)
        if refusal is not None:
            self._give_back(None, None)
            self._refuse(refusal)

    async def _try(self, upstream: Upstream, guarded: Guarded) -> Decision | None:
        """Open the tunnel to an endpoint of `upstream`; the word for why there is none, or None."""
        if upstream.inflight >= upstream.max_requests:
            return Decision.OVERFLOW
        permit = guarded.breaker.admit(monotonic())
        if isinstance(permit, Refusal):
            guarded.count_refusals()
            return permit.reason
        if isinstance(permit, Trial):
            guarded.trial(permit)
        upstream.inflight += 1
        tried: list[Endpoint] = []
        try:
            connection = await self._connect(upstream, tried)
        except RequestFault as fault:
            upstream.inflight -= 1
            if fault.decision in UPSTREAMS_FAULT:
                _tell_breaker(guarded, permit, ok=False)
            else:
                guarded.cancel(permit)
            return fault.decision
        _tell_breaker(guarded, permit, ok=True)
        if self.gone:
            connection.transport.abort()
            self._give_back(upstream, tried[-1])
        else:
            self._pass(connection, upstream, tried[-1])
        return None

    async def _connect(self, upstream: Upstream, tried: list[Endpoint]) -> UpstreamConnection:
        """A connection to some endpoint, which is the last of `tried` then; raises RequestFault."""
        key = self.peer.encode()
        while True:
            endpoint = upstream.picker.pick(tried, key)
            if tried and (endpoint is None or endpoint in tried):
                raise RequestFault("no endpoint could be reached", 503, Decision.CONNECT_FAILURE)
            if endpoint is None:
                raise RequestFault("no endpoint is healthy", 503, Decision.NO_HEALTHY_ENDPOINT)
            if not upstream.has_room():
                raise RequestFault("as many connections as there may be", 503, Decision.OVERFLOW)
            tried.append(endpoint)  # type: ignore[arg-type]  # the picker was made of our endpoints
            endpoint.active += 1
            upstream.opening += 1
            began = monotonic()
            try:
                connection = await self.plan.state.connect(endpoint, TunnelMouth)  # type: ignore[arg-type]
            except (OSError, RequestFault) as error:
                endpoint.active -= 1
                upstream.count_connect(connect_fault(error))
                _tell_outliers(tried[-1], began, ok=False)
            else:
                _tell_outliers(tried[-1], began, ok=True)
                return connection
            finally:
                upstream.opening -= 1

    def _pass(self, connection: UpstreamConnection, upstream: Upstream, endpoint: Endpoint) -> None:
        plan = self.plan
        plan.tunnels.value += 1

        def closed(tunnel: Tunnel, outcome: str) -> None:
            plan.tunnels.value -= 1
            plan.bytes_in.value += tunnel.client.moved
            plan.bytes_out.value += tunnel.upstream.moved
            connection.connection_lost(None)
            self._give_back(upstream, endpoint)
            told = self.decision if self.decision is not None and outcome == Outcome.OK else outcome
            self._record(told, endpoint, tunnel.client.moved, tunnel.upstream.moved)
            self.closed()

        connection.uses += 1
        tunnel = Tunnel(self.transport, connection.transport, plan.routes[0].tunnel_timeout, plan.state.sweeper, closed)
        self.acceptor.unwatch(self)
        if connection.buffer:
            tunnel.upstream.data_received(connection.buffer)
            connection.transport.resume_reading()
        if self.early:
            tunnel.client.data_received(b"".join(self.early))
            self.early.clear()
            self.transport.resume_reading()
        if self.half_closed:
            tunnel.client.eof_received()

    def _give_back(self, upstream: Upstream | None, endpoint: Endpoint | None) -> None:
        self.plan.routes[0].inflight.value -= 1
        if upstream is not None:
            upstream.inflight -= 1
        if endpoint is not None:
            endpoint.active -= 1

    def _refuse(self, decision: Decision) -> None:
        self.transport.abort()
        self._record(decision, None, 0, 0)

    def _record(self, outcome: str, endpoint: Endpoint | None, bytes_in: int, bytes_out: int) -> None:
        plan = self.plan
        route = plan.routes[0]
        plan.registry.cell(series.REQUESTS, plan.name, route.name, route.upstream_name, METHOD, "0", outcome).value += 1
        duration = monotonic() - self.started
        route.duration.observe(duration)
        log = plan.state.access_log
        if log is not None:
            address = "" if endpoint is None else endpoint.address
            word = "" if outcome == Outcome.OK else str(outcome)
            log.record(plan.name, route.name, route.upstream_name, address, METHOD, "", "", 0, word, duration,
                       bytes_in, bytes_out, "", "", self.peer, 1)  # fmt: skip


def _tell_breaker(guarded: Guarded, permit: Permit, *, ok: bool) -> None:
    """For a stream that nobody looks into, an upstream that can be reached is a good one."""
    change = guarded.breaker.record(permit, monotonic(), ok=ok)
    if change is not None:
        guarded.changed(change)


def _tell_outliers(endpoint: Endpoint, began: float, *, ok: bool) -> None:
    if endpoint.standing is not None:
        outliers = endpoint.upstream.outliers
        ejection = outliers.record(endpoint.standing, monotonic(), began, ok, not ok)
        if ejection is not None:
            outliers.tell(ejection)
