"""The admin interface: what may be asked of the running program, by whom, and what it answers.

Theory. Three doors lead here. The Unix socket (mode 0600) may ask and command. The TCP address may ask; it may command
only with the bearer token. The probes' address, open to the pod's network, sees probes and metrics and nothing else.
A command is always a POST. A browser that was lured here is stopped three times: by the Host (a rebound DNS name is
neither an IP address nor ours), by the Origin, and by the token that it does not have.

The program itself is behind the port `Program`; this module knows HTTP, not proxies.
"""

import asyncio
import contextlib
import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import Any, Protocol

import msgspec

from sidecar.config.address import Address, parse_address
from sidecar.config.document import Admin as AdminConfig
from sidecar.control import orders, page
from sidecar.control.admin_http import AdminServer, Door, Request, Response
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Snapshot

MAX_VIEWERS = 8
"""Browsers that may follow the live status at once."""
EVENT_INTERVAL = 1.0
"""Seconds between two looks for those who follow the page; what happens is seen at once."""
EVENT_GAP = 0.1
"""Seconds between two looks at least, whatever happens."""
MAX_TOKEN = 4096

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of a reload. `message` is for people; `changes` names what changed, one sentence each."""

    ok: bool
    message: str
    changes: list[str] = field(default_factory=list)


class Program(Protocol):
    """What the admin interface needs of the program. Everything returned is JSON-shaped and free of secrets."""

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
        requests_total}], breakers as `breakers` has them, dependencies as `health` has them, fallbacks [{upstream,
        tier, total, per_second}], traffic {requests_total, rps, errors_total, inflight, p50_ms, p99_ms}. `match` is
        a sentence; `at`, `loaded_at` and the like are UTC in ISO form; a figure that is not known is null.
        """
        ...

    async def breakers(self) -> list[dict[str, Any]]: ...

    async def order(self, name: str, action: str, said: orders.Body) -> str:
        """Open, close or reset a breaker by hand; what was done, in a sentence. Raises Refused."""
        ...

    async def health(self) -> list[dict[str, Any]]: ...

    async def registry(self) -> list[dict[str, Any]]: ...

    def config(self) -> dict[str, Any]:
        """The effective configuration, defaults filled in; `*_file` keys hold paths, never contents."""
        ...

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

    async def drain(self) -> None:
        """Become not ready and let clients move on; goes on serving. Idempotent."""
        ...

    async def reload(self) -> ReloadResult:
        """Read the configuration again; a bad one changes nothing."""
        ...

    async def stop(self) -> None:
        """Begin to stop, as SIGTERM does; returns at once."""
        ...

    async def news(self, seen: int) -> int:
        """How much has happened so far, once it is more than `seen`."""
        ...


class Refused(Exception):
    """A request that is not let through; carries the answer."""

    def __init__(self, status: int, advice: str, *fields: tuple[str, str]) -> None:
        super().__init__(advice)
        self.response = Response(status, f"{advice}\n".encode(), fields=fields)


Handler = Callable[[Request], Awaitable[Response]]


