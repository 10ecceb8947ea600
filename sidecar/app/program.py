"""The program: what `sidecar run` starts and the operator gives orders to.

It binds every socket before anything else starts, lets its crew serve, reloads when the file changes or somebody asks,
hands over to a successor or takes over from the one before, and goes away without losing a request: the states of that
are `machines/drain.py`'s, the acts are here. What can be seen of it is `overview.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from sidecar import __version__
from sidecar.app.crew import LocalCrew, crew
from sidecar.app.fencing import Fencing
from sidecar.app.handing_over import HandingOver
from sidecar.app.incidents import Incidents
from sidecar.app.neighbours import Neighbours
from sidecar.app.ordering import Ordering
from sidecar.app.overview import Overview
from sidecar.app.recovery import Around, ProgramRecovery
from sidecar.app.served_file import ServedFile
from sidecar.app.taking_over import Predecessor
from sidecar.app.worker import Worker
from sidecar.base.errors import ConfigError, SidecarError
from sidecar.control import orphans
from sidecar.control.admin import Admin, ReloadResult
from sidecar.control.backups import Backups
from sidecar.control.certificates import Certificates
from sidecar.control.child import Child
from sidecar.control.handover import Place, Standing
from sidecar.control.health import HealthChecks
from sidecar.control.orders import Body
from sidecar.control.service_orders import ServiceOrders
from sidecar.control.sockets import bind_all, raise_descriptor_limit, shown, shut_door, unlink_names
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.drain import Drain, Phase
from sidecar.runtime import logs, series, tls
from sidecar.runtime.admin_doors import Refused
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Kind
from sidecar.runtime.systemd import Systemd
from sidecar.runtime.tasks import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.app.sharing import Sharing
    from sidecar.config.document import Config
    from sidecar.control.recovery.orders import Order

TICK_SECONDS = 0.05

_log = Log(__name__)


class Program:
    """One run of `sidecar run`."""

    def __init__(self, path: str, command: Sequence[str] = (), *, takes_over: str | None = None) -> None:
        """`path`: the configuration file; `command`: the service to supervise; `takes_over`: go on where the program
        that runs on this admin socket is; empty: on the configuration's. Raises ConfigError.
        """
        self._worker = Worker()  # its registry counts for the program too, whoever serves
        self._registry = registry = self._worker.registry
        self.observer = observer = self._worker.observer  # hears the workers' too, when there are some
        self._tasks = tasks = Supervisor(registry)
        self._file = ServedFile(path, registry, observer)
        config = self._file.config
        self._sharing: Sharing | None = None
        if config.shared_state is not None:
            from sidecar.app.sharing import Sharing

            self._sharing = Sharing(config.shared_state, config, tasks, registry, observer)
            self._worker.tie = self._sharing.fleet
        self._crew = crew(config.workers, self._worker, tasks, observer)
        self._certificates = Certificates(registry, observer, self._renew, self.reload)
        self._health = HealthChecks(
            registry, tasks, observer, self._crew.set_health, self._requests, self._certificates.calling
        )
        link = None if self._sharing is None else self._sharing.link
        self._neighbours = Neighbours(
            config, tasks, registry, observer, self._tell_endpoints, self._health.healthy, self.ready, link
        )
        self._incidents = Incidents(config, tasks, registry, observer, self._health.view, self._crew.snapshot)
        self._backups = Backups(config.backup)
        self._child = Child(command, registry, tasks, observer, self._child_finished) if command else None
        around = Around(
            self._health,
            self._child,
            config=lambda: self._file.config,
            crew=self._crew,
            sockets=lambda: self._sockets,
            leaving=lambda: self._drain.phase is not Phase.SERVING,
        )
        self._recovery = ProgramRecovery(around, tasks, registry, observer)
        self._fencing = Fencing(config.admin.socket)
        self._ordering = Ordering(self._crew, self._sharing, self._fencing)
        self._overview = Overview(
            self._file,
            self._crew,
            self._sharing,
            self._neighbours,
            self._health,
            {
                "state": self._state,
                "child": lambda: None if self._child is None else self._child.view(),
                "recovery": self._recovery.view,
                "incidents": self._incidents.open_ones,
                "figures": self._incidents.figures,
                "backups": self._backups.view,
                "certificates": self._certificates.view,
            },
            registry,
            observer,
        )
        self._drain = Drain(config.shutdown.delay, config.shutdown.drain_timeout)
        self._takes_over = takes_over
        self._handing_over = HandingOver(self, config.service.name, tasks, observer)
        self._handed_over = False
        self._committing = False  # a successor is about to serve: nothing else may begin
        self._left: frozenset[str] | None = None  # a successor serves; of our listeners, those that it did not want
        self._keeping_incidents = False
        self._sockets: dict[str, socket.socket] = {}
        self._admin: Admin | None = None
        self._started = False  # it serves
        self._settled = asyncio.Event()  # and nothing of the start is left to do
        self._starting: asyncio.Task[None] | None = None  # a start that a stop cuts short: nobody relies on it
        self._stop_owed = False  # somebody said stop while we started
        self._reloading = asyncio.Lock()
        self._wake = asyncio.Event()
        self._systemd = Systemd(os.environ)

    # The run ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until stopped. Raises ConfigError when the start fails."""
        config = self._file.config
        logs.setup(config.log.level, config.log.format)
        raise_descriptor_limit()
        self._watch_signals()
        self._registry.cell(series.BUILD_INFO, __version__, sys.version.split()[0]).value = 1
        predecessor = None
        if self._takes_over is not None:
            predecessor = await Predecessor.find(self._takes_over or config.admin.socket)
        try:
            if not await self._started_whole(config, predecessor):
                return
            self._systemd.ready(f"serving {config.service.name}")
            self._tasks.start("systemd-watchdog", self._systemd.pat)
            if self._stop_owed:
                self._stop_now()
            await self._until_stopped()
        except SidecarError as error:
            if predecessor is not None:
                await predecessor.refuse(str(error))
            raise
        finally:
            await self._end()
            if predecessor is not None:
                predecessor.close()

    async def _started_whole(self, config: Config, predecessor: Predecessor | None) -> bool:
        """Start. False: somebody said stop meanwhile; a successor starts all the same, and stops then."""
        starting = asyncio.ensure_future(self._start(config, predecessor))
        if predecessor is None:
            self._starting = starting
            if self._stop_owed:
                starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            if not self._stop_owed:
                raise
            return False
        finally:
            self._starting = None
        return True

    async def _start(self, config: Config, predecessor: Predecessor | None) -> None:
        files = tls.read_all(config)
        if predecessor is None:
            self._sockets = bind_all(config.listeners)
        else:
            self._left = frozenset()  # nothing is ours before the other lets go
            self._sockets = bind_all(config.listeners, predecessor.listener)
        service_orders = ServiceOrders(self._child, config.admin.socket)
        parts = (self._incidents.tables, self._backups.tables, service_orders.tables)
        self._admin = Admin(config.admin, self, self._overview, *parts)
        if predecessor is None:
            await self._incidents.start()
            self._keeping_incidents = True
            bound = await self._admin.start()
        else:
            bound = await self._admin.start(predecessor.door, serve=False)
        ours = frozenset((one.host, one.port) for one in bound.values() if one.port)
        if self._child is not None:
            orphans.adopt()
            # a command that cannot be run ends us before anybody is served
            self._child.start(held=self._fencing.holds_service)
        if self._child is not None or os.getpid() == 1:
            self._tasks.start("orphans", orphans.bury)
        accepting = predecessor is None
        first = accepting and not self._fencing.stands
        await self._crew.start(config, self._file.text, self._sockets, ours, files, accepting=first)
        await self._fencing.close(self._crew)
        if accepting and not first:
            await self._crew.release()
        self._certificates.take(config, files)
        await self._health.apply(config)
        self._tasks.start("backups", self._backups.run)
        self._tasks.start("overview", self._overview.run)
        self._tasks.start("config-watch", lambda: self._file.watch(self.reload))
        if self._sharing is not None:
            self._sharing.start(config, self._crew.guarded, self._crew.calls)
        await self._neighbours.start(ours)
        self._recovery.share(self._neighbours.link, config)
        self._incidents.share(self._neighbours.link, config)
        if predecessor is not None:
            await self._take_over(predecessor)
            await self._incidents.start()  # it has closed its book
            self._incidents.see(await self._overview.breakers())
            self._keeping_incidents = True
        self._tasks.start("certificates", self._certificates.run)
        await self._recovery.apply(config)
        self._fencing.pause(self._recovery)
        self._started = True
        self._settled.set()
        for name, sock in self._sockets.items():
            _log.info("listener_bound", listener=name, address=shown(sock))
        _log.info("started", service=config.service.name, version=__version__, pid=os.getpid(),
                  admin=config.admin.bind, workers=config.workers, config_hash=self._file.hash)  # fmt: skip

    async def _until_stopped(self) -> None:
        while self._drain.phase is not Phase.STOPPED:
            stopping = self._drain.phase is Phase.STOPPING
            timeout = TICK_SECONDS if stopping or self._drain.deadline is not None else None
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                pass
            self._wake.clear()
            before = self._drain.phase
            running = await self._crew.running() if stopping else 1
            self._drain.tick(monotonic(), running)
            await self._act(before)

    async def _act(self, before: Phase) -> None:
        """Do what the phase now asks for, if it is another one than `before`."""
        phase = self._drain.phase
        if phase is before:
            return
        self.observer.tell(Kind.PHASE_CHANGED, self._file.config.service.name, before=before.value, now=phase.value)
        if phase is Phase.DRAINING:
            await self._crew.drain()
        elif phase is Phase.STOPPING:
            if self._left is None:
                await self._handing_over.call_off("it is being stopped")
                self._systemd.stopping()
            await self._crew.drain()
            for sock in self._own_sockets():
                shut_door(sock)
            unlink_names(self._own_sockets())
            if not isinstance(self._crew, LocalCrew):
                # ours first: the workers' copies keep the queue alive until its last client was taken
                self._close_sockets()
            await self._crew.stop_accepting()

    async def _end(self) -> None:
        await self._recovery.stop()
        if self._started and self._left is None:
            await self._neighbours.leave()
        await self._crew.stop()
        if self._child is not None:
            await self._child.stop()
        await self._close_incidents()
        await self._tasks.stop()
        if self._child is not None:
            await orphans.end_all(self._child.patience)
        if self._admin is not None:
            await self._admin.stop()
        unlink_names(self._own_sockets())
        self._close_sockets()
        if self._started:
            _log.info("stopped")

    async def _close_incidents(self) -> None:
        if self._keeping_incidents:
            self._keeping_incidents = False
            await self._incidents.stop()

    def _own_sockets(self) -> list[socket.socket]:
        """The listening sockets that nobody else has."""
        return [sock for name, sock in self._sockets.items() if self._left is None or name in self._left]

    def _close_sockets(self) -> None:
        for sock in self._sockets.values():
            sock.close()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop_now)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.start(f"reload-{monotonic()}", self._reload_asked))

    async def _reload_asked(self) -> None:
        await self.reload()

    def _stop_now(self) -> None:
        if not self._settled.is_set() or self._committing:
            self._stop_owed = True  # who is half started, or half gone, cannot be drained
            if self._starting is not None:
                self._starting.cancel()
            return
        before = self._drain.phase
        self._drain.stop(monotonic())
        if self._drain.phase is not before:
            self._tasks.start(f"phase-{self._drain.phase}", lambda: self._act(before))
        if self._drain.phase is Phase.STOPPED and self._child is not None:
            self._child.force()  # nobody says it again who has time
        self._wake.set()

    def _child_finished(self) -> None:
        """The service ended well: so do we, unless we are at it already."""
        if self._drain.phase in {Phase.SERVING, Phase.DRAINING} and self._drain.deadline is None:
            self._stop_now()

    # A successor, a predecessor -------------------------------------------------------------------------------------

    async def _take_over(self, predecessor: Predecessor) -> None:
        """Everything is there but clients: go on where the other is. Raises TakeOverFailed; then it serves, not we."""
        assert self._admin is not None
        standing = await predecessor.standing()
        breakers = predecessor.breakers(standing)
        await self._crew.restore(breakers)
        if self._sharing is not None:
            self._sharing.fleet.restate(predecessor.orders(standing))
        for upstream, address in standing.unhealthy:
            if self._health.awaited(upstream, address):
                await self._crew.set_health(upstream, address, False)
        self._started = True
        await self._admin.serve()
        await self._crew.release()
        try:
            await predecessor.take_leave()
        except BaseException:
            await self._crew.hold()
            self._admin.retire(())
            raise
        self._left = None
        self.observer.tell(
            Kind.TAKEN_OVER, self._file.config.service.name, predecessor=predecessor.pid, version=predecessor.version,
            listeners=list(self._sockets),
            breakers=sorted(name for name, one in breakers.items() if one.state is not BreakerState.CLOSED),
        )  # fmt: skip

    async def upgrade(self) -> str:
        try:
            self._file.examine()
        except ConfigError as error:
            raise Refused(422, str(error)) from None
        environment = {**os.environ, **self._systemd.for_a_successor}
        # where we answer: the file may name another place by now
        return await self._handing_over.spawn(self._file.path, self._file.started_with.admin.socket, environment)

    def may_be_taken_over(self) -> None:
        self._handing_over.check()

    def hand_over(self, sock: socket.socket) -> None:
        self._handing_over.begin(sock)

    async def settled(self) -> None:
        await self._settled.wait()

    def objection(self) -> str:
        if self._child is not None:
            return "this sidecar is the parent of its service, which no other process can become: restart both instead"
        if os.getpid() == 1:
            return "this sidecar is process 1: when it ends, so does its container. Replace the pod instead"
        return "" if self._state() == "ready" else f"this sidecar is {self._state()}"

    def places(self) -> list[tuple[Place, int]]:
        binds = {one.name: one.bind for one in self._file.started_with.listeners}  # a reload opens no sockets
        assert self._admin is not None
        listening = [(("listener", name, binds[name]), sock.fileno()) for name, sock in self._sockets.items()]
        return [*listening, *self._admin.sockets()]

    async def standing(self) -> Standing:
        states = await self._crew.states()
        endpoints = await self._crew.endpoints()
        return Standing(
            {name: msgspec.to_builtins(one) for name, one in states.items()},
            [(upstream, one.address) for upstream, found in endpoints.items() for one in found if not one.healthy],
            {} if self._sharing is None else msgspec.to_builtins(self._sharing.fleet.orders()),
        )

    async def hold(self) -> None:
        self._committing = True
        await self._crew.hold()

    async def release(self) -> None:
        self._committing = False
        await self._crew.release()
        if self._stop_owed:
            self._stop_owed = False
            self._stop_now()

    async def cede(self, successor: int) -> None:
        self._handed_over = True
        self._systemd.succeeded_by(successor)
        async with self._reloading:  # one that is under way would begin anew what ends here
            self._neighbours.hand_over()
            if self._sharing is not None:
                self._sharing.hand_over()
            await self._recovery.stop()
            await self._close_incidents()

    async def leave(self, left: Sequence[Place]) -> None:
        assert self._admin is not None
        self._left = frozenset(name for kind, name, _ in left if kind == "listener")
        self._committing = False
        for task in ("config-watch", "systemd-watchdog"):
            self._tasks.cancel(task)
        self._admin.retire(left)
        before = self._drain.phase
        self._drain.leave(monotonic())
        await self._act(before)
        self._wake.set()

    # What the upkeep needs ------------------------------------------------------------------------------------------

    async def _tell_endpoints(self, upstream: str, endpoints: list[tuple[str, int, int]]) -> None:
        await self._crew.set_endpoints(upstream, endpoints)
        await self._health.set_endpoints(upstream, [address for address, _, _ in endpoints])

    async def _requests(self) -> dict[str, float]:
        """How many requests each upstream has had."""
        snapshot = await self._crew.snapshot()
        return {one.name: snapshot.total(series.REQUESTS, upstream=one.name) for one in self._file.config.upstreams}

    # What the admin interface asks (control.admin.Program) ----------------------------------------------------------

    def _state(self) -> str:
        if not self._started:
            return "starting"
        return {Phase.SERVING: "ready", Phase.DRAINING: "draining"}.get(self._drain.phase, "stopping")

    async def order(self, name: str, action: str, said: Body) -> str:
        return await self._ordering.order(name, action, said)

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        """A successor that serves is as good: who still asks the old one is to go on."""
        return self._started and (self._drain.conduct.ready or self._handed_over)

    def started(self) -> bool:
        return self._started

    def service_live(self) -> bool:
        return self._recovery.service_live()

    async def recover(self, order: Order) -> str:
        return await self._recovery.order(order)

    async def drain(self) -> None:
        before = self._drain.phase
        self._drain.drain(monotonic())
        await self._act(before)

    async def stop(self) -> None:
        self._stop_now()

    async def reload(self) -> ReloadResult:
        """Read the file again and serve by it; a bad one changes nothing but what we say about it.

        Who starts does so when that is over, who has handed over does not any more.
        """
        await self._settled.wait()
        async with self._reloading:
            if self._handed_over:
                return ReloadResult(ok=False, message="another process has taken over: the file is its business")
            self._systemd.reloading()
            config: Config | None = None
            try:
                reading = self._file.read_again()
                config = reading.config
                files = tls.read_all(config)
                await self._crew.apply(config, reading.text, files)
            except ConfigError as error:
                self._certificates.missed(config)
                self._systemd.ready("the last reload failed; the configuration before it serves")
                return self._file.refuse(str(error))
            self._certificates.take(config, files)
            await self._health.apply(config)
            self._incidents.apply(config)
            await self._neighbours.apply(config)
            if self._sharing is not None:
                self._sharing.apply(config)
            logs.set_level(config.log.level)
            self._drain.retime(config.shutdown.delay, config.shutdown.drain_timeout)
            done = self._file.take(reading)
            self._systemd.ready(f"serving {config.service.name}")
            await self._recovery.apply(config)
            return done

    async def _renew(self, config: Config, files: dict[str, tls.Credentials]) -> bool:
        """Certificates changed under `config`; False: it is not the present one."""
        async with self._reloading:
            if config is not self._file.config:
                return False
            await self._crew.renew(files)
            return True
