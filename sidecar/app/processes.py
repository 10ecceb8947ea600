"""Worker processes: started by the program, given its listening sockets, told what to do, started again when they die.

Each is a fresh interpreter (`python -m sidecar.app.process`) that inherits the sockets and one end of a socket pair,
over which both talk (`channel.py`). The listening sockets belong to the program, so a client in the kernel's queue
outlives any worker. What a dead worker had counted is kept, so that no sum ever goes back. What happens in a worker
is told to the program's observer. What they find out about the upstreams' breakers they agree on (`pod.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.app.channel import CALL_SECONDS, Channel
from sidecar.app.pod import TOPIC, Pod
from sidecar.app.worker import EndpointList, Endpoints
from sidecar.base.backoff import exponential
from sidecar.base.errors import ConfigError
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry, Snapshot, lasting, merge
from sidecar.runtime.observer import Happening, Kind, Level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.document import Config
    from sidecar.machines.breaker import Snapshot as BreakerSnapshot
    from sidecar.proxy.breakers import Guarded, Tie
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor
    from sidecar.runtime.tls import Known

START_SECONDS = 20.0
SNAPSHOT_SECONDS = 1.0
"""How often each worker's numbers are fetched, so that a worker that is killed takes at most a second with it."""


class Process:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.snapshot = Snapshot({})  # as it was fetched last

    def say(self, topic: str, payload: Any) -> bool:
        """Tell it something that needs no answer; False: it does not read."""
        return self.channel.say(topic, payload)


