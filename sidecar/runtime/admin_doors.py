"""The doors of a program: through which of them what may be asked and commanded, and by whom.

Theory. Three doors. The Unix socket (mode 0600) may ask and command. The TCP address may ask; it may command
only with the bearer token. The probes' address, open to the pod's network, sees probes and metrics and nothing else.
A command is always a POST. A browser that was lured here is stopped three times: by the Host (a rebound DNS name is
neither an IP address nor ours), by the Origin, and by the token that it does not have.

What is answered is the program's own affair: it hands in its tables. Proxy and agent both stand behind these doors.
"""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import msgspec

from sidecar.config.address import Address, parse_address
from sidecar.runtime.admin_http import AdminServer, Door, Request, Response
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Snapshot

MAX_TOKEN = 4096

_log = Log(__name__)

Handler = Callable[[Request], Awaitable[Response]]


Inherit = Callable[[Door, str], socket.socket | None]


def nothing(_door: Door, _address: str) -> socket.socket | None:
    """Nothing is inherited."""
    return None


class Refused(Exception):
    """A request that is not let through; carries the answer."""

    def __init__(self, status: int, advice: str, *fields: tuple[str, str]) -> None:
        super().__init__(advice)
        self.response = Response(status, f"{advice}\n".encode(), fields=fields)


@dataclass(frozen=True, slots=True)
class Tables:
    """What there is behind the doors, by path. They are looked into at each request, so an owner may change them."""

    probes: dict[str, Handler]
    """For everybody, at every door."""
    reads: dict[str, Handler]
    """For the socket and TCP; the probes stand here too."""
    commands: dict[str, Handler]
    """By POST, for the socket and whoever has the token."""
    families: dict[str, Handler]
    """Commands by what their path begins with."""
    shelves: dict[str, Handler] = field(default_factory=dict)
    """Reads by what their path begins with; they may share it with a family."""

    def add(self, more: "Tables") -> None:
        """Take in what a part of the program answers itself."""
        for mine, theirs in (
            (self.probes, more.probes),
            (self.reads, more.reads),
            (self.commands, more.commands),
            (self.families, more.families),
            (self.shelves, more.shelves),
        ):
            mine.update(theirs)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the doors are to be; `key` is the configuration's, for messages: `admin`, `backup.admin`."""

    key: str
    bind: str
    socket: str
    token_file: str | None = None
    probes: str | None = None