class Admin:
    """The three doors of one program."""

    def __init__(self, config: AdminConfig, program: Program) -> None:
        self._program = program
        self._token_file = config.token_file
        self._config = config
        self._bound_host = ""
        self._server = AdminServer(self.answer)
        self._viewers = 0
        self._rendering = asyncio.Lock()  # one scrape at a time: a crowd of scrapers gets no more of the loop than one
        self._probes: dict[str, Handler] = {
            "/livez": _probe(program.live, "the event loop does not turn"),
            "/readyz": _probe(program.ready, "not ready: starting, or draining"),
            "/healthz": _probe(program.ready, "not ready: starting, or draining"),
            "/startupz": _probe(program.started, "still starting"),
            "/livez/service": _probe(program.service_live, "recovery wants the service restarted"),
            "/metrics": self._metrics,
        }
        self._reads: dict[str, Handler] = {
            **self._probes,
            "/": self._page,
            **{path: _asset(*asset) for path, asset in page.assets().items()},
            "/events": self._events,
            "/api/v1/status": _json(program.status),
            "/api/v1/breakers": _json(program.breakers),
            "/api/v1/health": _json(program.health),
            "/api/v1/registry": _json(program.registry),
            "/api/v1/config": self._effective,
            "/api/v1/incidents": _json(_none_yet),
            "/api/v1/backups": _json(_none_yet),
        }
        self._commands: dict[str, Handler] = {
            "/drain": self._drain,
            "/reload": self._reload,
            "/stop": self._stop,
        }

    async def start(self) -> dict[Door, Address]:
        """Open the doors; return where they are (a port 0 resolved). ConfigError when one cannot be opened."""
        doors = {
            Door.UNIX: Address(path=self._config.socket),
            Door.TCP: parse_address(self._config.bind, ephemeral=True),
        }
        if self._config.probes is not None:
            doors[Door.PROBES] = parse_address(self._config.probes.bind, ephemeral=True)
        self._bound_host = doors[Door.TCP].host
        bound = {}
        try:
            for door, address in doors.items():
                bound[door] = await self._server.listen(door, address)
                _log.info("admin_bound", door=door.value, bind=str(bound[door]))
        except BaseException:
            await self._server.close()
            raise
        return bound

    async def stop(self) -> None:
        """Close every door and connection."""
        await self._server.close()

    async def answer(self, request: Request) -> Response:
        """Answer one request, refusals included."""
        try:
            return await self._handler(request)(request)
        except Refused as refused:
            return refused.response

    def _handler(self, request: Request) -> Handler:
        """The handler that this request may reach; raises Refused."""
        if request.door is Door.TCP:
            self._check_host(request)
        _check_origin(request)
        reads = self._probes if request.door is Door.PROBES else self._reads
        commands = {} if request.door is Door.PROBES else self._commands
        if request.path in commands:
            if request.method != "POST":
                raise Refused(405, "changes are made by POST", ("allow", "POST"))
            self._authorize(request)
            return commands[request.path]
        if commands and request.path.startswith(orders.PREFIX):
            if request.method != "POST":
                raise Refused(405, "changes are made by POST", ("allow", "POST"))
            self._authorize(request)
            return self._order
        if request.path not in reads:
            raise Refused(404, f"nothing here; see {', '.join(self._probes)}" + (", /" if commands else ""))
        if request.method not in {"GET", "HEAD"}:
            raise Refused(405, "this is read by GET", ("allow", "GET, HEAD"))
        return reads[request.path]

    def _check_host(self, request: Request) -> None:
        """Refuse a name that is not ours: a web page whose name was rebound to this address (DNS rebinding)."""
        host = request.fields.get("host")  # absent only in HTTP/1.0, which no browser speaks
        name = "" if host is None else _hostname(host)
        if host is not None and name not in {"localhost", self._bound_host.lower()} and not _is_ip(name):
            raise Refused(403, "the Host must be an IP address, localhost or the name in admin.bind")

    def _authorize(self, request: Request) -> None:
        """Let a command pass over the Unix socket, or with the token."""
        if request.door is Door.UNIX:
            return
        if self._token_file is None:
            raise Refused(
                403, "changes over TCP need admin.token_file; use the Unix socket (sidecar drain, reload, stop)"
            )
        token = _read_token(self._token_file)
        scheme, _, given = request.fields.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(given.strip().encode("latin-1"), token)
        if scheme.lower() != "bearer" or not matches:
            raise Refused(401, "a valid bearer token is needed", ("www-authenticate", 'Bearer realm="sidecar"'))

    async def _metrics(self, request: Request) -> Response:
        # loaded for the first scrape, beside the loop: the start does not wait for it
        exposition = await asyncio.to_thread(import_module, "sidecar.runtime.exposition")
        as_openmetrics = exposition.wants_openmetrics(request.fields.get("accept", ""))
        async with self._rendering:
            text = await exposition.render_gently(await self._program.metrics(), as_openmetrics=as_openmetrics)
        return Response(200, text, exposition.OPENMETRICS if as_openmetrics else exposition.TEXT)

    async def _page(self, _request: Request) -> Response:
        return Response(200, page.render(await self._program.status()).encode(), "text/html; charset=utf-8")

    async def _events(self, _request: Request) -> Response:
        if self._viewers >= MAX_VIEWERS:
            raise Refused(503, f"{MAX_VIEWERS} browsers follow already", ("retry-after", "10"))
        return Response(200, self._stream(), "text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        """The page's parts whenever they changed; an empty piece when none did."""
        self._viewers += 1
        follower = page.Follower()
        try:
            seen = await self._program.news(-1)
            status = await self._program.status()
            yield f"retry: 2000\nevent: version\ndata: {status['version']}\n\n".encode()
            while True:
                parts = follower.changed(status, monotonic())
                yield b"event: parts\ndata: " + msgspec.json.encode(parts) + b"\n\n" if parts else b""
                seen = await self._next_look(seen)
                status = await self._program.status()
        finally:
            self._viewers -= 1

    async def _next_look(self, seen: int) -> int:
        """Wait for the next look at everything, or until more has happened than what was `seen`; how much that is."""
        await asyncio.sleep(EVENT_GAP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENT_INTERVAL - EVENT_GAP):
                return await self._program.news(seen)
        return seen

    async def _effective(self, _request: Request) -> Response:
        return _as_json(self._program.config())

    async def _order(self, request: Request) -> Response:
        try:
            name, action, said = orders.parse_order(request.path, request.body)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        message = await self._program.order(name, action, said)
        return _as_json({"ok": True, "message": message})

    async def _drain(self, _request: Request) -> Response:
        await self._program.drain()
        return _as_json({"ok": True, "message": "draining: not ready any more, still serving"})

    async def _reload(self, _request: Request) -> Response:
        result = await self._program.reload()
        return _as_json(
            {"ok": result.ok, "message": result.message, "changes": result.changes}, 200 if result.ok else 422
        )

    async def _stop(self, _request: Request) -> Response:
        await self._program.stop()
        return _as_json({"ok": True, "message": "stopping: what runs may finish"})


def _probe(question: Callable[[], bool], otherwise: str) -> Handler:
    async def answer(_request: Request) -> Response:
        return Response(200, b"ok\n") if question() else Response(503, f"{otherwise}\n".encode())

    return answer


def _json(ask: Callable[[], Awaitable[Any]]) -> Handler:
    async def answer(_request: Request) -> Response:
        return _as_json(await ask())

    return answer


def _asset(content: bytes, content_type: str) -> Handler:
    async def answer(_request: Request) -> Response:
        return Response(200, content, content_type)

    return answer


def _as_json(data: Any, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(data) + b"\n", "application/json")


async def _none_yet() -> list[dict[str, Any]]:
    return []


def _check_origin(request: Request) -> None:
    """Refuse what a page of another origin asks for, be it only to read (RFC 6454; `null` is another origin)."""
    origin = request.fields.get("origin")
    if origin is not None and origin.lower() != f"http://{request.fields.get('host', '')}".lower():
        raise Refused(403, "the Origin must be this interface itself")


def _hostname(host: str) -> str:
    """The name in a Host field, without port, brackets and case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_token(path: str) -> bytes:
    """The token, read anew each time so that it can be rotated. An unreadable or empty file lets nobody in."""
    try:
        with open(path, "rb") as file:
            token = file.read(MAX_TOKEN).strip()
    except OSError as error:
        _log.warning("admin_token_unreadable", every=60.0, path=path, reason=error.strerror)
        token = b""
    if not token:
        raise Refused(403, "admin.token_file cannot be read or is empty")
    return token
