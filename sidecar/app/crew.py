"""The crew: who serves. The program itself, or worker processes that it starts and watches.

Both look alike to the program. `ProcessCrew` is in `processes.py`: a program that serves alone does not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sidecar.app.worker import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from sidecar.app.worker import EndpointList, Endpoints
    from sidecar.config.document import Config
    from sidecar.machines.breaker import Snapshot as BreakerSnapshot
    from sidecar.proxy.breakers import Guarded
    from sidecar.runtime.metrics import Snapshot
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor
    from sidecar.runtime.tls import Known


class Crew(Protocol):
    """Who serves on the program's sockets."""

    async def start(
        self,
        config: Config,
        text: bytes,
        sockets: Mapping[str, socket.socket],
        forbidden: frozenset[tuple[str, int]],
        files: Known,
        *,
        accepting: bool = True,
    ) -> None:
        """Begin to serve `config`, whose source is `text` and whose `tls` sections name `files`; not `accepting`:
        clients from `release` on. Raises ConfigError.
        """

    async def apply(self, config: Config, text: bytes, files: Known) -> None:
        """Serve by another configuration. Raises ConfigError and changes nothing."""

    async def renew(self, files: Known) -> None:
        """Serve with certificates that changed. Raises ConfigError."""

    async def snapshot(self) -> Snapshot:
        """All numbers, the program's own with them."""
        ...

    async def endpoints(self) -> Endpoints:
        """What each endpoint has to do at the moment, summed."""
        ...

    async def set_health(self, upstream: str, address: str, healthy: bool) -> None:
        """An active check's verdict on an endpoint."""

    async def set_endpoints(self, upstream: str, endpoints: EndpointList) -> None:
        """Discovery's word on an upstream's endpoints."""

    async def serve(self, verb: str, upstream: str, *argument: Any) -> None:
        """What recovery wants of who serves, now and later: reroute, shift_priority, drain_endpoints, flush_pool,
        clear_cache.
        """

    async def breakers(self) -> list[dict[str, Any]]:
        """Every breaker; what several workers counted, summed."""
        ...

    def guarded(self) -> Mapping[str, Guarded]:
        """The breakers that decide for all who serve, by name."""
        ...

    def calls(self) -> float:
        """A number that grows with every call to an upstream."""
        ...

    async def order(self, name: str, action: str, seconds: float | None, by: str, why: str) -> bool:
        """Open, close or reset a breaker by hand; False: there is none of that name."""
        ...

    async def hold(self) -> None:
        """Accept nobody until `release`; who knocks waits in the kernel's queue."""

    async def release(self) -> None:
        """Accept again."""

    async def states(self) -> dict[str, BreakerSnapshot]:
        """Every breaker by its name, for a successor; of several workers' the strictest."""
        ...

    async def restore(self, states: Mapping[str, BreakerSnapshot]) -> None:
        """Go on with a predecessor's breakers."""

    async def drain(self) -> None:
        """Let clients move on."""

    async def stop_accepting(self) -> None:
        """Take no more clients."""

    async def running(self) -> int:
        """Clients that are still owed something."""
        ...

    def pids(self) -> list[int]:
        """The processes that serve."""
        ...

    async def stop(self) -> None:
        """Cut off what runs, end."""


def crew(count: int, worker: Worker, tasks: Supervisor, observer: Observer) -> Crew:
    """`count` that serve; a single one is `worker`, in this process. Their numbers and `worker`'s are one."""
    if count == 1:
        return LocalCrew(worker)
    from sidecar.app.processes import ProcessCrew

    return ProcessCrew(count, worker.registry, tasks, observer, worker.tie)


class LocalCrew:
    """The program serves by itself."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def start(
        self,
        config: Config,
        text: bytes,  # noqa: ARG002
        sockets: Mapping[str, socket.socket],
        forbidden: frozenset[tuple[str, int]],
        files: Known,
        *,
        accepting: bool = True,
    ) -> None:
        self._worker.start(config, sockets, forbidden, files, accepting=accepting)

    async def apply(self, config: Config, text: bytes, files: Known) -> None:  # noqa: ARG002
        self._worker.apply(config, files)

    async def renew(self, files: Known) -> None:
        self._worker.renew(files)

    async def snapshot(self) -> Snapshot:
        return self._worker.snapshot()

    async def endpoints(self) -> Endpoints:
        return self._worker.endpoints()

    async def set_health(self, upstream: str, address: str, healthy: bool) -> None:
        self._worker.set_health(upstream, address, healthy)

    async def set_endpoints(self, upstream: str, endpoints: EndpointList) -> None:
        self._worker.set_endpoints(upstream, endpoints)

    async def serve(self, verb: str, upstream: str, *argument: Any) -> None:
        self._worker.serve(verb, upstream, *argument)

    async def breakers(self) -> list[dict[str, Any]]:
        return self._worker.breakers()

    def guarded(self) -> Mapping[str, Guarded]:
        return self._worker.plane.breakers()

    def calls(self) -> float:
        return sum(one.requests for one in self._worker.plane.upstreams.values())

    async def order(self, name: str, action: str, seconds: float | None, by: str, why: str) -> bool:
        return self._worker.order(name, action, seconds, by, why)

    async def hold(self) -> None:
        self._worker.hold()

    async def release(self) -> None:
        self._worker.release()

    async def states(self) -> dict[str, BreakerSnapshot]:
        return self._worker.states()

    async def restore(self, states: Mapping[str, BreakerSnapshot]) -> None:
        self._worker.restore(states)

    async def drain(self) -> None:
        self._worker.drain()

    async def stop_accepting(self) -> None:
        self._worker.stop_accepting()

    async def running(self) -> int:
        return self._worker.running()

    def pids(self) -> list[int]:
        return []

    async def stop(self) -> None:
        await self._worker.stop()
