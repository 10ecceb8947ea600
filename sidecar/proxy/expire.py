"""Expire: a phase of an exchange has lasted too long; find who is at fault and end it accordingly.

`deadline.py` tells the phases and their limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.base.errors import ClientFault, OwnRefusal, UpstreamFault
from sidecar.base.names import Decision, Outcome
from sidecar.proxy.attempt import abandon, cut_off, fail
from sidecar.proxy.deadline import WAITING

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


def expire(exchange: Exchange, now: float) -> None:
    """End the try or the exchange, or grant more time to a client that reads slowly but does read."""
    client = exchange.client
    if exchange.answer is not None:
        if not client.write_paused:
            cut_off(exchange, Decision.TIMEOUT)
        elif not client.has_read(now):
            cut_off(exchange, Decision.CLIENT_TIMEOUT)
    elif client.half_closed and now < exchange.give_up_at:
        # it closed its side a while ago: most likely all of it
        client.transport.close()
        abandon(exchange, Outcome.CLIENT_GONE)
    elif not exchange.uploaded and not client.holds & WAITING:
        fail(exchange, ClientFault("the request body did not come in time", 408, Decision.CLIENT_TIMEOUT))
    elif now >= exchange.give_up_at:
        late = UpstreamFault("the upstream did not answer in time", 504, Decision.TIMEOUT)
        late.retryable = False
        fail(exchange, late)
    elif exchange.connection is None:
        fail(exchange, OwnRefusal("no connection to the upstream became free in time", 503, Decision.OVERFLOW))
    else:
        fail(exchange, UpstreamFault("the upstream did not answer in time", 504, Decision.TIMEOUT))
