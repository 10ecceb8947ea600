"""Load for tunnels: connections that send 1 KiB and wait for 1 KiB to come back, again and again.

`python -m benchmarks.rig.tunnel websocket|tcp PORT CONNECTIONS SECONDS` prints, as JSON, the number of `messages` that
came back, `seconds`, `p50_us`, `p99_us` and `errors`.
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

from benchmarks.rig.client import await_go, percentile
from benchmarks.rig.routes import WEBSOCKET, request
from benchmarks.rig.tunnel_frames import CLIENT_FRAME, SERVER_FRAME

_UPGRADE = request("GET", WEBSOCKET, connection="Upgrade").removesuffix(b"\r\n") + (
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_BARE = b"m" * 1024


class _Run:
    """What all connections share: the word to stop, and what was measured."""

    def __init__(self) -> None:
        self.going = True
        self.messages = 0
        self.errors = 0
        self.taken: list[float] = []


class _Pinger(asyncio.Protocol):
    def __init__(self, run: _Run, websocket: bool) -> None:
        self.run = run
        self.opening = websocket
        self.message, self.expected = (CLIENT_FRAME, len(SERVER_FRAME)) if websocket else (_BARE, len(_BARE))
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing = 0
        self.sent_at = 0.0
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.opening:
            self.transport.write(_UPGRADE)
        else:
            self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.opening:
            self.head += data
            if not self.head.endswith(b"\r\n\r\n"):
                return
            self.opening = False
            if self.head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_result(None)
            else:
                self.opened.set_exception(RuntimeError(f"no tunnel: {self.head[:80]!r}"))
            return
        self.missing -= len(data)
        if self.missing < 0:
            self.run.errors += 1
        if self.missing <= 0:
            self.run.messages += 1
            self.run.taken.append(time.perf_counter() - self.sent_at)
            if self.run.going:
                self.ping()

    def ping(self) -> None:
        self.missing = self.expected
        self.sent_at = time.perf_counter()
        self.transport.write(self.message)

    def connection_lost(self, _: Exception | None) -> None:
        if self.run.going:
            self.run.errors += 1


async def _load(kind: str, port: int, connections: int, seconds: float) -> dict[str, float]:
    run = _Run()
    loop = asyncio.get_running_loop()
    pingers: list[_Pinger] = []
    for _ in range(connections):
        _, pinger = await loop.create_connection(lambda: _Pinger(run, kind == "websocket"), "127.0.0.1", port)
        await asyncio.wait_for(pinger.opened, 5)
        pingers.append(pinger)
    for pinger in pingers:
        pinger.ping()
    await asyncio.sleep(0.3)
    await_go()
    run.messages, run.errors, run.taken = 0, run.errors, []
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    lasted = time.perf_counter() - started
    run.going = False
    messages, ordered = run.messages, sorted(run.taken)
    for pinger in pingers:
        pinger.transport.abort()
    return {
        "messages": messages,
        "seconds": lasted,
        "p50_us": percentile(ordered, 0.5) * 1e6,
        "p99_us": percentile(ordered, 0.99) * 1e6,
        "errors": run.errors,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))))
