"""The admin interface: what may be asked of the running proxy, and what it answers.

By whom and through which door, the doors know (`runtime/admin_doors.py`). The program itself is behind the ports
`Program` and `Overview`; this module knows HTTP, not proxies.
"""

import socket
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from sidecar.config.address import Address
from sidecar.config.document import Admin as AdminConfig
from sidecar.control import handover, orders, page
from sidecar.control.handover import Place
from sidecar.control.lookout import Lookout
from sidecar.control.recovery import orders as recovery_orders
from sidecar.runtime.admin_doors import (
    Doors,
    Handler,
    Inherit,
    Places,
    Refused,
    Tables,
    as_json,
    metrics,
    nothing,
    probe,
    reading,
)
from sidecar.runtime.admin_http import Door, Request, Response
from sidecar.runtime.metrics import Snapshot

MAX_VIEWERS = 8
"""Browsers that may follow the live status at once."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of a reload. `message` is for people; `changes` names what changed, one sentence each."""

    ok: bool
    message: str
    changes: list[str] = field(default_factory=list)


class Overview(Protocol):
    """What can be seen of the program. Everything returned is JSON-shaped and free of secrets."""

    async def metrics(self) -> Snapshot:
        """All workers' numbers, merged."""
        ...

    async def status(self) -> dict[str, Any]:
        """What runs.

        service, instance, version, pid, at, uptime_seconds, state (starting | ready | draining | stopping), workers,
        child {pid, state, restarts, since, last_exit} or null (Child.view),
        config {path, hash, loaded_at, last_reload_ok, last_reload_error, restart_needed: [sentence]},
        listeners [{name, bind, protocol, connections, routes: [{name, match, upstream, requests_total}]}],
        upstreams [{name, endpoints: [{address, priority, weight, active, idle, healthy, state (healthy | degraded |
        unhealthy | unknown | unchecked | ejected), why, ejected, ejected_for_seconds, origin, check: {…} or null}],
        discovery: {source, target, last_success, error, error_at, left_out, refused} or null, inflight, pending,
        requests_total}], breakers as `breakers` has them, dependencies as `health` has them, recovery as `recovery`
        has it, fallbacks [{upstream, tier, total, per_second}], traffic {requests_total, rps, errors_total, inflight,
        p50_ms, p99_ms}, backups as `Backups.view` has them. `match` is a sentence; `at`, `loaded_at` and the like are
        UTC in ISO form; a figure that is not known is null.
        """
        ...

    async def breakers(self) -> list[dict[str, Any]]: ...

    async def health(self) -> list[dict[str, Any]]: ...

    async def registry(self) -> list[dict[str, Any]]: ...

    async def recovery(self) -> dict[str, Any]:
        """Recovery's rules and whether they are paused: the shape of `RecoveryEngine.view`."""
        ...

    def config(self) -> dict[str, Any]:
        """The effective configuration, defaults filled in; `*_file` keys hold paths, never contents."""
        ...

    def history(self, after: int) -> Sequence[tuple[float | None, ...]]:
        """Points of the plots that came after the one of this number: number, Unix seconds, requests and errors per
        second, p50 and p99 in milliseconds.
        """
        ...

    async def news(self, seen: int) -> int:
        """How much has happened so far, once it is more than `seen`."""
        ...


class Program(Protocol):
    """The program, to probe and to give orders to."""

    def live(self) -> bool:
        """The event loop turns; nothing else counts."""
        ...

    def ready(self) -> bool:
        """The listeners are bound and we are not draining."""
        ...

    def started(self) -> bool:
        """The start is over; never false again afterwards."""
        ...

    def service_live(self) -> bool:
        """False while recovery wants the service's container restarted."""
        ...

    async def order(self, name: str, action: str, said: orders.Body) -> str:
        """Open, close or reset a breaker by hand; what was done, in a sentence. Raises Refused."""
        ...

    async def recover(self, order: recovery_orders.Order) -> str:
        """Pause or resume recovery, or run a rule; what was done, in a sentence. Raises Refused."""
        ...

    async def drain(self) -> None:
        """Become not ready and let clients move on; goes on serving. Idempotent."""
        ...

    async def reload(self) -> ReloadResult:
        """Read the configuration again; a bad one changes nothing."""
        ...

    async def stop(self) -> None:
        """Begin to stop, as SIGTERM does; returns at once."""
        ...

    async def upgrade(self) -> str:
        """Start a successor and let it take over; what came of it, in a sentence. Raises Refused."""
        ...

    def may_be_taken_over(self) -> None:
        """Raises Refused with the reason when a successor cannot have what is ours."""

    def hand_over(self, sock: socket.socket) -> None:
        """A successor is at the other end of `sock`; returns at once."""


