"""Fallback: what answers when the upstream may not or cannot, tier after tier, before any byte went to the client.

A route's tiers are tried in order: another upstream (whose own breaker and limits are asked), the last good answer to
the same request, a fixed answer. What they apply to stands in `machines/blame.py`. An answer from a tier says so in
`X-Sidecar-Decision`, in the metric and in the access log.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal
from sidecar.base.names import Decision
from sidecar.machines.retry import IDEMPOTENT
from sidecar.proxy.answer import REASONS
from sidecar.proxy.codec.head import UNTIL_CLOSE
from sidecar.proxy.settle import settle
from sidecar.runtime import series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.listeners import RespondFallback, Route
    from sidecar.machines.answer_cache import AnswerCache
    from sidecar.proxy.codec.head import ResponseHead
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.upstream import Upstream
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.series import Counter


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Ask another upstream."""

    upstream: Upstream
    used: Counter


@dataclass(frozen=True, slots=True)
class LastGood:
    """Give the last good answer."""

    cache: AnswerCache
    used: Counter


@dataclass(frozen=True, slots=True)
class Fixed:
    """Give a configured answer."""

    status: int
    wire: bytes
    """Status line and fields; no Connection, no final empty line."""
    body: bytes
    used: Counter


Tier = Elsewhere | LastGood | Fixed


def compile_tiers(
    route: Route, upstreams: Mapping[str, Upstream], registry: Registry, cache: AnswerCache | None
) -> tuple[Tier, ...]:
    """The tiers of `route` in their order."""
    tiers: list[Tier] = []
    for written in route.fallback:
        if written.upstream is not None:
            used = registry.cell(series.FALLBACKS, route.upstream, "upstream")
            tiers.append(Elsewhere(upstreams[written.upstream], used))
        elif written.respond is not None:
            tiers.append(_fixed(written.respond, registry.cell(series.FALLBACKS, route.upstream, "respond")))
        elif cache is not None:
            tiers.append(LastGood(cache, registry.cell(series.FALLBACKS, route.upstream, "cache")))
    return tuple(tiers)


def _fixed(written: RespondFallback, used: Counter) -> Fixed:
    body = written.body.encode()
    lines = [b"HTTP/1.1 %d %b" % (written.status, REASONS.get(written.status, b"Unknown"))]
    lines += [b"%b: %b" % (name.encode(), value.encode()) for name, value in written.headers.items()]
    if written.status not in (204, 304):
        lines.append(b"Content-Length: %d" % len(body))
    return Fixed(written.status, b"\r\n".join(lines) + b"\r\n", body, used)


def has_tier(exchange: Exchange) -> bool:
    """Whether a tier is left that can do something for this request."""
    before = exchange.tier
    found = next_tier(exchange)
    exchange.tier = before
    return found is not None


def next_tier(exchange: Exchange) -> Tier | None:
    """The next tier that can do something for this request; the ones before it are done with."""
    tiers = exchange.route.fallback
    while exchange.tier < len(tiers):
        tier = tiers[exchange.tier]
        exchange.tier += 1
        if _applies(exchange, tier):
            return tier
    return None


def _applies(exchange: Exchange, tier: Tier) -> bool:
    head = exchange.head
    if isinstance(tier, Elsewhere):
        return exchange.replayable and (not exchange.sent or head.method in IDEMPOTENT) and exchange.upgrade is None
    if isinstance(tier, Fixed):
        return True
    if head.method not in (b"GET", b"HEAD"):
        return False
    kept = tier.cache.find(head.host, head.target, head.field, monotonic())
    return kept is not None and (head.minor == 1 or b"\r\nTransfer-Encoding: chunked\r\n" not in kept.wire)


