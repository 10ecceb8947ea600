"""Attempt: pick an endpoint, get a connection to it, forward; and when a try fails, try again or answer.

A try ends in one of three ways: an answer that is relayed, an answer or a fault that the retry policy gives
another try (`machines/retry.py` decides; never after a byte went to the client), or the end of the exchange:
`refuse` answers (by a fallback where the route has one), `cut_off` breaks what was begun, `abandon` cancels because
the client left. No step waits here: opening a connection is a task of the pool's, waiting for one is a place in the
upstream's queue.
"""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal, RequestFault, UpstreamFault
from sidecar.base.names import Decision
from sidecar.machines import retry
from sidecar.machines.blame import FALLBACK_DECISIONS, FALLBACK_STATUSES
from sidecar.proxy import deadline, fallback, guard
from sidecar.proxy.answer import fault_answer
from sidecar.proxy.forward import forward, next_request_id
from sidecar.proxy.pool import give_back, open_for
from sidecar.proxy.settle import settle

if TYPE_CHECKING:
    from sidecar.proxy.codec.head import ResponseHead
    from sidecar.proxy.exchange import Exchange


MEASURED = 15
"""Overhead and decisions are measured on one request in sixteen: when its number has none of these bits."""


def attempt(exchange: Exchange) -> None:
    """Begin a try. Raises OwnRefusal when the breaker says no, or there is no endpoint or no room."""
    upstream = exchange.upstream
    first = exchange.attempt == 0 and exchange.tier == 0
    now = exchange.started if first else monotonic()
    measured = not upstream.requests & MEASURED
    ready = exchange.guarded.breaker.ready
    if ready and not measured:
        # what `guard.ask` would find out: the breaker is closed, or disabled, and lets everybody pass
        exchange.permit = ready
        exchange.tried_at = now
        exchange.answered_at = 0.0
    else:
        guard.ask(exchange, now)
    hash_key = b"" if upstream.hash_key is None else upstream.hash_key(exchange)
    endpoint = upstream.picker.pick(exchange.tried or (), hash_key)
    if endpoint is None:
        raise OwnRefusal("the upstream has no endpoint that is healthy", 503, Decision.NO_HEALTHY_ENDPOINT)
    exchange.endpoint = endpoint  # type: ignore[assignment]  # the picker was made of our endpoints
    endpoint.active += 1
    exchange.attempt += 1
    # the repetition of a lost race is promised a fresh connection
    connection = endpoint.take() if exchange.free_retry else None  # type: ignore[attr-defined]
    if connection is not None:
        if not first:
            exchange.client.let_go()  # the try before this one may have waited for a connection
        forward(exchange, connection)
        if first and exchange.uploaded:
            # what `deadline.rearm` would come to, for a request that is here as a whole
            exchange.give_up_at = now + exchange.route.timeout
            exchange.client.deadline = now + exchange.route.patience
            if measured:
                exchange.forwarded_at = monotonic()
        else:
            deadline.rearm(exchange, now)
        return
    if upstream.has_room():
        open_for(exchange, endpoint)  # type: ignore[arg-type]
    elif len(upstream.waiting) < upstream.max_pending:
        upstream.waiting[exchange] = None
    else:
        raise OwnRefusal("too many requests wait for a connection to the upstream", 503, Decision.OVERFLOW)
    exchange.client.hold_for_connection()
    deadline.rearm(exchange, monotonic())


def fail(exchange: Exchange, fault: RequestFault, *, reused: bool = False) -> None:
    """This try is over without an answer that could be relayed. `reused`: on a connection that rested before, and
    not a byte of an answer came.
    """
    if exchange.settled:
        return
    _drop_connection(exchange)
    failure = retry.Failure(fault.decision, sent=exchange.sent, reused=reused)
    if exchange.free_retry and retry.lost_keep_alive_race(
        failure, method=exchange.head.method, replayable=exchange.replayable
    ):
        guard.forget(exchange)
        exchange.free_retry = False
        exchange.attempt -= 1
        _try_again(exchange, 0.0, elsewhere=False)
        return
    guard.blame(exchange, fault.decision)
    again = _decide(exchange, failure) if fault.retryable and not exchange.informational else None
    if again is None:
        refuse(exchange, fault)
    else:
        _try_again(exchange, again.delay)


