"""The floor: a relay of bytes in uvloop that knows nothing of HTTP, one connection there for each one here.

`python -m benchmarks.rig.relay LISTEN=TARGET …` relays each 127.0.0.1:LISTEN to 127.0.0.1:TARGET. What it costs is what
an event loop in Python costs before any decision is made; the distance from it to the proxy is the proxy's own work.
"""

import asyncio
import sys
from functools import partial
from typing import cast

import uvloop


class _Side(asyncio.Protocol):
    """One end of a relayed connection; what arrives before the other end stands is kept."""

    def __init__(self, target: int | None) -> None:
        self.target = target
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.early: list[bytes] = []
        self.connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry
        self.transport.set_write_buffer_limits(high=256 * 1024)
        if self.target is not None:
            self.connecting = asyncio.get_running_loop().create_task(self._connect(self.target))

    async def _connect(self, target: int) -> None:
        _, other = await asyncio.get_running_loop().create_connection(lambda: _Side(None), "127.0.0.1", target)
        self.other, other.other = other, self
        assert other.transport is not None
        other.transport.writelines(self.early)
        self.early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self.transport = None


async def _serve(pairs: list[tuple[int, int]]) -> None:
    loop = asyncio.get_running_loop()
    for listen, target in pairs:
        await loop.create_server(partial(_Side, target), "127.0.0.1", listen, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve([(int(a), int(b)) for a, _, b in (pair.partition("=") for pair in sys.argv[1:])]))
