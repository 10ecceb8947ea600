"""A worker: the inside of one process that serves. Data plane, counters, access log, the loop's lag.

The program talks to it through `crew.py`: directly when it serves itself, over a socket when it has worker processes.
"""

from __future__ import annotations

import asyncio
import gc
import resource
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.app.tracing import Tracing
from sidecar.proxy.dataplane import DataPlane
from sidecar.runtime import lag, series
from sidecar.runtime.access_log import AccessLog
from sidecar.runtime.metrics import Registry, Snapshot
from sidecar.runtime.observer import Observer
from sidecar.runtime.tasks import Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from sidecar.config.document import AccessLog as AccessLogConfig
    from sidecar.config.document import Config
    from sidecar.machines.breaker import Snapshot as BreakerSnapshot
    from sidecar.proxy.breakers import Tie
    from sidecar.proxy.upstream import Endpoint
    from sidecar.runtime.tls import Known

EndpointList = list[tuple[str, int, int]]
"""(address, weight, priority) of each endpoint of an upstream."""


class EndpointView(msgspec.Struct):
    """One endpoint at one moment, as this worker sees it."""

    address: str
    weight: int
    priority: int
    active: int
    idle: int
    healthy: bool
    """Active checks pass, or there are none."""
    ejected: str = ""
    """Why the outlier watch has it out; empty: it is in."""
    ejected_for_seconds: float | None = None
    """How much longer."""


Endpoints = dict[str, list[EndpointView]]
"""upstream -> its endpoints"""

_GC_THRESHOLDS = (50_000, 20, 50)


