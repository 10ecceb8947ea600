"""An upstream as the data plane holds it: endpoints, their idle connections, what is in flight, who waits.

Decides synchronously, does no I/O. Idle connections are kept last in, first out, so that the newest
serve and the oldest age out. The limits are the upstream's, not the endpoint's: `max_requests` bounds
what is in flight, `max_connections` what is open or being opened, `max_pending` who may wait for one.

An upstream outlives a reload when its name does: `reconfigure` swaps the settings in place, endpoints
that stay keep their connections, those that go close theirs when they fall idle.
"""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from sidecar.base.names import Decision
from sidecar.config.address import parse_address
from sidecar.machines import balance
from sidecar.machines.retry_budget import RetryBudget
from sidecar.proxy.breakers import Guarded
from sidecar.proxy.call import TlsFault
from sidecar.proxy.codec.head import Limits
from sidecar.proxy.outliers import OutlierWatch
from sidecar.runtime import series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.base.errors import RequestFault
    from sidecar.config.upstreams import Upstream as UpstreamConfig
    from sidecar.machines.outlier import Standing
    from sidecar.proxy.breakers import Tie
    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.exchange import Exchange
    from sidecar.runtime.calling import Calling
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer


_MAX_ANSWER_FIELDS = 256
"""Header fields of an answer; more is not a service's answer but an attempt on our memory."""


