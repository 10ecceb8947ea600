"""Deadlines: one number per connection, looked at by a coarse sweep instead of a timer per request.

`rearm` says until when the present phase of an exchange may last; `expire.py` says what it means that it did not end.
The phases, and who is at fault when time is up:

* the request body is coming: the client, after `body_timeout` without a piece (408); unless it is the upstream that
  does not take what we have, which is the next phase.
* waiting for the head of the answer: the upstream, after `per_try_timeout` (another try may follow) or the route's
  `timeout`, counted from the last piece of the request (504).
* the answer's body is coming: the upstream after `idle_timeout` without a piece, or the client after `write_timeout`
  without taking one; either way it is cut off.

The sweep looks every few milliseconds (a tenth of the shortest time-out, 5 to 100 ms), so a time-out fires late by at
most that much and never early.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange

HOLD_CONNECTING = 1
"""The client is not read because there is no connection to send its body on."""
HOLD_UPSTREAM = 2
"""The client is not read because the upstream does not take what we have."""
HOLD_PIPELINE = 4
"""The client is not read because it sent enough for after this exchange."""
WAITING = HOLD_CONNECTING | HOLD_UPSTREAM

GRACE_SECONDS = 1.0
"""So long a client that has nothing under way may still send its next request when we stop."""
TICK_LONGEST = 0.1
TICK_SHORTEST = 0.005


class Timed(Protocol):
    """What the sweep looks at."""

    @property
    def deadline(self) -> float:
        """Monotonic seconds; infinity for never."""
        ...

    def expire(self, now: float) -> None:
        """The deadline has passed; do something about it, at least move the deadline."""


class Sweeper:
    """Calls `expire` on everything whose deadline has passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.watched: set[Timed] = set()
        self.tick = TICK_LONGEST

    def start(self) -> None:
        self._timer = self._loop.call_later(self.tick, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def fit(self, shortest_timeout: float) -> None:
        """Look often enough for a time-out of so many seconds."""
        self.tick = min(TICK_LONGEST, max(TICK_SHORTEST, shortest_timeout / 10))

    def _sweep(self) -> None:
        now = monotonic()
        due = [one for one in self.watched if one.deadline <= now]
        self._timer = self._loop.call_later(self.tick, self._sweep)
        for one in due:
            one.expire(now)


def close_within(transport: asyncio.Transport, seconds: float) -> None:
    """Close once what is written has left; a peer that has not taken it after so many seconds is cut off."""
    transport.close()
    if transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(seconds, transport.abort)


def rearm(exchange: Exchange, now: float) -> None:
    """Set the client connection's deadline for the phase that the exchange is in."""
    client = exchange.client
    route = exchange.route
    if exchange.answer is not None:
        client.deadline = now + exchange.upstream.idle_timeout
    elif exchange.uploaded or client.holds & WAITING:
        if exchange.give_up_at == 0.0:
            exchange.give_up_at = now + route.timeout
        by = exchange.give_up_at
        if exchange.connection is not None and now + route.per_try_timeout < by:
            by = now + route.per_try_timeout
        elif exchange.connection is None and exchange.connecting is None and exchange.retry_timer is None:
            by = min(by, now + exchange.upstream.pending_timeout)
        client.deadline = by
    else:
        exchange.give_up_at = now + route.timeout
        client.deadline = now + exchange.plan.body_timeout
    if client.half_closed and exchange.answer is None:
        client.deadline = min(client.deadline, now + exchange.plan.half_close_timeout)