class Doors:
    """The doors of one program."""

    def __init__(self, places: Places, tables: Tables) -> None:
        self._places = places
        self._tables = tables
        self._server = AdminServer(self.answer, key=places.key)
        self._bound_host = ""

    async def open(self, inherit: Inherit = nothing, *, serve: bool = True) -> dict[Door, Address]:
        """Open them; return where they are (a port 0 resolved). ConfigError when one cannot be opened.

        `inherit(door, address)`: a listening socket that is there already; not `serve`: nobody is answered yet.
        """
        bound = {}
        try:
            for door, text in self.places().items():
                address = Address(path=text) if door is Door.UNIX else parse_address(text, ephemeral=True)
                if door is Door.TCP:
                    self._bound_host = address.host
                bound[door] = await self._server.listen(door, address, inherit(door, text), serve=serve)
                _log.info("admin_bound", door=door.value, bind=str(bound[door]))
        except BaseException:
            await self._server.close()
            raise
        return bound

    def places(self) -> dict[Door, str]:
        """Where each door is, as the configuration says it."""
        places = self._places
        doors = {Door.UNIX: places.socket, Door.TCP: places.bind}
        return doors if places.probes is None else {**doors, Door.PROBES: places.probes}

    async def serve(self) -> None:
        """Answer at doors that were opened without."""
        await self._server.serve()

    def listening(self) -> dict[Door, int]:
        """The descriptor on which each door listens."""
        found = {door: self._server.listening(door) for door in Door}
        return {door: number for door, number in found.items() if number is not None}

    def retire(self, *, keep_socket: bool) -> None:
        """A successor has the doors: listen no more. `keep_socket`: it has our Unix socket, too, so leave the file."""
        self._server.retire(keep_socket=keep_socket)

    async def close(self) -> None:
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
        tables, outside = self._tables, request.door is Door.PROBES
        command = None if outside else self._command(request.path)
        shelf = None if outside or request.method == "POST" else _by_prefix(tables.shelves, request.path)
        if command is not None and shelf is None:
            if request.method != "POST":
                raise Refused(405, "changes are made by POST", ("allow", "POST"))
            self._authorize(request)
            if request.query:  # refused, not ignored: it was to mean something
                raise Refused(400, "a change takes no query; what it is to say stands in its body, as JSON")
            return command
        reads = tables.probes if outside else tables.reads
        if request.path not in reads and shelf is None:
            page = ", /" if not outside and "/" in reads else ""
            raise Refused(404, f"nothing here; see {', '.join(tables.probes)}{page}")
        if request.method not in {"GET", "HEAD"}:
            raise Refused(405, "this is read by GET", ("allow", "GET, HEAD"))
        return reads.get(request.path) or shelf or reads[request.path]

    def _command(self, path: str) -> Handler | None:
        tables = self._tables
        if path in tables.commands:
            return tables.commands[path]
        return _by_prefix(tables.families, path)

    def _check_host(self, request: Request) -> None:
        """Refuse a name that is not ours: a web page whose name was rebound to this address (DNS rebinding)."""
        host = request.fields.get("host")  # absent only in HTTP/1.0, which no browser speaks
        name = "" if host is None else _hostname(host)
        if host is not None and name not in {"localhost", self._bound_host.lower()} and not _is_ip(name):
            raise Refused(403, f"the Host must be an IP address, localhost or the name in {self._places.key}.bind")

    def _authorize(self, request: Request) -> None:
        """Let a command pass over the Unix socket, or with the token."""
        if request.door is Door.UNIX:
            return
        key, token_file = self._places.key, self._places.token_file
        if token_file is None:
            raise Refused(403, f"changes over TCP need {key}.token_file; use the Unix socket, as the commands do")
        token = _read_token(token_file, f"{key}.token_file")
        scheme, _, given = request.fields.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(given.strip().encode("latin-1"), token)
        if scheme.lower() != "bearer" or not matches:
            raise Refused(
                401,
                "needed: Authorization: Bearer, with what admin.token_file holds now",
                ("www-authenticate", 'Bearer realm="sidecar"'),
            )


# What handlers are made of --------------------------------------------------------------------------------------------


def probe(question: Callable[[], bool], otherwise: str) -> Handler:
    """200 while `question()` holds, else 503 that says `otherwise`."""

    async def answer(_request: Request) -> Response:
        return Response(200, b"ok\n") if question() else Response(503, f"{otherwise}\n".encode())

    return answer


def reading(ask: Callable[[], Awaitable[Any]]) -> Handler:
    """What `ask` says, as JSON."""

    async def answer(_request: Request) -> Response:
        return as_json(await ask())

    return answer


def as_json(data: Any, status: int = 200) -> Response:
    """`data` as an answer."""
    return Response(status, msgspec.json.encode(data) + b"\n", "application/json")


def metrics(snapshot: Callable[[], Awaitable[Snapshot]]) -> Handler:
    """The numbers as Prometheus reads them; one scrape at a time: a crowd gets no more of the loop than one."""
    rendering = asyncio.Lock()

    async def answer(request: Request) -> Response:
        # loaded for the first scrape, beside the loop: the start does not wait for it
        exposition = await asyncio.to_thread(import_module, "sidecar.runtime.exposition")
        as_openmetrics = exposition.wants_openmetrics(request.fields.get("accept", ""))
        async with rendering:
            text = await exposition.render_gently(await snapshot(), as_openmetrics=as_openmetrics)
        return Response(200, text, exposition.OPENMETRICS if as_openmetrics else exposition.TEXT)

    return answer


# The checks -----------------------------------------------------------------------------------------------------------


def _by_prefix(table: dict[str, Handler], path: str) -> Handler | None:
    return next((handler for prefix, handler in table.items() if path.startswith(prefix)), None)


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


def _read_token(path: str, key: str) -> bytes:
    """The token, read anew each time so that it can be rotated. An unreadable or empty file lets nobody in."""
    try:
        with open(path, "rb") as file:
            token = file.read(MAX_TOKEN).strip()
    except OSError as error:
        _log.warning("admin_token_unreadable", every=60.0, path=path, reason=error.strerror)
        token = b""
    if not token:
        raise Refused(403, f"{key} cannot be read or is empty")
    return token