def move(exchange: Exchange, tier: Elsewhere) -> None:
    """Leave the upstream for the tier's; raises OwnRefusal when there is no room either. It gets time of its own."""
    if exchange.endpoint is not None:
        exchange.endpoint.active -= 1
        exchange.endpoint = None
    exchange.upstream.waiting.pop(exchange, None)  # a connection that becomes free there is for others
    upstream = tier.upstream
    if upstream.inflight >= upstream.max_requests:
        raise OwnRefusal("the fallback has as many requests under way as it may have", 503, Decision.OVERFLOW)
    if exchange.admitted:
        exchange.upstream.inflight -= 1
        upstream.inflight += 1
        upstream.requests += 1
    exchange.upstream = upstream
    exchange.guarded = upstream.guarded
    exchange.tried = None
    exchange.attempt = 0
    exchange.free_retry = True
    exchange.forwarded_at = 0.0
    exchange.give_up_at = 0.0
    exchange.decision = Decision.FALLBACK_UPSTREAM
    tier.used.value += 1


def serve(exchange: Exchange, tier: LastGood | Fixed) -> None:
    """Answer from memory and end the exchange."""
    keep_alive = exchange.keep_alive and exchange.uploaded and not exchange.plan.state.draining
    head = exchange.head
    tier.used.value += 1
    if isinstance(tier, Fixed):
        exchange.decision = Decision.FALLBACK_RESPOND
        status, wire, body, age = tier.status, tier.wire, tier.body, b""
    else:
        now = monotonic()
        kept = tier.cache.find(head.host, head.target, head.field, now)
        assert kept is not None, "the tier applied a moment ago"
        exchange.decision = Decision.FALLBACK_CACHE
        status, wire, body = kept.status, kept.wire, kept.body
        age = b"Age: %d\r\n" % (now - kept.stored)
    said = b"X-Sidecar-Decision: %b\r\n" % exchange.decision.value.encode()
    tail = _connection(exchange, keep_alive=keep_alive)
    if head.method == b"HEAD" or status in (204, 304):
        body = b""
    answer(exchange, status, b"".join((wire, age, said, tail, body)), keep_alive=keep_alive)


def _connection(exchange: Exchange, *, keep_alive: bool) -> bytes:
    if not keep_alive:
        return b"Connection: close\r\n\r\n"
    return b"\r\n" if exchange.head.minor == 1 else b"Connection: keep-alive\r\n\r\n"


def answer(exchange: Exchange, status: int, written: bytes, *, keep_alive: bool) -> None:
    """Write an answer of our own; `exchange.decision` is said already. Ends the exchange."""
    exchange.status = status
    exchange.begun = True
    exchange.keep_alive = keep_alive
    exchange.bytes_out += len(written)
    exchange.client.transport.write(written)
    settle(exchange, exchange.decision or Decision.FALLBACK_RESPOND)


# Keeping the last good answers ------------------------------------------------------------------------------------


def may_keep(exchange: Exchange, cache: AnswerCache, head: ResponseHead, now: float) -> bool:
    """Whether this answer is to be kept as the last good one. Asked when the cache `wants` one."""
    request = exchange.head
    if head.length == UNTIL_CLOSE or head.length > cache.largest:
        return False
    if cache.may_keep(request.method, head.status, request.field, head.field):
        return True
    cache.refuse(request.host, request.target, now)
    return False


def keep_answer(exchange: Exchange, cache: AnswerCache, head: ResponseHead, body: bytes, now: float) -> None:
    """Keep an answer that `may_keep` allowed; its body is whole."""
    request = exchange.head
    cache.keep(request.host, request.target, request.field, head.field, head.wire, body, head.status, now)


def go_on_keeping(exchange: Exchange, piece: bytes, received: int, *, done: bool) -> None:
    """A further piece of a body that is collected; the whole answer is kept when it is there."""
    kept, cache, head = exchange.kept, exchange.route.cache, exchange.answer
    if kept is None or cache is None or head is None:
        return
    if received > cache.largest:
        exchange.kept = None
        return
    kept.append(piece)
    if done:
        keep_answer(exchange, cache, head, b"".join(kept), monotonic())
