"""The plan: a listener's configuration compiled into what requests look at, replaced as one reference at a reload.

A request keeps the plan and the route that it began with; the next one on the same connection sees the new plan.
Upstreams are not part of a plan but shared between plans, for their connections and counts outlive a reload.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_network
from math import inf
from typing import TYPE_CHECKING

from sidecar.machines.blame import FALLBACK_STATUSES
from sidecar.machines.retry import REFUSALS, RetryPolicy
from sidecar.machines.routing import RouteRule, RouteTable
from sidecar.proxy.codec import FAST, REFERENCE
from sidecar.proxy.codec.head import Limits
from sidecar.proxy.fallback import LastGood, Tier, compile_tiers
from sidecar.proxy.forward import Forwarding
from sidecar.proxy.greet import Terms
from sidecar.runtime import series

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from sidecar.config.document import Config
    from sidecar.config.listeners import Listener, Route
    from sidecar.machines.answer_cache import AnswerCache
    from sidecar.proxy.breakers import Guarded
    from sidecar.proxy.dataplane import DataPlane
    from sidecar.proxy.greet import Greeting
    from sidecar.proxy.upstream import Upstream
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.series import Counter


class RoutePlan:
    """One route, compiled; and the cells in which its requests are counted."""

    __slots__ = (
        "cache",
        "cells",
        "duration",
        "fallback",
        "given_up",
        "guarded",
        "host_rewrite",
        "inflight",
        "name",
        "patience",
        "per_try_timeout",
        "retry",
        "timeout",
        "tunnel_timeout",
        "upgrades",
        "upstream",
        "upstream_name",
    )

    def __init__(self, listener: str, config: Route | None, upstream: Upstream | None, registry: Registry) -> None:
        """Without `config`: the stand-in under which requests without a route are counted."""
        self.name = "" if config is None else config.name
        self.upstream: Upstream = upstream  # type: ignore[assignment]  # the stand-in is never asked for one
        self.upstream_name = "" if upstream is None else upstream.name
        self.cells: dict[tuple[bytes, int, str], Counter] = {}
        self.duration = registry.cell(series.REQUEST_DURATION, listener, self.name, self.upstream_name)
        self.inflight = registry.cell(series.INFLIGHT, listener, self.upstream_name)
        self.guarded: Guarded = None if upstream is None else upstream.guarded  # type: ignore[assignment]  # as above
        self.timeout = inf if config is None else config.timeout
        self.per_try_timeout = inf
        self.retry: RetryPolicy | None = None
        self.host_rewrite: bytes | None = None
        self.upgrades: frozenset[bytes] = frozenset()
        self.fallback: tuple[Tier, ...] = ()
        self.cache: AnswerCache | None = None
        self.tunnel_timeout = inf if upstream is None else upstream.config.tunnel_timeout
        if config is not None:
            self.upgrades = frozenset(one.lower().encode() for one in config.upgrades)
            self.host_rewrite = None if config.host_rewrite is None else config.host_rewrite.encode()
            if config.retry is not None:
                self.per_try_timeout = config.retry.per_try_timeout or inf
                self.retry = RetryPolicy.compiled(
                    attempts=config.retry.attempts,
                    retry_on=config.retry.retry_on,
                    methods=config.retry.methods,
                    backoff=config.retry.backoff,
                    backoff_max=config.retry.backoff_max,
                )
                for reason in sorted(self.retry.reasons):  # from zero on, so that the first is an increase
                    registry.cell(series.RETRIES, self.upstream_name, reason)
                for why in REFUSALS:
                    registry.cell(series.RETRIES_REFUSED, self.upstream_name, why)
        self.patience = min(self.timeout, self.per_try_timeout)  # until something must have come of a try
        self.given_up = frozenset() if self.retry is None else self.retry.statuses  # answers that may not be relayed

    def set_fallback(self, tiers: tuple[Tier, ...]) -> None:
        """What answers when the upstream does not, in order."""
        self.fallback = tiers
        self.cache = next((tier.cache for tier in tiers if isinstance(tier, LastGood)), None)
        self.given_up |= FALLBACK_STATUSES


class ListenerPlan:
    """One listener, compiled. Public attributes are for the steps of a request, in whose names they read."""

    def __init__(self, config: Listener, whole: Config, upstreams: Mapping[str, Upstream], state: DataPlane) -> None:
        registry = state.registry
        self.config = config
        self.state = state
        self.registry = registry
        self.name = config.name
        self.secure()
        self.routes = [RoutePlan(self.name, one, upstreams[one.upstream], registry) for one in config.routes]
        for route, written in zip(self.routes, config.routes, strict=True):
            if written.breaker == "own":
                route.guarded = state.own_breaker(route)
            if written.fallback:
                route.set_fallback(compile_tiers(written, upstreams, registry, state.kept_answers(self.name, written)))
        self.table = RouteTable([RouteRule.of(one.match) for one in config.routes])
        self.unrouted = RoutePlan(self.name, None, None, registry)
        self.codec = FAST if (config.codec or whole.codec) == "fast" else REFERENCE
        self.limits = Limits(config.max_head, config.max_target, config.max_fields)
        self.max_body = sys.maxsize if config.max_body is None else config.max_body
        self.max_connections = config.max_connections
        self.header_read_timeout = config.header_read_timeout
        self.idle_timeout = config.idle_timeout
        self.body_timeout = config.body_timeout
        self.write_timeout = config.write_timeout
        self.half_close_timeout = config.half_close_timeout
        self.bytes_in = registry.cell(series.BYTES, self.name, "in")
        self.bytes_out = registry.cell(series.BYTES, self.name, "out")
        self.overhead = registry.cell(series.OVERHEAD, self.name)
        self.tunnels = registry.cell(series.TUNNELS, self.name)
        self._trusted = [ip_network(one) for one in config.trusted_proxies]

    def secure(self) -> None:
        """Take the present certificates."""
        config = self.config
        self.tls = None if config.tls is None else Terms(config.tls, self.state.secure[f"listener/{config.name}"])

    def welcome(self, transport: asyncio.BaseTransport) -> tuple[str, Forwarding]:
        """Who the client is, for logs; and what its requests say upstream about it."""
        name = transport.get_extra_info("peername")
        tls: Greeting | None = None if self.tls is None else transport.get_extra_info("tls")
        if not isinstance(name, tuple):
            return "unix", Forwarding(None, trusted=True, tls=tls)
        address = ip_address(name[0].partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        trusted = any(address.version == one.version and address in one for one in self._trusted)
        shown = str(address)
        return shown, Forwarding(shown.encode(), trusted=trusted, tls=tls)

    def shortest_timeout(self) -> float:
        """The finest time-out that the sweep must serve."""
        listener = (self.header_read_timeout, self.idle_timeout, self.body_timeout, self.write_timeout)
        routes = [min(route.timeout, route.per_try_timeout, route.tunnel_timeout) for route in self.routes]
        idle = [route.upstream.idle_timeout for route in self.routes]
        return min(*listener, self.half_close_timeout, *routes, *idle)
