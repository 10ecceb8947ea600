"""The admin interface in a thread of its own, on the production's event loop, behind real sockets."""

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvloop

from sidecar.config.address import Address
from sidecar.config.document import Admin as AdminConfig
from sidecar.control.admin import Admin
from sidecar.runtime.admin_http import Door
from tests.fakes.program import FakeProgram


class UnixConnection(http.client.HTTPConnection):
    """An HTTP client over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


@dataclass
class Answer:
    """What came back."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Running:
    """An admin interface that runs."""

    program: FakeProgram
    admin: Admin
    doors: dict[Door, Address] = field(default_factory=dict)

    def ask(self, path: str, method: str = "GET", door: Door = Door.TCP, body: bytes | None = None, **fields) -> Answer:
        """Ask once over a fresh connection; fields are named with underscores for hyphens."""
        address = self.doors[door]
        if address.is_unix:
            connection: http.client.HTTPConnection = UnixConnection(address.path)
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
        with contextlib.closing(connection):
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def connect(self, door: Door = Door.TCP) -> socket.socket:
        """A bare connection."""
        address = self.doors[door]
        if address.is_unix:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(address.path)
        else:
            sock = socket.create_connection((address.host, address.port))
        sock.settimeout(20)
        return sock


def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the other side closes or resets."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            received += piece
    return bytes(received)


@contextlib.contextmanager
def running(config: AdminConfig) -> Iterator[Running]:
    """Start an admin interface for a fake program; stop it at the end."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    program = FakeProgram()

    async def start() -> Running:
        return Running(program, Admin(config, program, program))

    try:
        one = run(start())
        one.doors = run(one.admin.start())
        yield one
        run(one.admin.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
