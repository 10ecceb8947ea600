"""Admit: may this request go to its upstream now? Takes a place there, which `settle` gives back.

In memory, at once, without a call to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal
from sidecar.base.names import Decision

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


def admit(exchange: Exchange) -> None:
    """Take a place at the route's upstream; raises OwnRefusal when there is none."""
    route = exchange.route
    upstream = route.upstream
    if upstream.inflight >= upstream.max_requests:
        raise OwnRefusal("the upstream has as many requests under way as it may have", 503, Decision.OVERFLOW)
    upstream.inflight += 1
    upstream.requests += 1
    exchange.upstream = upstream
    exchange.admitted = True
    exchange.guarded = route.guarded
    route.inflight.value += 1
    upstream.budget.request(exchange.started)