class Admin:
    """The three doors of one program."""

    def __init__(self, config: AdminConfig, program: Program, overview: Overview, *parts: Tables) -> None:
        """`parts`: what parts of the program answer themselves."""
        self._program = program
        self._overview = overview
        self._lookout = Lookout(self._shown, overview.news)
        self._viewers = 0
        self._takes_orders = config.token_file is not None
        self._probes: dict[str, Handler] = {
            "/livez": probe(program.live, "the event loop does not turn"),
            "/readyz": probe(program.ready, "not ready: starting, or draining"),
            "/healthz": probe(program.ready, "not ready: starting, or draining"),
            "/startupz": probe(program.started, "still starting"),
            "/livez/service": probe(program.service_live, "recovery wants the service restarted"),
            "/metrics": metrics(overview.metrics),
        }
        self._reads: dict[str, Handler] = {
            **self._probes,
            "/": self._page,
            **{path: _asset(*asset) for path, asset in page.assets().items()},
            "/events": self._events,
            "/api/v1/status": reading(overview.status),
            "/api/v1/breakers": reading(overview.breakers),
            "/api/v1/health": reading(overview.health),
            "/api/v1/registry": reading(overview.registry),
            "/api/v1/recovery": reading(overview.recovery),
            "/api/v1/config": self._effective,
        }
        self._commands: dict[str, Handler] = {
            "/drain": self._drain,
            "/reload": self._reload,
            "/stop": self._stop,
            "/upgrade": self._upgrade,
            handover.PATH: self._take_over,
        }

        self._families: dict[str, Handler] = {orders.PREFIX: self._order, recovery_orders.PREFIX: self._recover}
        probes = config.probes.bind if config.probes else None
        places = Places("admin", config.bind, config.socket, config.token_file, probes)
        tables = Tables(self._probes, self._reads, self._commands, self._families, {orders.PREFIX: self._breaker})
        for part in parts:
            tables.add(part)
        self._doors = Doors(places, tables)

    async def start(self, inherit: Inherit = nothing, *, serve: bool = True) -> dict[Door, Address]:
        """Open the doors; return where they are (a port 0 resolved). ConfigError when one cannot be opened.

        `inherit` and `serve`: as `Doors.open` has them.
        """
        return await self._doors.open(inherit, serve=serve)

    async def serve(self) -> None:
        """Answer at doors that were opened without."""
        await self._doors.serve()

    def sockets(self) -> list[tuple[Place, int]]:
        """The doors that a successor can have, and the descriptors on which they listen."""
        listening, places = self._doors.listening(), self._doors.places()
        return [(("admin", door.value, places[door]), number) for door, number in listening.items()]

    def retire(self, left: Collection[Place]) -> None:
        """A successor answers; `left`: the places that it did not want."""
        self._doors.retire(keep_socket=all(door != Door.UNIX.value for _, door, _ in left))

    async def stop(self) -> None:
        """Close every door and connection."""
        await self._doors.close()

    async def _page(self, _request: Request) -> Response:
        return Response(200, page.render(await self._shown()).encode(), "text/html; charset=utf-8")

    async def _shown(self) -> dict[str, Any]:
        """The status as the page shows it."""
        return {**await self._overview.status(), "orders": self._takes_orders}

    async def _events(self, _request: Request) -> Response:
        if self._viewers >= MAX_VIEWERS:
            raise Refused(503, f"{MAX_VIEWERS} browsers follow already", ("retry-after", "10"))
        return Response(200, self._stream(), "text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        """What on the page changed, and the plots' new points; an empty piece when there is nothing."""
        self._viewers += 1
        follower, drawn = page.Follower(), 0
        try:
            sight = await self._lookout.after(None)
            yield f"retry: 2000\nevent: version\ndata: {sight.version}\n\n".encode()
            while True:
                parts = follower.news(sight)
                yield b"event: parts\ndata: " + msgspec.json.encode(parts) + b"\n\n" if parts else b""
                points = self._overview.history(drawn)
                if points:
                    drawn = int(points[-1][0] or 0)
                    yield b"event: points\ndata: " + msgspec.json.encode(points) + b"\n\n"
                sight = await self._lookout.after(sight)
        finally:
            self._viewers -= 1

    async def _effective(self, _request: Request) -> Response:
        return as_json(self._overview.config())

    async def _breaker(self, request: Request) -> Response:
        name = request.path.removeprefix(orders.PREFIX)
        known = {one["name"]: one for one in await self._overview.breakers()}
        if name in known:
            return as_json(known[name])
        if name.rpartition("/")[2] in orders.ACTIONS:
            raise Refused(405, "changes are made by POST", ("allow", "POST"))
        raise Refused(404, f"there is no breaker {name[:100]!r}; there are: {', '.join(known) or 'none'}")

    async def _order(self, request: Request) -> Response:
        try:
            name, action, said = orders.parse_order(request.path, request.body)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        message = await self._program.order(name, action, said)
        return as_json({"ok": True, "message": message})

    async def _recover(self, request: Request) -> Response:
        try:
            order = recovery_orders.parse_order(request.path, request.body)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        return as_json({"ok": True, "message": await self._program.recover(order)})

    async def _drain(self, _request: Request) -> Response:
        await self._program.drain()
        return as_json({"ok": True, "message": "draining: not ready any more, still serving"})

    async def _reload(self, _request: Request) -> Response:
        result = await self._program.reload()
        return as_json(
            {"ok": result.ok, "message": result.message, "changes": result.changes}, 200 if result.ok else 422
        )

    async def _stop(self, _request: Request) -> Response:
        await self._program.stop()
        return as_json({"ok": True, "message": "stopping: what runs may finish"})

    async def _upgrade(self, _request: Request) -> Response:
        return as_json({"ok": True, "message": await self._program.upgrade()})

    async def _take_over(self, request: Request) -> Response:
        if request.door is not Door.UNIX:
            raise Refused(403, "sockets can be handed over through the Unix socket only")
        if request.fields.get("upgrade", "").lower() != handover.UPGRADE:
            raise Refused(400, "this is for a successor: start it by sidecar upgrade, or sidecar run --take-over")
        self._program.may_be_taken_over()
        fields = (("connection", "upgrade"), ("upgrade", handover.UPGRADE))
        return Response(101, fields=fields, switch=self._program.hand_over)


def _asset(content: bytes, content_type: str) -> Handler:
    async def answer(_request: Request) -> Response:
        return Response(200, content, content_type)

    return answer