class Worker:
    """Serves on the sockets that it is given until it is told to stop."""

    def __init__(self, tie: Tie | None = None) -> None:
        """`tie`: leads to whoever shares the breakers."""
        self.registry = Registry()
        self.tie = tie
        self.observer = Observer()
        self._tasks = Supervisor(self.registry)
        self._plane: DataPlane | None = None
        self._log_config: AccessLogConfig | None = None
        self._tracing: Tracing | None = None
        self._among_others = False

    @property
    def started(self) -> bool:
        """It serves, or did."""
        return self._plane is not None

    @property
    def plane(self) -> DataPlane:
        assert self._plane is not None, "the worker is started"
        return self._plane

    def start(
        self,
        config: Config,
        sockets: Mapping[str, socket.socket],
        forbidden: frozenset[tuple[str, int]],
        files: Known,
        *,
        among_others: bool = False,
        accepting: bool = True,
    ) -> None:
        """Begin to serve, alone or `among_others` who share sockets and log; not `accepting`: clients from `release`
        on. Raises ConfigError when the log cannot be opened or `files`, the certificates, cannot be used.
        """
        loop = asyncio.get_running_loop()
        plane = DataPlane(loop, self.registry, self.observer)
        plane.forbidden = forbidden
        plane.tie = self.tie
        plane.shares_sockets = among_others
        self._plane = plane
        self._among_others = among_others
        self._set_access_log(config)
        self._tracing = Tracing(plane, self.registry, self._tasks)
        self._tracing.apply(config)
        plane.start(config, sockets, files, accepting=accepting)
        observed = self.registry.cell(series.EVENT_LOOP_LAG)
        self._tasks.start("event-loop-lag", lambda: lag.probe(observed))
        self.registry.gauge_function(series.RESIDENT_MEMORY, resident_bytes)
        # a full collection takes tens of milliseconds when it walks all that lives on from the start: spare it that
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)

    def apply(self, config: Config, files: Known) -> None:
        """Serve by another configuration from the next request on; raises ConfigError and changes nothing."""
        self._set_access_log(config)
        self.plane.apply(config, files)
        if self._tracing is not None:
            self._tracing.apply(config)

    def renew(self, files: Known) -> None:
        """Take certificates that changed; raises ConfigError and changes nothing."""
        self.plane.renew(files)

    def _set_access_log(self, config: Config) -> None:
        wanted = config.access_log
        present = self.plane.access_log
        if wanted == self._log_config:
            if present is not None:
                present.reopen()
            return
        log = None
        if wanted is not None:
            dropped = self.registry.cell(series.ACCESS_LOG_DROPPED)
            log = AccessLog(wanted.path, wanted.sample, dropped, shared=self._among_others)
            log.start()
        self.plane.access_log = log
        self._log_config = wanted
        if present is not None:
            present.stop()

    def snapshot(self) -> Snapshot:
        """This process's numbers."""
        return self.registry.snapshot()

    def endpoints(self) -> Endpoints:
        """What each endpoint has to do at the moment; none before the start."""
        upstreams = self._plane.upstreams if self._plane else {}
        return {one.name: [_view_endpoint(each) for each in one.endpoints] for one in upstreams.values()}

    def set_health(self, upstream: str, address: str, healthy: bool) -> None:
        """An active check found an endpoint healthy or not."""
        self.plane.set_health(upstream, address, healthy=healthy)

    def set_endpoints(self, upstream: str, endpoints: EndpointList) -> None:
        """Discovery found an upstream's endpoints."""
        self.plane.set_endpoints(upstream, endpoints)

    def serve(self, verb: str, *argument: Any) -> None:
        """What recovery wants of who serves: reroute, shift_priority, drain_endpoints, flush_pool,
        clear_cache.
        """
        doing: dict[str, Callable[..., None]] = {
            "reroute": self.plane.reroute,
            "drain_endpoints": self.plane.drain_endpoints,
            "shift_priority": self.plane.shift_priority,
            "flush_pool": self.plane.flush_pool,
            "clear_cache": self.plane.clear_cache,
        }
        doing[verb](*argument)

    def breakers(self) -> list[dict[str, Any]]:
        """Every breaker, for people; none before the start."""
        return [one.view() for one in self._plane.breakers().values()] if self._plane else []

    def order(self, name: str, action: str, seconds: float | None, by: str, why: str) -> bool:
        """Open, close or reset a breaker by hand; False: there is none of that name."""
        guarded = self.plane.breakers().get(name)
        if guarded is None:
            return False
        guarded.order(action, seconds=seconds, by=by, why=why)
        return True

    def hold(self) -> None:
        """Accept nobody until `release`."""
        self.plane.hold()

    def release(self) -> None:
        """Accept again."""
        self.plane.release()

    def states(self) -> dict[str, BreakerSnapshot]:
        """Every breaker by its name, for the process that goes on with it."""
        return {name: one.snapshot() for name, one in self.plane.breakers().items()}

    def restore(self, states: Mapping[str, BreakerSnapshot]) -> None:
        """Go on with another process's breakers; those of other names are passed over."""
        for name, one in self.plane.breakers().items():
            if name in states:
                one.restore(states[name])

    def drain(self) -> None:
        """Let clients move on: answers carry Connection: close from now on."""
        self.plane.draining = True

    def stop_accepting(self) -> None:
        """Take no more clients."""
        self.plane.draining = True
        self.plane.stop_accepting()

    def running(self) -> int:
        """Clients that are still owed something."""
        return self.plane.running()

    async def stop(self) -> None:
        """Cut off what runs, write the log, end."""
        if self._plane is not None:
            await self._plane.stop()
            if self._plane.access_log is not None:
                await asyncio.to_thread(self._plane.access_log.stop)
        await self._tasks.stop()


def _view_endpoint(one: Endpoint) -> EndpointView:
    view = EndpointView(one.address, one.weight, one.priority, one.active, len(one.idle), one.healthy)
    standing = one.standing
    if one.ejected and standing is not None and standing.until is not None:
        view.ejected = f"{standing.reason}: {standing.detail}"
        view.ejected_for_seconds = round(max(0.0, standing.until - monotonic()), 1)
    return view


def resident_bytes() -> float | None:
    """Resident memory of this process; None: not to be had, while descriptors have run out."""
    try:
        with open("/proc/self/statm", "rb") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()
    except OSError:
        return None
