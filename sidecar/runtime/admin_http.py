"""The admin interface's HTTP server: small, on h11 and asyncio streams, and bounded in every direction.

Theory. It serves a handful of clients: the kubelet, Prometheus, an operator's browser, our own CLI. It shares the event
loop with the traffic, so nobody may make it hold much or wait long: heads, bodies, connections and times have limits,
and whoever passes one is closed. When a door (a listening address) is full, the connection that has waited longest
without a request makes room, so idle strangers cannot keep the kubelet out.

It knows nothing of what is asked; `admin_doors.py` decides who may, and the program answers. An answer may `switch`:
then the connection leaves HTTP, and whoever answered has it.

A successor inherits the listening sockets: it opens them unserved, and serves when it is its turn; the one before it
`retire`s, which leaves sockets and files to the successor.
"""

import asyncio
import contextlib
import enum
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import h11

from sidecar.base.errors import ConfigError
from sidecar.config.address import Address
from sidecar.runtime.admin_packing import packed
from sidecar.runtime.admin_socket import bind_unix, unbind_unix
from sidecar.runtime.logs import Log

MAX_HEAD = 16 * 1024
MAX_BODY = 64 * 1024
MAX_CONNECTIONS = 32
"""Per door."""
REQUEST_WITHIN = 10.0
"""Seconds for a whole request to arrive, the wait on a kept connection included."""
ANSWER_WITHIN = 30.0
WRITE_WITHIN = 10.0
"""Seconds that a client may take to make room for more of the answer."""
RETIRED_WITHIN = 0.5
"""Seconds in which a client that came before we retired may still ask."""
LINGER = 1.0
"""Seconds, and LINGER_READS the number of reads, that we still listen after an answer that ends the connection."""
LINGER_READS = 64
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", _POLICY),
)

_log = Log(__name__)


class Door(enum.Enum):
    """Where a request came in, and so what it may ask."""

    TCP = "tcp"
    PROBES = "probes"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, read whole. `fields` has lower-case names; of a repeated field, the values joined by a comma."""

    door: Door
    method: str
    path: str
    fields: dict[str, str]
    body: bytes = b""
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; a `body` that is an iterator is streamed, and an empty piece only asks whether the client is there."""

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    switch: Callable[[socket.socket], None] | None = None
    """With 101: takes the connection, and is responsible for it from then on."""


Answer = Callable[[Request], Awaitable[Response]]


