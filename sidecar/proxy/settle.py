"""Settle: the one way out of an exchange. Gives back what it took, records how it ended, frees the client.

Everything that `admit` and `attempt` took is given back here and nowhere else, so that no path (an answer, a
refusal, a client that left, a time-out) can keep a place at an upstream.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from sidecar.proxy import guard
from sidecar.proxy.record import record

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


def settle(exchange: Exchange, outcome: str) -> None:
    """End `exchange`; `outcome` is the word for metric and log. Later calls do nothing."""
    if exchange.settled:
        return
    exchange.settled = True
    if exchange.retry_timer is not None:
        exchange.retry_timer.cancel()
        exchange.retry_timer = None
    now = monotonic()
    if exchange.permit is not None:
        guard.record(exchange, exchange.status, now)
    endpoint = exchange.endpoint
    if endpoint is not None:
        endpoint.active -= 1
        exchange.endpoint = None
    if exchange.admitted:
        upstream = exchange.upstream
        upstream.inflight -= 1
        if upstream.waiting:
            upstream.waiting.pop(exchange, None)
        exchange.route.inflight.value -= 1
    record(exchange, endpoint, outcome, now)
    exchange.client.finished(exchange, now)
