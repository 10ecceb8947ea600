"""What may be asked of the running agent: probes, metrics, how the backups are, and the order to make one now."""

from typing import Any, Protocol

import msgspec

from sidecar.config.backup import AgentAdmin
from sidecar.runtime.admin_doors import Doors, Handler, Places, Refused, Tables, as_json, metrics, probe, reading
from sidecar.runtime.admin_http import Request, Response
from sidecar.runtime.metrics import Snapshot


class Program(Protocol):
    """What the doors need of the agent."""

    async def metrics(self) -> Snapshot: ...

    async def status(self) -> dict[str, Any]: ...

    async def backups(self) -> list[dict[str, Any]]: ...

    def live(self) -> bool: ...

    def ready(self) -> bool:
        """Started and not stopping. A repository that is away does not make a pod unready."""
        ...

    def run_now(self, kind: str | None) -> str:
        """Let a backup begin; what will happen, in a sentence. Raises Refused."""
        ...

    def stop(self) -> None: ...


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an order to back up; empty: as the schedule would."""

    kind: str | None = None


class Admin:
    """The doors of one agent."""

    def __init__(self, config: AgentAdmin, program: Program) -> None:
        self._program = program
        probes: dict[str, Handler] = {
            "/livez": probe(program.live, "the event loop does not turn"),
            "/readyz": probe(program.ready, "not ready: starting, or stopping"),
            "/healthz": probe(program.ready, "not ready: starting, or stopping"),
            "/startupz": probe(program.ready, "still starting"),
            "/metrics": metrics(program.metrics),
        }
        reads: dict[str, Handler] = {
            **probes,
            "/api/v1/status": reading(program.status),
            "/api/v1/backups": reading(program.backups),
        }
        commands: dict[str, Handler] = {"/stop": self._stop, "/api/v1/backups/run": self._run}
        places = Places("backup.admin", config.bind, config.socket, config.token_file)
        self._doors = Doors(places, Tables(probes, reads, commands, {}))

    async def start(self) -> None:
        """Open the doors. ConfigError when one cannot be opened."""
        await self._doors.open()

    async def stop(self) -> None:
        """Close every door and connection."""
        await self._doors.close()

    async def _stop(self, _request: Request) -> Response:
        self._program.stop()
        return as_json({"ok": True, "message": "stopping: what is half made is left out"})

    async def _run(self, request: Request) -> Response:
        try:
            order = msgspec.json.decode(request.body or b"{}", type=Order)
        except msgspec.DecodeError as error:
            raise Refused(400, str(error)) from None
        return as_json({"ok": True, "message": self._program.run_now(order.kind)})