class AdminServer:
    """Any number of doors, one `answer`."""

    def __init__(self, answer: Answer, *, key: str = "admin", request_within: float = REQUEST_WITHIN) -> None:
        """`key`: of the configuration, for messages."""
        self._answer = answer
        self._key = key
        self._request_within = request_within
        self._servers: dict[Door, asyncio.Server] = {}
        self._sockets: list[tuple[str, int]] = []
        self._inherited: list[tuple[str, int]] = []  # not ours before we serve
        self._retired = False
        self._streaming: set[asyncio.Task[None]] = set()
        self._open: dict[Door, set[asyncio.Task[None]]] = {door: set() for door in Door}
        self._waiting: dict[Door, dict[asyncio.Task[None], None]] = {door: {} for door in Door}

    async def listen(
        self, door: Door, address: Address, inherited: socket.socket | None = None, *, serve: bool = True
    ) -> Address:
        """Open a door; return the address as bound (port 0 becomes a real one). ConfigError when it cannot be.

        `inherited`: a listening socket that is there already; not `serve`: only bind, until `serve` is called.
        """

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(door, reader, writer)

        if address.is_unix:
            if inherited is None:
                sock, inode = bind_unix(address.path, f"{self._key}.socket")
                self._sockets.append((address.path, inode))
            else:
                sock, inode = inherited, os.stat(address.path).st_ino
                self._inherited.append((address.path, inode))
            self._servers[door] = await asyncio.start_unix_server(
                answer, sock=sock, limit=MAX_HEAD, start_serving=serve
            )
            return address
        try:
            if inherited is None:
                server = await asyncio.start_server(
                    answer, address.host, address.port, limit=MAX_HEAD, start_serving=serve
                )
            else:
                server = await asyncio.start_server(answer, sock=inherited, limit=MAX_HEAD, start_serving=serve)
        except OSError as error:
            raise ConfigError(
                f"{self._key}: cannot listen on {address}: {error.strerror or error}; "
                f"stop what holds it, or choose another address in {self._key}.bind"
            ) from None
        self._servers[door] = server
        return Address(host=address.host, port=server.sockets[0].getsockname()[1])

    async def serve(self) -> None:
        """Answer at the doors that were opened without."""
        self._sockets += self._inherited
        self._inherited.clear()
        for server in self._servers.values():
            await server.start_serving()

    def listening(self, door: Door) -> int | None:
        """The descriptor on which a door listens."""
        server = self._servers.get(door)
        return None if server is None or not server.sockets else server.sockets[0].fileno()

    def retire(self, *, keep_socket: bool) -> None:
        """Listen no more: a successor does. What is being answered goes on. `keep_socket`: the file is now its own."""
        for server in self._servers.values():
            server.close()
        if keep_socket:
            self._sockets.clear()
        self._retired = True
        for task in self._streaming:
            task.cancel()  # a browser that follows comes again

    async def close(self) -> None:
        """Close every door and every connection."""
        for server in self._servers.values():
            server.close()
        tasks = set().union(*self._open.values())
        if self._retired and tasks:
            await asyncio.wait(tasks, timeout=RETIRED_WITHIN)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=WRITE_WITHIN)
        for path, inode in self._sockets:
            unbind_unix(path, inode)
        self._servers.clear()
        self._sockets.clear()

    async def _serve(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not self._make_room(door):
            _log.warning("admin_full", every=60.0, about=door.value, door=door.value, connections=MAX_CONNECTIONS)
            writer.transport.abort()
            return
        self._open[door].add(task)
        try:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
            while await self._exchange(door, connection, reader, writer):
                connection.start_next_cycle()
            if connection.our_state is h11.SWITCHED_PROTOCOL:
                return
            if connection.their_state is not h11.CLOSED:
                await _linger(reader, writer)
            await _finish(writer)
        except (TimeoutError, OSError, h11.ProtocolError, asyncio.CancelledError):
            pass  # too slow, gone, or told to go: nothing is left to say to this client
        except Exception as error:  # noqa: BLE001 - a fault of ours here must not reach the event loop
            _log.error("admin_connection_failed", every=60.0, error=error)
        finally:
            self._open[door].discard(task)
            self._waiting[door].pop(task, None)
            self._streaming.discard(task)
            writer.transport.abort()

    def _make_room(self, door: Door) -> bool:
        if len(self._open[door]) < MAX_CONNECTIONS:
            return True
        oldest = next(iter(self._waiting[door]), None)
        if oldest is None:
            return False
        del self._waiting[door][oldest]
        self._open[door].discard(oldest)
        oldest.cancel()
        return True

    async def _exchange(
        self, door: Door, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one request, answer it, and say whether the connection can take another."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting[door][task] = None
        try:
            async with asyncio.timeout(self._request_within):
                request = await _read(door, connection, reader, writer)
        except h11.RemoteProtocolError as error:
            if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await _send(connection, writer, reader, Response(error.error_status_hint, f"{error}\n".encode()), "GET")
            return False
        finally:
            self._waiting[door].pop(task, None)
        if request is None:
            return False
        if len(request.body) > MAX_BODY:
            response = Response(413, b"the body is larger than 64 KiB\n")
        else:
            response = packed(request, await self._ask(request))
        if response.switch is not None:
            await _switch(connection, writer, response)
            return False
        if not isinstance(response.body, bytes):
            self._streaming.add(task)
        await _send(connection, writer, reader, response, request.method)
        return not self._retired and connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _ask(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._answer(request)
        except TimeoutError:
            return Response(504, b"the program did not answer in time\n")
        except Exception as error:  # noqa: BLE001 - told in the log, where people look for it
            _log.error("admin_request_failed", error=error, path=request.path)
            return Response(500, b"the answer failed; the log has the reason\n")


async def _read(
    door: Door, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """Read a request whole; None when the client closed. A body beyond MAX_BODY is cut behind the limit."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await reader.read(MAX_HEAD))
        elif isinstance(event, h11.Request):
            if event.http_version not in {b"1.0", b"1.1"}:
                raise h11.RemoteProtocolError("only HTTP/1.0 and 1.1 are spoken here", error_status_hint=505)
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None
        if head is not None and (isinstance(event, h11.EndOfMessage) or len(body) > MAX_BODY):
            fields: dict[str, str] = {}
            for raw_name, raw_value in head.headers:
                name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            path, _, query = head.target.decode("latin-1").partition("?")
            return Request(door, head.method.decode("latin-1"), path, fields, bytes(body), query)


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    reader: asyncio.StreamReader,
    response: Response,
    method: str,
) -> None:
    fields = [("date", formatdate(usegmt=True)), ("content-type", response.content_type), *HEADERS, *response.fields]
    if isinstance(response.body, bytes):
        fields.append(("content-length", str(len(response.body))))
    reason = HTTPStatus(response.status).phrase.encode()
    answer = h11.Response(status_code=response.status, headers=fields, reason=reason)
    if connection.their_state is not h11.DONE:
        answer = h11.Response(status_code=response.status, headers=[*fields, ("connection", "close")], reason=reason)
    writer.write(connection.send(answer) or b"")
    if method == "HEAD":
        pass
    elif isinstance(response.body, bytes):
        writer.write(connection.send(h11.Data(data=response.body)) or b"")
    else:
        async with contextlib.aclosing(response.body) as pieces:  # type: ignore[type-var]  # a generator, in fact
            async for piece in pieces:
                if reader.at_eof() or writer.is_closing():
                    raise ConnectionResetError
                if piece:
                    writer.write(connection.send(h11.Data(data=piece)) or b"")
                    await _drain(writer)
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await _drain(writer)


async def _switch(connection: h11.Connection, writer: asyncio.StreamWriter, response: Response) -> None:
    """Say 101 and hand the connection over. The client has asked and waits, so nothing of it is lost in our buffer."""
    assert response.switch is not None
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.transport.set_write_buffer_limits(0)  # drained means: nothing is left with us
    writer.write(
        connection.send(h11.InformationalResponse(status_code=response.status, headers=list(response.fields))) or b""
    )
    await _drain(writer)
    response.switch(socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())))


async def _drain(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(WRITE_WITHIN):
        await writer.drain()


async def _finish(writer: asyncio.StreamWriter) -> None:
    writer.close()
    async with asyncio.timeout(WRITE_WITHIN):
        await writer.wait_closed()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a client that still sends read our answer: closing over unread bytes would reset the connection."""
    writer.write_eof()
    try:
        async with asyncio.timeout(LINGER):
            for _ in range(LINGER_READS):
                if not await reader.read(MAX_HEAD):
                    break
    except TimeoutError:
        pass