class Endpoint(balance.Endpoint):
    """One address of an upstream, with its idle connections."""

    __slots__ = ("connections", "ejected", "healthy", "idle", "retired", "standing", "target", "upstream")

    def __init__(self, upstream: Upstream, address: str, weight: int, priority: int) -> None:
        super().__init__(address, weight, priority)
        self.upstream = upstream
        self.target = parse_address(address)
        self.idle: list[UpstreamConnection] = []
        self.connections = 0  # open
        self.standing: Standing | None = None  # for the outlier watch; None: not watched
        self.ejected = False  # by the outlier watch
        self.healthy = True  # by active checks
        self.retired = False  # a reload or discovery took it away; what runs may finish

    def take(self) -> UpstreamConnection | None:
        """The idle connection that was used last, or None."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def judge(self) -> None:
        """Let the picker know whether requests may come here."""
        self.available = self.healthy and not self.ejected

    def close_idle(self) -> None:
        """Close what is idle."""
        while self.idle:
            self.idle.pop().close()

    def retire(self) -> None:
        """Close what is idle; what is busy is closed when it is given back."""
        self.retired = True
        self.close_idle()


class Upstream:
    """A named set of endpoints with one set of limits."""

    def __init__(self, config: UpstreamConfig, registry: Registry, observer: Observer, tie: Tie | None = None) -> None:
        self.name = config.name
        self.registry = registry
        self.endpoints: list[Endpoint] = []
        self.inflight = 0  # requests and tunnels admitted and not settled
        self.connections = 0  # open, over all endpoints
        self.opening = 0  # being opened
        self.waiting: dict[Exchange, None] = {}  # in order; admitted, without a connection because of max_connections
        self.requests = 0  # admitted since the start
        name = self.name
        self._unhealthy: set[str] = set()  # addresses that active checks found dead
        self._drained: frozenset[str] = frozenset()  # addresses that recovery took out
        self._shifted = False  # recovery took the first priority out
        self.guarded = Guarded(name, config.breaker, registry, observer, tie)
        self.outliers = OutlierWatch(name, config.outlier, registry, observer)
        registry.gauge_function(series.UPSTREAM_CONNECTIONS, lambda: self.connections, name)
        registry.gauge_function(series.PENDING_REQUESTS, lambda: len(self.waiting), name)
        self.calling: Calling | None = None  # how to call by TLS; None: plain
        self.connects_ok = registry.cell(series.UPSTREAM_CONNECTS, name, "ok")
        self.reconfigure(config)

    def reconfigure(self, config: UpstreamConfig) -> None:
        """Take the settings of `config`; endpoints with the same address, weight and priority stay as they are, unless
        TLS towards them changed: no connection outlives what it was opened by.
        """
        before, self.config = getattr(self, "config", config), config
        self.guarded.reconfigure(config.breaker)
        self.outliers.reconfigure(config.outlier)
        self.max_requests = config.limits.max_requests
        self.max_connections = config.limits.max_connections
        self.max_pending = config.limits.max_pending
        self.pending_timeout = config.limits.pending_timeout
        self.connect_timeout = config.connect_timeout
        self.idle_timeout = config.idle_timeout
        self.answer_limits = Limits(config.max_response_head, config.max_response_head, _MAX_ANSWER_FIELDS)
        self.hash_key = _hash_key(config) if config.balance == "ring_hash" else None
        self.budget = RetryBudget(config.retry_budget.ratio, config.retry_budget.min_per_second)
        # with discovery, what it found last stays until it says something else
        kept = config.endpoints if config.discovery is None or not self.endpoints else self.endpoints
        wanted = [(one.address, one.weight, one.priority) for one in kept]
        if before.tls != config.tls:
            self.set_endpoints([])
        self.set_endpoints(wanted)

    def set_endpoints(self, wanted: list[tuple[str, int, int]]) -> None:
        """Make the endpoints be `wanted` (address, weight, priority); the order is the caller's."""
        known = {(str(one.address), one.weight, one.priority): one for one in self.endpoints}
        self.endpoints = [known.get(key) or Endpoint(self, *key) for key in wanted]
        for key, endpoint in known.items():
            if key not in wanted:
                endpoint.retire()
                self.registry.remove(upstream=self.name, endpoint=endpoint.address)
        self._unhealthy &= {endpoint.address for endpoint in self.endpoints}
        for endpoint in self.endpoints:
            endpoint.healthy = endpoint.address not in self._unhealthy
            self.registry.gauge_function(
                series.UPSTREAM_HEALTHY, functools.partial(_is_available, endpoint), self.name, endpoint.address
            )
        self._choose_among()
        self.outliers.set_endpoints(self.endpoints)

    def _choose_among(self) -> None:
        picked = [one for one in self.endpoints if one.address not in self._drained]
        if self._shifted:
            first = min((one.priority for one in self.endpoints), default=0)
            picked = [one for one in picked if one.priority > first] or picked
        self.picker: balance.Picker = balance.PICKERS[self.config.balance](
            picked or self.endpoints, self.config.panic_threshold, random.random, self.config.overprovisioning
        )

    def drain(self, addresses: Iterable[str]) -> None:
        """Pick none of these, not even in a panic, unless there are no others; what idles there is closed."""
        self._drained = frozenset(addresses)
        self._choose_among()
        for endpoint in self.endpoints:
            if endpoint.address in self._drained:
                endpoint.close_idle()

    def shift(self, *, on: bool) -> None:
        """Pick none of the first priority while there are others, whatever health says."""
        self._shifted = on
        self._choose_among()

    def flush(self) -> None:
        """Close what is idle everywhere."""
        for endpoint in self.endpoints:
            endpoint.close_idle()

    def set_health(self, address: str, *, healthy: bool) -> None:
        """What active checks say of `address`, now and for an endpoint of that address that comes later."""
        if healthy:
            self._unhealthy.discard(address)
        else:
            self._unhealthy.add(address)
        for endpoint in self.endpoints:
            if endpoint.address == address and endpoint.healthy is not healthy:
                endpoint.healthy = healthy
                endpoint.judge()

    def retire(self) -> None:
        """No route leads here any more."""
        for endpoint in self.endpoints:
            endpoint.retire()
        self.registry.remove(upstream=self.name)

    def has_room(self) -> bool:
        """Whether another connection may be opened; makes room by closing an idle one when that helps."""
        return self.connections + self.opening < self.max_connections or self._evict_idle()

    def _evict_idle(self) -> bool:
        """Close the idle connection that was used longest ago, to make room for one elsewhere."""
        oldest: UpstreamConnection | None = None
        for endpoint in self.endpoints:
            if endpoint.idle and (oldest is None or endpoint.idle[0].idle_since < oldest.idle_since):
                oldest = endpoint.idle[0]
        if oldest is None:
            return False
        oldest.discard()
        return True

    def count_connect(self, fault: RequestFault) -> None:
        """A connection could not be opened."""
        result = "refused" if fault.decision is Decision.CONNECT_FAILURE else "error"
        if isinstance(fault, TlsFault):
            result = "tls"
        self.registry.cell(series.UPSTREAM_CONNECTS, self.name, result).value += 1

    def count_retry(self, reason: str) -> None:
        """A further try begins because of `reason`."""
        self.registry.cell(series.RETRIES, self.name, reason).value += 1

    def count_retry_refused(self, why: str) -> None:
        """A retry that the policy asked for is not made."""
        self.registry.cell(series.RETRIES_REFUSED, self.name, why).value += 1

    def next_waiting(self) -> Exchange | None:
        """Who has waited longest for a connection."""
        for exchange in self.waiting:
            del self.waiting[exchange]
            return exchange
        return None


def _is_available(endpoint: Endpoint) -> float:
    return 1.0 if endpoint.available else 0.0


def _hash_key(config: UpstreamConfig) -> Callable[[Exchange], bytes]:
    """What ring_hash hashes: a request header when one is named and there, else the client's address."""
    name = None if config.hash_key is None else config.hash_key.header.lower().encode()

    def key(exchange: Exchange) -> bytes:
        value = None if name is None else exchange.head.field(name)
        return exchange.client.peer.encode() if value is None else value

    return key
