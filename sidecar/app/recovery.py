"""Recovery in the program: what its rules see and do is the program's, and what people order comes here.

Runs in the program's process, once, however many workers serve. The engine is made when the first rule comes; a
program without rules does not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.app.neighbours import member
from sidecar.config.address import Address
from sidecar.control.recovery.orders import Order
from sidecar.runtime.admin_doors import Refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from sidecar.app.crew import Crew
    from sidecar.config.document import Config
    from sidecar.control.child import Child
    from sidecar.control.health import HealthChecks
    from sidecar.control.recovery.engine import RecoveryEngine
    from sidecar.control.recovery.fleet import FleetTokens
    from sidecar.control.redis_link import RedisLink
    from sidecar.runtime.metrics import Registry, Snapshot
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor


class Around:
    """The program as recovery knows it (`control/recovery/ports.py`)."""

    def __init__(
        self,
        health: HealthChecks,
        child: Child | None,
        *,
        config: Callable[[], Config],
        crew: Crew,
        sockets: Callable[[], Mapping[str, socket.socket]],
        leaving: Callable[[], bool],
    ) -> None:
        self.health = health
        self.child = child
        self.config = config
        self.leaving = leaving
        self._crew = crew
        self._sockets = sockets

    def address(self, listener: str) -> Address | None:
        sock = self._sockets().get(listener)
        if sock is None or sock.fileno() < 0:
            return None
        name = sock.getsockname()
        if not isinstance(name, tuple):
            return Address(path=str(name))
        host = str(name[0])
        return Address(host={"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port=int(name[1]))

    async def endpoints(self, upstream: str) -> list[tuple[str, int]]:
        return [(one.address, one.priority) for one in (await self._crew.endpoints()).get(upstream, [])]

    async def breakers(self) -> list[dict[str, Any]]:
        return await self._crew.breakers()

    async def reset_breakers(self, upstream: str) -> None:
        for one in await self._crew.breakers():
            ours = one["name"] == upstream or one["name"].startswith(f"{upstream}/")
            if ours and one["machine"] in {"open", "half_open"}:
                await self._crew.order(one["name"], "reset", None, "recovery", "the process is another one")

    async def serve(self, verb: str, *argument: Any) -> None:
        await self._crew.serve(verb, *argument)

    async def snapshot(self) -> Snapshot:
        return await self._crew.snapshot()


class ProgramRecovery:
    """Rules at work, or none."""

    def __init__(self, around: Around, tasks: Supervisor, registry: Registry, observer: Observer) -> None:
        self._around = around
        self._tasks = tasks
        self._registry = registry
        self._observer = observer
        self._engine: RecoveryEngine | None = None
        self._fleet: FleetTokens | None = None
        if around.child is not None:
            around.child.may_start_at = self._may_start_at

    def share(self, link: RedisLink | None, config: Config) -> None:
        """Ask the other replicas for leave over `link` before restarting; None: there are none."""
        if link is None or config.shared_state is None:
            return
        from sidecar.control.recovery.fleet import FleetTokens

        self._fleet = FleetTokens(link, config.shared_state.namespace, config.service.name, member(config))

    async def apply(self, config: Config) -> None:
        """Follow the rules of `config` from now on."""
        if self._engine is None:
            if not config.recovery:
                return
            from sidecar.control.recovery.engine import RecoveryEngine

            self._engine = RecoveryEngine(self._around, self._tasks, self._registry, self._observer, self._fleet)
        await self._engine.apply(config)

    def pause(self, by: str, why: str) -> None:
        """Do nothing until somebody resumes it."""
        if self._engine is not None:
            self._engine.pause(by, why)

    async def stop(self) -> None:
        """Do nothing any more."""
        if self._engine is not None:
            await self._engine.stop()

    def service_live(self) -> bool:
        """False while a rule wants the service's container restarted."""
        return self._engine is None or self._engine.service_live()

    def view(self) -> dict[str, Any]:
        """For people: the shape of `RecoveryEngine.view`."""
        return {"paused": None, "rules": [], "fleet": None} if self._engine is None else self._engine.view()

    async def order(self, order: Order) -> str:
        """Pause, resume or run; what was done, in a sentence. Raises Refused."""
        engine = self._engine
        if engine is None:
            raise Refused(409, "there are no recovery rules; `recovery` in the configuration makes some")
        said = order.body
        if order.action == "pause":
            engine.pause(said.by, said.why)
            return "recovery is paused until it is resumed; a service process that dies is started again still"
        if order.action == "resume":
            engine.resume(said.by, said.why)
            return "recovery goes on"
        rule = engine.find(order.rule)
        if rule is None:
            names = ", ".join(one["name"] for one in engine.view()["rules"])
            raise Refused(404, f"there is no recovery rule {order.rule!r}; there are: {names}")
        if said.dry_run:
            return await rule.describe()
        if self._around.leaving():
            raise Refused(409, "the sidecar drains or stops: nothing is restarted any more")
        if not rule.order():
            raise Refused(409, f"{order.rule} is at it: {rule.machine.stage.value}")
        return f"{order.rule} runs ({rule.strategy}); sidecar recover status shows what comes of it"

    def _may_start_at(self, now: float) -> float:
        return now if self._engine is None else self._engine.may_start_at(now)