class ProcessCrew:
    """`count` worker processes."""

    def __init__(
        self, count: int, registry: Registry, tasks: Supervisor, observer: Observer, beyond: Tie | None = None
    ) -> None:
        """`beyond`: leads to other pods."""
        self._count = count
        self._registry = registry
        self._tasks = tasks
        self._observer = observer
        self.pod = Pod(registry, observer, beyond)
        self._crew: dict[int, Process] = {}
        self._past = Snapshot({})  # counters of workers that are no more
        self._starting: set[asyncio.subprocess.Process] = set()
        self._stopping = False
        self._draining = False
        self._accepting = True
        self._health: dict[tuple[str, str], bool] = {}  # what upkeep found out, for workers that come later
        self._endpoints: dict[str, EndpointList] = {}
        self._standing: dict[tuple[str, str], list[Any]] = {}  # what recovery did and has not undone
        self._text = b""
        self._files: Known = {}
        self._sockets: Mapping[str, socket.socket] = {}
        self._forbidden: frozenset[tuple[str, int]] = frozenset()

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
        self.pod.apply(config)
        self._accepting = accepting
        self._text, self._sockets, self._forbidden, self._files = text, sockets, forbidden, files
        await asyncio.gather(*(self._start_one(place) for place in range(self._count)))
        for place in range(self._count):
            self._tasks.start(f"worker-{place}", functools.partial(self._keep, place))
        self._tasks.start("worker-numbers", self._fetch)

    async def _start_one(self, place: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        inherited = {name: sock.fileno() for name, sock in self._sockets.items()}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar.app.process",
            str(theirs.fileno()),
            pass_fds=(theirs.fileno(), *inherited.values()),
            start_new_session=True,  # Ctrl-C in a terminal is for the program, which tells its workers
        )
        theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        worker = Process(process, Channel(reader, writer))
        self._tasks.start(
            f"worker-channel-{process.pid}", lambda: worker.channel.listen(functools.partial(self._told, worker))
        )
        self._starting.add(process)
        try:
            order = {
                "text": self._text,
                "files": self._files,
                "sockets": inherited,
                "forbidden": list(self._forbidden),
                "accepting": self._accepting,
                "endpoints": self._endpoints,
                "health": [[*where, healthy] for where, healthy in self._health.items()],
                "standing": list(self._standing.values()),
                "breakers": self.pod.join(worker),  # what is said to it from now on comes behind this
            }
            told = dict(self._endpoints), dict(self._health), self._accepting
            await worker.channel.call("start", order, START_SECONDS)
            self._crew[place] = worker
            if self._text is not order["text"]:
                await worker.channel.call("apply", [self._text, self._files])
            elif self._files is not order["files"]:
                await worker.channel.call("renew", self._files)
            await self._catch_up(worker, *told)
        except BaseException as error:
            self._crew.pop(place, None)
            self.pod.leave(worker)
            _kill(process)
            if isinstance(error, ConnectionError):
                raise ConfigError(f"a worker did not start: {error}") from None
            raise
        finally:
            self._starting.discard(process)
        self._observer.tell(Kind.WORKER_STARTED, str(place), worker=place, pid=process.pid)

    def _told(self, worker: Process, topic: str, payload: Any) -> None:
        """A worker said something unasked."""
        if topic == "happening":
            self._observer.hear(msgspec.convert(payload, Happening))
        elif topic == TOPIC:
            self.pod.hear(worker, payload)

    async def _catch_up(
        self,
        worker: Process,
        endpoints: dict[str, EndpointList],
        health: dict[tuple[str, str], bool],
        accepting: bool,
    ) -> None:
        """Tell a worker what changed while it started; from now on it hears everything with the others."""
        for upstream, found in list(self._endpoints.items()):
            if endpoints.get(upstream) != found:
                await worker.channel.call("set_endpoints", [upstream, found])
        for (upstream, address), healthy in list(self._health.items()):
            if health.get((upstream, address)) != healthy:
                await worker.channel.call("set_health", [upstream, address, healthy])
        for standing in list(self._standing.values()):
            await worker.channel.call("serve", standing)
        if self._accepting != accepting:
            await worker.channel.call("release" if self._accepting else "hold")
        if self._draining:
            await worker.channel.call("drain")

    async def _keep(self, place: int) -> None:
        """Wait for the worker's end and start another, at once the first time, then with growing pauses."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            worker = self._crew.get(place)
            if worker is not None:
                began = loop.time()
                status = await worker.process.wait()
                del self._crew[place]
                self.pod.leave(worker)
                self._past = merge([self._past, lasting(worker.snapshot)])
                if self._stopping:
                    break
                deaths = 0 if loop.time() - began > 60.0 else deaths + 1
                self._registry.cell(series.WORKER_RESTARTS).value += 1
                self._observer.tell(Kind.WORKER_DIED, str(place), level=Level.ERROR, worker=place,
                                    pid=worker.process.pid, status=status)  # fmt: skip
            if deaths > 1:
                await asyncio.sleep(exponential(deaths - 2, 0.5, 30.0))
            try:
                await self._start_one(place)
            except (ConfigError, OSError) as error:
                if self._stopping:
                    return  # the sockets are closed, and what was half started is gone
                deaths += 1
                self._observer.tell(Kind.WORKER_START_FAILED, str(place), level=Level.ERROR, reason=str(error),
                                    worker=place)  # fmt: skip

    async def _fetch(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_SECONDS)
            await self._fetch_now()

    async def _fetch_now(self) -> None:
        async def one(worker: Process) -> None:
            try:
                families = await worker.channel.call("snapshot")
                worker.snapshot = msgspec.convert(families, Snapshot)
            except ConnectionError:
                return  # its end is noticed elsewhere

        await asyncio.gather(*(one(worker) for worker in list(self._crew.values())))

    async def _everyone(self, verb: str, argument: Any = None) -> list[Any]:
        found = await asyncio.gather(
            *(worker.channel.call(verb, argument) for worker in list(self._crew.values())), return_exceptions=True
        )
        for one in found:
            if isinstance(one, ConfigError):
                raise one
        return [one for one in found if not isinstance(one, BaseException)]

    async def apply(self, config: Config, text: bytes, files: Known) -> None:
        before = self._text, self._files
        self._text, self._files = text, files  # a worker that is born meanwhile begins with it
        try:
            await self._everyone("apply", [text, files])
        except ConfigError:
            self._text, self._files = before
            await self._everyone("apply", before)  # who took it already takes it back
            raise
        self.pod.apply(config)
        found = {one.name for one in config.upstreams if one.discovery is not None}  # the others' are in the text
        self._endpoints = {name: told for name, told in self._endpoints.items() if name in found}

    async def renew(self, files: Known) -> None:
        self._files = files
        await self._everyone("renew", files)

    async def snapshot(self) -> Snapshot:
        await self._fetch_now()
        workers = (worker.snapshot for worker in self._crew.values())
        return merge([self._registry.snapshot(), self._past, *workers])

    async def endpoints(self) -> Endpoints:
        total: Endpoints = {}
        for one in await self._everyone("endpoints"):
            for upstream, found in msgspec.convert(one, Endpoints).items():
                known = {view.address: view for view in total.setdefault(upstream, [])}
                for view in found:
                    same = known.get(view.address)
                    if same is None:
                        total[upstream].append(view)
                    else:
                        same.active += view.active
                        same.idle += view.idle
                        same.ejected = same.ejected or view.ejected
                        same.ejected_for_seconds = same.ejected_for_seconds or view.ejected_for_seconds
        return total

    async def set_health(self, upstream: str, address: str, healthy: bool) -> None:
        self._health[upstream, address] = healthy
        await self._everyone("set_health", [upstream, address, healthy])

    async def set_endpoints(self, upstream: str, endpoints: EndpointList) -> None:
        self._endpoints[upstream] = endpoints
        await self._everyone("set_endpoints", [upstream, endpoints])

    async def serve(self, verb: str, upstream: str, *argument: Any) -> None:
        order = [verb, upstream, *argument]
        if verb in (
            "reroute",
            "shift_priority",
            "drain_endpoints",
        ):  # holds until it is undone, in workers that come later too
            self._standing[verb, upstream] = order
        await self._everyone("serve", order)

    async def breakers(self) -> list[dict[str, Any]]:
        views = {name: guarded.view() for name, guarded in self.pod.breakers().items()}
        for counted in await self._everyone("breakers"):
            for one in counted:
                _count_in(views.get(one["name"]), one)
        return list(views.values())

    def guarded(self) -> Mapping[str, Guarded]:
        return self.pod.breakers()

    def calls(self) -> float:
        return sum(worker.snapshot.total(series.REQUESTS) for worker in self._crew.values())

    async def order(self, name: str, action: str, seconds: float | None, by: str, why: str) -> bool:
        guarded = self.pod.breakers().get(name)
        if guarded is None:
            return False
        guarded.order(action, seconds=seconds, by=by, why=why)
        return True

    async def hold(self) -> None:
        self._accepting = False
        await self._everyone("hold")

    async def release(self) -> None:
        self._accepting = True
        await self._everyone("release")

    async def states(self) -> dict[str, BreakerSnapshot]:
        return {name: one.snapshot() for name, one in self.pod.breakers().items()}

    async def restore(self, states: Mapping[str, BreakerSnapshot]) -> None:
        self.pod.restore(states)

    async def drain(self) -> None:
        self._draining = True
        await self._everyone("drain")

    async def stop_accepting(self) -> None:
        self._stopping = True
        for process in self._starting:
            _kill(process)
        await self._everyone("stop_accepting")

    async def running(self) -> int:
        return sum(await self._everyone("running"))

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._crew.values()]

    async def stop(self) -> None:
        self._stopping = True
        for process in self._starting:
            _kill(process)
        workers = list(self._crew.values())
        await self._everyone("stop")
        for worker in workers:
            try:
                await asyncio.wait_for(worker.process.wait(), CALL_SECONDS)
            except TimeoutError:
                worker.process.kill()
                await worker.process.wait()


def _count_in(view: dict[str, Any] | None, counted: dict[str, Any]) -> None:
    """Add to the pod's view of a breaker what one worker counted."""
    if view is not None:
        view["window"] = {key: view["window"][key] + counted["window"][key] for key in view["window"]}
        view["refused"] += counted["refused"]
        view["consecutive_failures"] = max(view["consecutive_failures"], counted["consecutive_failures"])


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def descriptor(number: int) -> socket.socket:
    """The inherited socket under `number`."""
    os.set_inheritable(number, False)
    sock = socket.socket(fileno=number)
    sock.setblocking(False)
    return sock
