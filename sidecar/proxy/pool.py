"""Pool: connections to endpoints are opened, given to exchanges, rested, handed on, closed.

A connection that is opened for an exchange goes to another one, or to rest, when its exchange ended meanwhile; one
that is given back serves who has waited longest before it rests. Nothing here decides about requests: what failed
is told to the exchange's client connection.
"""

from __future__ import annotations

import asyncio
import errno
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal, RequestFault, UpstreamFault
from sidecar.base.names import Decision
from sidecar.proxy import deadline
from sidecar.proxy.forward import forward

if TYPE_CHECKING:
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import Endpoint, Upstream

DESCRIPTORS_GONE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def open_for(exchange: Exchange, endpoint: Endpoint) -> None:
    """Begin to open a connection to `endpoint` for `exchange`."""
    endpoint.upstream.opening += 1
    exchange.connecting = exchange.plan.state.spawn(_open(exchange, endpoint))


async def _open(exchange: Exchange, endpoint: Endpoint) -> None:
    task = asyncio.current_task()
    try:
        connection = await exchange.plan.state.connect(endpoint)
    except (OSError, RequestFault) as error:
        endpoint.upstream.opening -= 1
        fault = connect_fault(error)
        endpoint.upstream.count_connect(fault)
        if exchange.connecting is task:
            exchange.connecting = None
            exchange.client.fail(exchange, fault)
        serve_waiting(endpoint.upstream)
        return
    endpoint.upstream.opening -= 1
    endpoint.upstream.connects_ok.value += 1
    if exchange.connecting is task:
        exchange.connecting = None
        _hand(exchange, connection)
    else:
        _rest(connection)


def connect_fault(error: Exception) -> RequestFault:
    """What a failure to open a connection means to the request that wanted it."""
    if isinstance(error, RequestFault):
        return error
    if isinstance(error, TimeoutError):
        return UpstreamFault("no connection to the upstream within connect_timeout", 502, Decision.CONNECT_FAILURE)
    if isinstance(error, OSError) and error.errno in DESCRIPTORS_GONE:
        return OwnRefusal("this process has no descriptor left for a connection", 503, Decision.OVERFLOW)
    return UpstreamFault("no connection to the upstream", 502, Decision.CONNECT_FAILURE)


def _hand(exchange: Exchange, connection: UpstreamConnection) -> None:
    exchange.client.let_go()
    forward(exchange, connection)
    deadline.rearm(exchange, monotonic())


def give_back(exchange: Exchange, connection: UpstreamConnection, *, reusable: bool) -> None:
    """Part `exchange` and `connection`, which serves who waits, rests, or is closed."""
    exchange.connection = None
    connection.exchange = None
    connection.buffer = b""
    client = exchange.client
    if client.holds:
        client.let_go()
    if client.write_paused:
        connection.transport.resume_reading()
    if reusable:
        _rest(connection)
    elif exchange.uploaded:
        connection.close()
    else:
        connection.discard()  # what it has not taken belongs to a request that will never be whole


def _rest(connection: UpstreamConnection) -> None:
    endpoint = connection.endpoint
    upstream = endpoint.upstream
    if endpoint.retired or connection.lost:
        connection.close()
        return
    if upstream.waiting:
        exchange = upstream.next_waiting()
        if exchange is not None:
            if exchange.endpoint is not endpoint:
                if exchange.endpoint is not None:
                    exchange.endpoint.active -= 1
                exchange.endpoint = endpoint
                endpoint.active += 1
            _hand(exchange, connection)
            return
    connection.idle_since = monotonic()
    endpoint.idle.append(connection)


def serve_waiting(upstream: Upstream) -> None:
    """There is room among the upstream's connections: let those who wait open theirs."""
    while upstream.waiting and upstream.connections + upstream.opening < upstream.max_connections:
        exchange = upstream.next_waiting()
        if exchange is not None and exchange.endpoint is not None:
            open_for(exchange, exchange.endpoint)


def close_stale(upstream: Upstream, now: float) -> None:
    """Close what has rested for longer than the upstream's idle_timeout; the oldest stand first."""
    oldest = now - upstream.idle_timeout
    for endpoint in upstream.endpoints:
        while endpoint.idle and endpoint.idle[0].idle_since < oldest:
            endpoint.idle.pop(0).close()