def give_up_answer(exchange: Exchange, head: ResponseHead, data: bytes) -> bool:
    """Whether this answer is not for the client, but was followed by another try or by a fallback."""
    if exchange.informational:
        return False
    again = None
    policy = exchange.route.retry
    if policy is not None and head.status in policy.statuses:
        retry_after = _seconds(head.field(b"retry-after"))
        again = _decide(exchange, retry.Failure(status=head.status, answered=True, retry_after=retry_after))
    if again is None and not (head.status in FALLBACK_STATUSES and fallback.has_tier(exchange)):
        return False
    guard.record(exchange, head.status, monotonic(), head)
    connection = exchange.connection
    assert connection is not None, "the answer came on it"
    whole = head.keep_alive and head.length == len(data) - head.size and exchange.uploaded
    give_back(exchange, connection, reusable=whole)
    if again is not None:
        _try_again(exchange, again.delay)
    else:
        refuse(exchange, UpstreamFault("the upstream answered that it cannot serve", head.status))
    return True


def _seconds(retry_after: bytes | None) -> float | None:
    """Retry-After as seconds; its form as a date is taken for "not soon"."""
    if retry_after is None:
        return None
    return float(retry_after) if retry_after.isdigit() and len(retry_after) < 9 else float("inf")


def _decide(exchange: Exchange, failure: retry.Failure) -> retry.Retry | None:
    policy = exchange.route.retry
    upstream = exchange.upstream
    if policy is None or not exchange.admitted or exchange.upgrade is not None:
        return None
    now = monotonic()
    budget = upstream.budget
    again = retry.decide(
        policy,
        failure,
        attempt=exchange.attempt,
        method=exchange.head.method,
        replayable=exchange.replayable,
        time_left=exchange.give_up_at - now,
        spend=lambda: budget.take(now),
        uniform=random.random,
    )
    if isinstance(again, retry.Retry):
        upstream.count_retry(str(failure.status) if failure.reason is None else failure.reason.value)
        return again
    if again is not None:
        upstream.count_retry_refused(again.why)
    return None


def _try_again(exchange: Exchange, delay: float, *, elsewhere: bool = True) -> None:
    endpoint = exchange.endpoint
    if endpoint is not None:
        endpoint.active -= 1
        exchange.endpoint = None
        if elsewhere:
            exchange.tried = [*(exchange.tried or ()), endpoint]
    if delay > 0.0:
        exchange.client.hold_for_connection()
        exchange.retry_timer = exchange.plan.state.loop.call_later(delay, _begin_again, exchange)
        deadline.rearm(exchange, monotonic())
    else:
        _begin_again(exchange)


def _begin_again(exchange: Exchange) -> None:
    exchange.retry_timer = None
    if exchange.settled:
        return
    try:
        attempt(exchange)
    except RequestFault as fault:
        refuse(exchange, fault)


def refuse(exchange: Exchange, fault: RequestFault) -> None:
    """Answer for the upstream, or for ourselves, and end the exchange."""
    _drop_connection(exchange)
    guard.blame(exchange, fault.decision)
    if exchange.route.fallback and not exchange.informational and fault.decision in FALLBACK_DECISIONS:
        while (tier := fallback.next_tier(exchange)) is not None:
            if isinstance(tier, fallback.Elsewhere):
                try:
                    fallback.move(exchange, tier)
                    attempt(exchange)
                except RequestFault as refusal:
                    guard.blame(exchange, refusal.decision)
                    fault = refusal
                    continue
            else:
                fallback.serve(exchange, tier)
            return
    exchange.decision = fault.decision
    # a client of HTTP/1.0 would have to be told that the connection stays
    keep_alive = exchange.keep_alive and exchange.uploaded and exchange.head.minor == 1
    keep_alive = keep_alive and not exchange.plan.state.draining
    if exchange.request_id is None:
        exchange.request_id = next_request_id()
    written = fault_answer(fault, exchange.request_id, keep_alive=keep_alive, method=exchange.head.method)
    fallback.answer(exchange, fault.status, written, keep_alive=keep_alive)


def cut_off(exchange: Exchange, decision: Decision) -> None:
    """The answer cannot be finished: break both connections so that nobody takes it for whole."""
    _drop_connection(exchange)
    guard.blame(exchange, decision)
    exchange.decision = decision
    exchange.keep_alive = False
    exchange.client.reset()
    settle(exchange, decision)


def abandon(exchange: Exchange, outcome: str) -> None:
    """The client is gone: the upstream need not go on."""
    guard.forget(exchange)
    _drop_connection(exchange)
    settle(exchange, outcome)


def _drop_connection(exchange: Exchange) -> None:
    exchange.connecting = None  # one that is being opened will be for others
    connection = exchange.connection
    if connection is not None:
        exchange.connection = None
        connection.exchange = None
        connection.discard()
        exchange.client.let_go()
