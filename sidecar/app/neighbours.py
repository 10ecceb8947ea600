"""The neighbours: who is around us, and that we are there. Wires discovery and registry.

Runs in the program's process, once, however many workers serve. What must not change while it runs (the shared Redis,
our own entry) is taken from the first configuration, as `config/changes.py` tells the operator.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import TYPE_CHECKING, Any

from sidecar.control.discovery import Discovery
from sidecar.control.resolvers.dns import DnsSource, SrvSource
from sidecar.control.resolvers.file import FileSource
from sidecar.machines.instances import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.document import Config
    from sidecar.config.upstreams import Discovery as DiscoveryConfig
    from sidecar.control.discovery import IsHealthy, Tell
    from sidecar.control.redis_link import RedisLink
    from sidecar.control.registry import ServiceRegistry
    from sidecar.control.resolvers import Report, Source
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor

FIRST_ANSWERS_SECONDS = 2.0
"""The start waits so long at most for discovery's first answers, so that ready means ready to serve."""


class Neighbours:
    """Everybody that this sidecar may find, and what it tells of itself."""

    def __init__(
        self,
        config: Config,
        tasks: Supervisor,
        registry: Registry,
        observer: Observer,
        tell: Tell,
        is_healthy: IsHealthy,
        ready: Callable[[], bool],
        link: RedisLink | None = None,
    ) -> None:
        """`ready`: whether this instance takes requests; `link`: to what is shared; the rest as `Discovery` has it."""
        self._config = config
        self._tasks = tasks
        self._is_healthy = is_healthy
        self._ready = ready
        self._discovery = Discovery(self._source, tell, is_healthy, tasks, registry, observer)
        self.link = link
        self._registry: ServiceRegistry | None = None
        self._shared = shared = config.shared_state
        if shared is not None and link is not None:
            from sidecar.control.registry import ServiceRegistry

            self._registry = ServiceRegistry(
                link, registry, shared.namespace, config.service.name, instance(config), shared.registry, self._state
            )

    async def start(self, own: frozenset[tuple[str, int]]) -> None:
        """Begin to look around; returns when the first answers are there, or their time is up.

        `own`: where our admin interface answers, which is nobody's upstream.
        """
        self._discovery.keep_out(own)
        if self._registry is not None:
            self._tasks.start("registry", self._registry.run)
        await self._discovery.apply(self._config)
        await self._discovery.settled(FIRST_ANSWERS_SECONDS)

    async def apply(self, config: Config) -> None:
        """A reload: look for what `config` says from now on."""
        self._config = config
        await self._discovery.apply(config)

    async def leave(self) -> None:
        """Tell the others that this instance goes."""
        if self._registry is not None:
            await self._registry.leave()

    def hand_over(self) -> None:
        """A successor of the same name tells the others from now on: say nothing more, and do not take leave."""
        self._tasks.cancel("registry")

    def view(self) -> list[dict[str, Any]]:
        """Our own entry when there is one, then every upstream and where its endpoints come from."""
        own = self._registry.view() if self._registry else None
        return ([own] if own else []) + [self._view(upstream) for upstream in self._config.upstreams]

    def _view(self, upstream: Any) -> dict[str, Any]:
        shown = self._discovery.view(upstream.name)
        if shown is None:
            written = [{"address": one.address, "weight": one.weight, "priority": one.priority, "origin": "written"}
                       for one in upstream.endpoints]  # fmt: skip
            return {"kind": "upstream", "upstream": upstream.name, "source": "static", "endpoints": written}
        if shown["source"] == "registry" and self._registry is not None:
            shown["instances"] = self._registry.instances(shown["target"])
        return shown

    def _state(self) -> State:
        """What we say of ourselves."""
        shared = self._shared
        upstream = shared.registry.upstream if shared and shared.registry else None
        if not self._ready():
            return State.UNAVAILABLE
        if upstream is None:
            return State.AVAILABLE
        healthy = any(self._is_healthy(upstream, address) is not False for address in self._addresses(upstream))
        return State.AVAILABLE if healthy else State.UNAVAILABLE

    def _addresses(self, upstream: str) -> list[str]:
        found = self._discovery.members(upstream)
        if found is not None:
            return [one.address for one in found]
        return [one.address for each in self._config.upstreams if each.name == upstream for one in each.endpoints]

    def _source(self, config: DiscoveryConfig) -> Source:
        if config.dns is not None:
            return DnsSource(config.dns, config.refresh, config.server or "")
        if config.srv is not None:
            return SrvSource(config.srv, config.refresh, config.server or "")
        if config.file is not None:
            return FileSource(config.file, config.refresh)
        if config.kubernetes is not None:
            from sidecar.control.resolvers.kubernetes import KubernetesSource

            return KubernetesSource(config.kubernetes)
        assert config.registry is not None, "exactly one is given"
        if self._registry is None:
            return _AfterRestart(config.registry)
        from sidecar.control.registry import RegistrySource

        return RegistrySource(self._registry, config.registry, config.refresh)


def member(config: Config) -> str:
    """This sidecar's name among the replicas of its service: the instance's, told apart from others on the same host,
    and the same after a restart, so that a sidecar that crashes again and again has one vote.
    """
    places = [config.admin.bind, config.admin.socket, *(one.bind for one in config.listeners)]
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:6]
    return f"{instance(config)}/{digest}"


def instance(config: Config) -> str:
    """This instance's name, as people know it."""
    return config.service.instance or socket.gethostname()


class _AfterRestart:
    """Stands in for the registry when a reload brought shared_state, which needs a restart."""

    kind = "registry"

    def __init__(self, target: str) -> None:
        self.target = target

    async def run(self, report: Report) -> None:
        report.failed("shared_state is new in the configuration: it counts after a restart")
        await asyncio.Event().wait()
