"""A configuration compiled for the simulation: listeners, routes, upstreams, each with the machines that the proxy has.

The counterpart of the proxy's plan and upstreams without sockets, metrics and logs. Nothing is decided here; what a
machine says to have changed is written down.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from sidecar.base.backoff import Uniform
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.config.document import Config
from sidecar.config.listeners import Fallback
from sidecar.config.listeners import Listener as ListenerConfig
from sidecar.config.listeners import Route as RouteConfig
from sidecar.config.upstreams import Upstream as UpstreamConfig
from sidecar.machines import balance
from sidecar.machines.answer_cache import AnswerCache
from sidecar.machines.breaker import Breaker, BreakerChange
from sidecar.machines.failure_fields import FailureFields, suspects
from sidecar.machines.fleet.leases import Ended
from sidecar.machines.outlier import Ejection, Outliers, Standing
from sidecar.machines.retry import RetryPolicy
from sidecar.machines.retry_budget import RetryBudget
from sidecar.machines.routing import RouteRule, RouteTable
from sidecar.machines.transition import Transition

if TYPE_CHECKING:
    from sidecar.simulate.call import Call
    from sidecar.simulate.world import Blow


class Guard:
    """A breaker, and every change of its state so far."""

    __slots__ = ("breaker", "changes", "failure_fields", "name", "policy", "slow_after", "suspects")

    def __init__(self, name: str, policy: BreakerPolicy, uniform: Uniform) -> None:
        self.name = name
        self.policy = policy
        self.breaker = Breaker(policy, uniform)
        self.suspects = suspects(policy)
        self.failure_fields = FailureFields(policy.failure_headers)
        self.slow_after = policy.slow_after if policy.slow_rate > 0.0 else math.inf
        self.changes: list[BreakerChange] = []

    def changed(self, change: BreakerChange | Ended | None) -> None:
        """Write down what the machine returned; leases are for breakers that share their state."""
        if isinstance(change, Transition):
            self.changes.append(change)

    def sweep(self, now: float) -> None:
        """End what is overdue."""
        while self.breaker.deadline <= now:
            self.changed(self.breaker.expire(now))


class Connection:
    """A connection to an endpoint."""

    __slots__ = ("endpoint", "idle_since", "uses")

    def __init__(self, endpoint: "Endpoint") -> None:
        self.endpoint = endpoint
        self.uses = 0
        self.idle_since = 0.0


class Endpoint(balance.Endpoint):
    """One address of an upstream, with its resting connections and what befalls it."""

    __slots__ = ("blows", "calls", "idle", "standing", "upstream")

    def __init__(self, upstream: "Upstream", address: str, weight: int, priority: int) -> None:
        super().__init__(address, weight, priority)
        self.upstream = upstream
        self.idle: list[Connection] = []
        self.standing: Standing | None = None
        self.blows: list[Blow] = []
        self.calls = 0

    def close_idle(self) -> None:
        """Whoever listened there is gone, and the resting connections with him."""
        self.upstream.connections -= len(self.idle)
        self.idle.clear()


class Upstream:
    """A named set of endpoints with one set of limits."""

    def __init__(self, config: UpstreamConfig, addresses: Iterable[str], uniform: Uniform) -> None:
        """`addresses`: endpoints in place of those that are written down; none: these."""
        self.name = config.name
        self.guard = Guard(config.name, config.breaker, uniform)
        self.max_requests = config.limits.max_requests
        self.max_connections = config.limits.max_connections
        self.max_pending = config.limits.max_pending
        self.pending_timeout = config.limits.pending_timeout
        self.connect_timeout = config.connect_timeout
        self.idle_timeout = config.idle_timeout
        self.hash_header = None if config.hash_key is None else config.hash_key.header.lower().encode()
        self.hashes = config.balance == "ring_hash"
        self.budget = RetryBudget(config.retry_budget.ratio, config.retry_budget.min_per_second)
        self.inflight = 0
        self.connections = 0
        self.opening = 0
        self.waiting: dict[Call, None] = {}  # in the order in which they came
        self.tries = 0
        self.retries = 0
        self.ejections: list[tuple[float, str, bool, str, str, bool]] = []
        written = [(one.address, one.weight, one.priority) for one in config.endpoints]
        wanted = [(address, 1, 0) for address in addresses] or written or [(f"{config.name}.discovered:0", 1, 0)]
        self.endpoints = [Endpoint(self, *one) for one in wanted]
        self.picker = balance.PICKERS[config.balance](
            self.endpoints, config.panic_threshold, uniform, config.overprovisioning
        )
        self.outliers = Outliers(config.outlier, 0.0)
        if len(self.endpoints) > 1:
            for endpoint in self.endpoints:
                endpoint.standing = self.outliers.watch(endpoint.address)
        self._by_address = {endpoint.address: endpoint for endpoint in self.endpoints}

    def told(self, changes: Iterable[Ejection | None]) -> None:
        """Endpoints went out or came back."""
        for change in changes:
            if change is not None:
                standing = change.standing
                self._by_address[standing.address].available = not self.outliers.excludes(standing)
                why = (change.reason.value, standing.detail, change.enforced)
                self.ejections.append((change.at, standing.address, change.out, *why))

    def sweep(self, now: float) -> None:
        """Judge the endpoints, and close what has rested for too long."""
        if self.outliers.deadline <= now:
            self.told(self.outliers.sweep(now))
        oldest = now - self.idle_timeout
        for endpoint in self.endpoints:
            while endpoint.idle and endpoint.idle[0].idle_since < oldest:
                endpoint.idle.pop(0)
                self.connections -= 1

    def has_room(self) -> bool:
        """Whether another connection may be opened; closes the one that rests longest when that makes room."""
        if self.connections + self.opening < self.max_connections:
            return True
        resting = [endpoint for endpoint in self.endpoints if endpoint.idle]
        if not resting:
            return False
        min(resting, key=lambda endpoint: endpoint.idle[0].idle_since).idle.pop(0)
        self.connections -= 1
        return True


class Route:
    """One route, compiled."""

    def __init__(self, config: RouteConfig, upstreams: Mapping[str, Upstream], guard: Guard) -> None:
        self.name = config.name
        self.upstream = upstreams[config.upstream]
        self.guard = guard
        self.timeout = config.timeout
        self.per_try_timeout = math.inf
        self.retry: RetryPolicy | None = None
        if config.retry is not None:
            self.per_try_timeout = config.retry.per_try_timeout or math.inf
            self.retry = RetryPolicy.compiled(
                attempts=config.retry.attempts,
                retry_on=config.retry.retry_on,
                methods=config.retry.methods,
                backoff=config.retry.backoff,
                backoff_max=config.retry.backoff_max,
            )
        self.tiers = [_tier(one, upstreams) for one in config.fallback]
        self.cache = next((tier for tier in self.tiers if isinstance(tier, AnswerCache)), None)
        self.reacts = self.retry is not None or bool(self.tiers)
        self.sample = _sample(config)


class Listener:
    """One listener's routes."""

    def __init__(
        self, config: ListenerConfig, upstreams: Mapping[str, Upstream], own: Callable[[RouteConfig], Guard]
    ) -> None:
        self.name = config.name
        self.routes = [
            Route(one, upstreams, own(one) if one.breaker == "own" else upstreams[one.upstream].guard)
            for one in config.routes
        ]
        self.table = RouteTable([RouteRule.of(one.match) for one in config.routes])


