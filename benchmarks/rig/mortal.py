"""The upstream that is made to fail: answers 1 KiB, until it is told to be sick, or is killed.

`python -m benchmarks.rig.mortal PORT LEDGER` serves on 127.0.0.1. `GET /be/MODE` changes how every other request is
answered from then on: `well` 200, `errors` 503, `resets` a connection reset instead of an answer. What reaches it
while it is sick is written into the file LEDGER, a line with the time (CLOCK_MONOTONIC, seconds) for each request: the
upstream's own testimony of what a breaker let through.
"""

import asyncio
import os
import socket
import struct
import sys
import time
from typing import cast

import uvloop

BODY = b"k" * 1024
_DATE = b"Date: Sun, 01 Jun 2025 00:00:00 GMT\r\nServer: mortal\r\nContent-Type: application/json\r\n"
_WELL = b"HTTP/1.1 200 OK\r\n" + _DATE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
_SICK = b"HTTP/1.1 503 Service Unavailable\r\n" + _DATE + b"Content-Length: 5\r\n\r\nsick\n"
_OBEYED = b"HTTP/1.1 204 No Content\r\n" + _DATE + b"\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: closing resets


class _State:
    def __init__(self, ledger: int) -> None:
        self.mode = "well"
        self.ledger = ledger


class _Mortal(asyncio.Protocol):
    """One connection; requests have no bodies and are answered as they come."""

    def __init__(self, state: _State) -> None:
        self.state = state
        self.transport: asyncio.Transport
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry

    def data_received(self, data: bytes) -> None:
        self.head += data
        while (end := self.head.find(b"\r\n\r\n")) >= 0:
            head, self.head = self.head[:end], self.head[end + 4 :]
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        state = self.state
        if path.startswith("/be/"):
            state.mode = path.removeprefix("/be/")
            self.transport.write(_OBEYED)
        elif state.mode == "well":
            self.transport.write(_WELL)
        else:
            os.write(state.ledger, b"%.6f\n" % time.monotonic())
            if state.mode == "errors":
                self.transport.write(_SICK)
            else:
                held: socket.socket = self.transport.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self.transport.abort()


async def _serve(port: int, ledger: str) -> None:
    state = _State(os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    await asyncio.get_running_loop().create_server(lambda: _Mortal(state), "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
