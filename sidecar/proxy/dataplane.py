"""The data plane of one process: its listeners, its upstreams, and how both change while requests run.

`apply` compiles a configuration and swaps it in: plans are replaced by reference, upstreams of the same name are
reconfigured in place, those that are gone close their idle connections. It either succeeds as a whole or changes
nothing. Sockets come from outside, already bound: a data plane never binds.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar.base.errors import UpstreamFault
from sidecar.base.names import Decision
from sidecar.machines.answer_cache import AnswerCache
from sidecar.proxy.accept import Acceptor
from sidecar.proxy.breakers import Guarded
from sidecar.proxy.call import call
from sidecar.proxy.client import ClientConnection
from sidecar.proxy.connection import UpstreamConnection
from sidecar.proxy.deadline import Sweeper
from sidecar.proxy.plan import ListenerPlan
from sidecar.proxy.pool import close_stale
from sidecar.proxy.upstream import Endpoint, Upstream
from sidecar.runtime.calling import Calling
from sidecar.runtime.tls import Contexts

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Mapping
    from ssl import SSLContext

    from sidecar.config.document import Config
    from sidecar.config.listeners import CacheFallback, Route
    from sidecar.proxy.breakers import Tie
    from sidecar.proxy.plan import RoutePlan
    from sidecar.proxy.trace import Tracer
    from sidecar.runtime.access_log import AccessLog
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tls import Known

STALE_SWEEP_SECONDS = 1.0


class DataPlane:
    """Everything that serves requests in this process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: Registry, observer: Observer) -> None:
        self.loop = loop
        self.registry = registry
        self.observer = observer
        self.sweeper = Sweeper(loop)
        self.access_log: AccessLog | None = None
        self.tracer: Tracer | None = None
        self.draining = False  # answers carry Connection: close
        self.shares_sockets = False  # other workers accept on the same ones
        self.forbidden: frozenset[tuple[str, int]] = frozenset()  # our own admin addresses: never an upstream
        self.tie: Tie | None = None  # set before the start when breakers share their state
        self.upstreams: dict[str, Upstream] = {}
        self.own_breakers: dict[str, Guarded] = {}
        self.acceptors: dict[str, Acceptor] = {}
        self.secure: dict[str, SSLContext] = {}  # owner -> what its `tls` section comes to
        self._config: Config | None = None
        self._contexts = Contexts()
        self._reroutes: dict[str, str] = {}  # upstream -> who takes its requests until it is well
        self._kept: dict[tuple[str, str], tuple[CacheFallback, AnswerCache]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stale_timer: asyncio.TimerHandle | None = None

    def start(
        self, config: Config, sockets: Mapping[str, socket.socket], files: Known, *, accepting: bool = True
    ) -> None:
        """Compile `config` and accept on `sockets`, one per listener by name; `files` is what its `tls` sections name.
        Not `accepting`: after `release`. Raises ConfigError.
        """
        self.secure = self._contexts.of(config, files)
        self._config = config
        self._reconfigure_upstreams(config)
        for listener in config.listeners:
            plan = ListenerPlan(listener, config, self._targets(), self)
            self.acceptors[listener.name] = Acceptor(self, plan, sockets[listener.name])
        self._fit_sweeper()
        self.sweeper.start()
        self._close_stale()
        for acceptor in self.acceptors.values():
            if accepting:
                acceptor.start()
            else:
                acceptor.hold()

    def apply(self, config: Config, files: Known) -> None:
        """Swap in another configuration with the same listeners. Requests that run keep what they began with.
        Raises ConfigError and changes nothing.
        """
        self.secure = self._contexts.of(config, files)
        self._config = config
        gone = self._reconfigure_upstreams(config)
        self._replan(config)
        for upstream in gone:
            self.sweeper.watched.discard(upstream.guarded)
            self.sweeper.watched.discard(upstream.outliers)
            upstream.retire()
        self._retire_unused_breakers()

    def renew(self, files: Known) -> None:
        """Take changed certificates; open connections go on with theirs. Raises ConfigError and changes nothing."""
        assert self._config is not None, "it is started"
        self.secure = self._contexts.of(self._config, files)
        for acceptor in self.acceptors.values():
            acceptor.plan.secure()
        self._secure_upstreams()

    def _replan(self, config: Config) -> None:
        targets = self._targets()
        for listener in config.listeners:
            acceptor = self.acceptors.get(listener.name)
            if acceptor is not None:
                acceptor.plan = ListenerPlan(listener, config, targets, self)
                acceptor.start()
        self._fit_sweeper()

    def _targets(self) -> dict[str, Upstream]:
        """Whom the routes of each upstream lead to: itself, unless recovery sends them elsewhere."""
        return {name: self.upstreams.get(self._reroutes.get(name, name), own) for name, own in self.upstreams.items()}

    def _reconfigure_upstreams(self, config: Config) -> list[Upstream]:
        known, self.upstreams = self.upstreams, {}
        for one in config.upstreams:
            upstream = known.pop(one.name, None)
            if upstream is None:
                upstream = Upstream(one, self.registry, self.observer, self.tie)
                self.sweeper.watched.add(upstream.guarded)
                self.sweeper.watched.add(upstream.outliers)
            elif upstream.config != one:
                upstream.reconfigure(one)
            self.upstreams[one.name] = upstream
        self._secure_upstreams()
        return list(known.values())

    def _secure_upstreams(self) -> None:
        for name, upstream in self.upstreams.items():
            context = self.secure.get(f"upstream/{name}")
            upstream.calling = None if context is None else Calling(upstream.config, context)

    def set_health(self, upstream: str, address: str, *, healthy: bool) -> None:
        """An active check's verdict on an endpoint; it also holds for an endpoint of that address that comes later."""
        found = self.upstreams.get(upstream)
        if found is not None:
            found.set_health(address, healthy=healthy)

    def set_endpoints(self, upstream: str, endpoints: list[tuple[str, int, int]]) -> None:
        """Discovery's word on an upstream's endpoints (address, weight, priority)."""
        found = self.upstreams.get(upstream)
        if found is not None:
            found.set_endpoints([(address, weight, priority) for address, weight, priority in endpoints])

    # What recovery does ---------------------------------------------------------------------------------------------

    def reroute(self, upstream: str, to: str | None) -> None:
        """Send the requests of `upstream` to another one from the next on; None: to itself again."""
        if to == self._reroutes.get(upstream) or self._config is None:
            return
        if to is None:
            del self._reroutes[upstream]
        else:
            self._reroutes[upstream] = to
        self._replan(self._config)
        if not self._reroutes:
            self._retire_unused_breakers()

    def drain_endpoints(self, upstream: str, addresses: list[str]) -> None:
        """Begin no request at these endpoints, whatever; the others of the upstream take them. Empty: all are back."""
        if (found := self.upstreams.get(upstream)) is not None:
            found.drain(addresses)

    def shift_priority(self, upstream: str, on: bool) -> None:
        """Send the upstream's requests to the endpoints of its next priority, or to the first again."""
        if (found := self.upstreams.get(upstream)) is not None:
            found.shift(on=on)

    def flush_pool(self, upstream: str) -> None:
        """Close the upstream's idle connections."""
        if (found := self.upstreams.get(upstream)) is not None:
            found.flush()

    def clear_cache(self, upstream: str) -> None:
        """Forget the answers kept for the upstream's routes."""
        for (listener, route), (_, cache) in self._kept.items():
            acceptor = self.acceptors.get(listener)
            if acceptor and any((one.name, one.upstream) == (route, upstream) for one in acceptor.plan.config.routes):
                cache.clear()

    # Breakers and kept answers --------------------------------------------------------------------------------------

    def own_breaker(self, route: RoutePlan) -> Guarded:
        """The breaker of a route that has its own; it outlives a reload as an upstream's does."""
        name = f"{route.upstream_name}/{route.name}"
        policy = route.upstream.config.breaker
        guarded = self.own_breakers.get(name)
        if guarded is None:
            guarded = self.own_breakers[name] = Guarded(name, policy, self.registry, self.observer, self.tie)
            self.sweeper.watched.add(guarded)
        guarded.reconfigure(policy)
        return guarded

    def _retire_unused_breakers(self) -> None:
        used = {route.guarded.name for one in self.acceptors.values() for route in one.plan.routes}
        for name in self.own_breakers.keys() - used:
            guarded = self.own_breakers.pop(name)
            self.sweeper.watched.discard(guarded)
            guarded.retire()

    def kept_answers(self, listener: str, route: Route) -> AnswerCache | None:
        """The route's last good answers; they outlive a reload unless their own rules changed."""
        rules = next((tier.cache for tier in route.fallback if tier.cache is not None), None)
        if rules is None:
            self._kept.pop((listener, route.name), None)
            return None
        known = self._kept.get((listener, route.name))
        if known is None or known[0] != rules:
            cache = AnswerCache(rules.max_bytes, rules.max_age, across_authorization=rules.across_authorization)
            known = self._kept[listener, route.name] = (rules, cache)
        return known[1]

    def breakers(self) -> dict[str, Guarded]:
        """Every breaker by its name: the upstreams' and those of routes that have their own."""
        return {one.name: one.guarded for one in self.upstreams.values()} | self.own_breakers

    def _fit_sweeper(self) -> None:
        self.sweeper.fit(min((one.plan.shortest_timeout() for one in self.acceptors.values()), default=1.0))

    def _close_stale(self) -> None:
        now = monotonic()
        for upstream in self.upstreams.values():
            close_stale(upstream, now)
        self._stale_timer = self.loop.call_later(STALE_SWEEP_SECONDS, self._close_stale)

    # What requests ask for ------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` beside the requests; kept alive and forgotten when it ends."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(
        self, endpoint: Endpoint, kind: type[UpstreamConnection] = UpstreamConnection
    ) -> UpstreamConnection:
        """Open a connection within connect_timeout; raises OSError, or UpstreamFault when it leads to ourselves or to
        somebody whose TLS is not to be trusted.
        """
        connection = await call(self.loop, endpoint, kind)
        peer = connection.transport.get_extra_info("peername")
        if isinstance(peer, tuple) and (peer[0], peer[1]) in self.forbidden:
            connection.transport.abort()
            raise UpstreamFault("the address is this sidecar's own admin interface", 502, Decision.CONNECT_FAILURE)
        return connection

    # Handing over ---------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Accept nobody for the moment; those that are here are served."""
        for acceptor in self.acceptors.values():
            acceptor.hold()

    def release(self) -> None:
        """Accept again."""
        for acceptor in self.acceptors.values():
            acceptor.release()

    # Going away -----------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Take no more clients; those that wait for nothing are closed soon."""
        now = monotonic()
        for acceptor in self.acceptors.values():
            acceptor.close()
            for client in acceptor.clients:
                client.drain(now)

    def running(self) -> int:
        """Clients that still get something: an answer, or the rest of one, or a tunnel, or a moment to ask."""
        return sum(
            acceptor.welcoming
            + len(acceptor.greeter.under_way)
            + sum(not isinstance(client, ClientConnection) or client.is_owed() for client in acceptor.clients)
            for acceptor in self.acceptors.values()
        )

    async def stop(self) -> None:
        """Tell those who wait for an answer that none will come, cut off what still runs, let go of everything."""
        self.draining = True
        self.sweeper.stop()
        if self._stale_timer is not None:
            self._stale_timer.cancel()
        for acceptor in self.acceptors.values():
            acceptor.close()
            acceptor.greeter.abort_all()
            for client in list(acceptor.clients):
                if isinstance(client, ClientConnection):
                    client.end()
                else:
                    client.transport.abort()
        await asyncio.sleep(0)  # let transports write the last words
        for acceptor in self.acceptors.values():
            for client in list(acceptor.clients):
                client.transport.abort()
        for upstream in self.upstreams.values():
            upstream.retire()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        await asyncio.sleep(0)  # let transports tell their protocols
