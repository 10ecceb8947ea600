"""The origin that streams, and answers as cheaply as Python can: what it sends is rendered once.

`python -m benchmarks.rig.streams HTTP_PORT ECHO_PORT` serves on 127.0.0.1:

* `GET …/chunked`: sixteen chunks of 1 KiB, in one write;
* `PUT …/upload` with a Content-Length: swallows the body, then 200;
* `GET …/websocket` with Upgrade: 101, then one unmasked 1 KiB frame for every masked 1 KiB frame;
* `ECHO_PORT`: every byte comes back.

It trusts its clients, which are the proxies under test: heads arrive whole or are collected up to the blank line.
"""

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.rig.tunnel_frames import CLIENT_FRAME, SERVER_FRAME

_CHUNK = b"400\r\n" + b"c" * 1024 + b"\r\n"
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 01 Jun 2025 00:00:00 GMT\r\nServer: streams\r\n"
    b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNK * 16 + b"0\r\n\r\n"
)
_EMPTY = b"HTTP/1.1 200 OK\r\nDate: Sun, 01 Jun 2025 00:00:00 GMT\r\nServer: streams\r\nContent-Length: 0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class _Streams(asyncio.Protocol):
    """One connection: heads, then the bytes of an upload, or frames once it is a tunnel."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.head = b""
        self.upload_left = 0
        self.tunnel = False
        self.frame_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self._frames(len(data))
            return
        if self.upload_left:
            taken = min(self.upload_left, len(data))
            self.upload_left -= taken
            if not self.upload_left:
                self.transport.write(_EMPTY)
            if taken == len(data):
                return
            data = data[taken:]
        self.head += data
        while (end := self.head.find(b"\r\n\r\n")) >= 0:
            head, rest = self.head[:end], self.head[end + 4 :]
            self.head = b""
            path = head.split(b" ", 2)[1]
            if path.endswith(b"/chunked"):
                self.transport.write(_CHUNKED)
            elif path.endswith(b"/upload"):
                self.upload_left = _content_length(head)
                self.data_received(rest)
                return
            elif path.endswith(b"/websocket"):
                self.transport.write(_SWITCH)
                self.tunnel = True
                self._frames(len(rest))
                return
            else:
                self.transport.write(_NOT_FOUND)
            self.head = rest

    def _frames(self, received: int) -> None:
        self.frame_bytes += received
        whole, self.frame_bytes = divmod(self.frame_bytes, len(CLIENT_FRAME))
        if whole:
            self.transport.write(SERVER_FRAME * whole)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[start:].split(b"\r\n", 1)[0])


async def _serve(http_port: int, echo_port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(_Streams, "127.0.0.1", http_port, backlog=4096)
    await loop.create_server(_Echo, "127.0.0.1", echo_port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