Tier = Upstream | AnswerCache | int
"""Another upstream, the last good answer, or a fixed answer's status."""


class Network:
    """All that a configuration says about traffic."""

    def __init__(self, config: Config, endpoints: Mapping[str, Iterable[str]], uniform: Uniform) -> None:
        """`endpoints`: by upstream, those that take the place of the configuration's."""
        self.upstreams = {one.name: Upstream(one, endpoints.get(one.name, ()), uniform) for one in config.upstreams}
        self.guards = {one.name: one.guard for one in self.upstreams.values()}
        policies = {one.name: one.breaker for one in config.upstreams}

        def own(route: RouteConfig) -> Guard:
            name = f"{route.upstream}/{route.name}"
            return self.guards.setdefault(name, Guard(name, policies[route.upstream], uniform))

        http = [one for one in config.listeners if one.protocol == "http"]
        self.listeners = {one.name: Listener(one, self.upstreams, own) for one in http}

    def listener_of(self, listener: str | None, route: str | None) -> Listener:
        """The listener of this name; without one, the route's, or the only one. KeyError when there is none."""
        if listener is not None:
            return self.listeners[listener]
        for one in self.listeners.values():
            if route is None or any(route == each.name for each in one.routes):
                return one
        raise KeyError(route)


def _tier(written: Fallback, upstreams: Mapping[str, Upstream]) -> Tier:
    if written.upstream is not None:
        return upstreams[written.upstream]
    if written.cache is not None:
        cache = written.cache
        return AnswerCache(cache.max_bytes, cache.max_age, across_authorization=cache.across_authorization)
    assert written.respond is not None, "exactly one of the three is given"
    return written.respond.status


def _sample(config: RouteConfig) -> tuple[str, str, str]:
    """Method, host and path of a request that the route takes, its headers aside."""
    match = config.match
    host = (match.host or "simulated.test").replace("*.", "www.", 1)
    method = "GET" if not match.methods or "GET" in match.methods else match.methods[0]
    return method, host, match.path or match.path_prefix or "/"
