"""HTTP: one GET, judged by its status and, when asked for, by a text in its body.

HTTP/1.1 read by h11. The head decides: without `contains` the body is not read. A redirect is an answer like any
other and is not followed, so there is no way to be sent round in circles. Interim answers (1xx) are passed over.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Set

import h11

from sidecar import __version__
from sidecar.config.address import Address
from sidecar.control.probes.probe import ProbeFailure, read_secret
from sidecar.control.probes.stream import READ_BYTES, Stream, TooMuch, dial
from sidecar.runtime.calling import Calling

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HttpProbe:
    """Asks `target` for `path`. `tls` makes the context, in a thread; absent: plain."""

    def __init__(
        self,
        target: Address,
        *,
        authority: str,
        path: str,
        expect: Set[int],
        contains: str | None = None,
        headers: Mapping[str, str] | None = None,
        token_file: str | None = None,
        tls: Callable[[], ssl.SSLContext | Calling | None] | None = None,
        without: bytes | None = None,
    ) -> None:
        """`without`: a header field, in lower case, that no good answer has."""
        self._target = target
        self._path = path
        self._expect = expect
        self._contains = None if contains is None else contains.encode()
        self._token_file = token_file
        self._tls = tls
        self._without = without
        own = {"host": authority, "connection": "close", "accept": "*/*", "user-agent": f"sidecar/{__version__}"}
        own |= {name.lower(): value for name, value in (headers or {}).items()}
        self._fields = [(name.encode(), value.encode()) for name, value in own.items()]

    async def __call__(self) -> str:
        fields = self._fields
        if self._token_file is not None:
            fields = [*fields, (b"authorization", b"Bearer " + read_secret(self._token_file).encode())]
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
        try:
            request = connection.send(h11.Request(method="GET", target=self._path, headers=fields))
        except h11.LocalProtocolError:
            raise ProbeFailure("what is to be sent is not HTTP: look at headers and token_file") from None
        request += connection.send(h11.EndOfMessage()) or b""
        context = None if self._tls is None else await asyncio.to_thread(self._tls)
        async with dial(self._target, context) as stream:
            await stream.send(request)
            try:
                return await self._judge(connection, stream)
            except h11.RemoteProtocolError:
                raise ProbeFailure("answered what is not HTTP") from None

    async def _judge(self, connection: h11.Connection, stream: Stream) -> str:
        while not isinstance(event := await _next(connection, stream), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise ProbeFailure("answered what is not HTTP")
        status = event.status_code
        if status not in self._expect:
            redirect = ", a redirect, which is not followed" if status in _REDIRECTS else ""
            raise ProbeFailure(f"answered {status}{redirect}")
        unwanted = next((value for name, value in event.headers if name == self._without), None)
        if unwanted is not None:
            raise ProbeFailure(f"answered {status}: {unwanted.decode('latin-1')[:50]}")
        if self._contains is not None:
            await self._search(self._contains, connection, stream)
        return f"answered {status}"

    async def _search(self, wanted: bytes, connection: h11.Connection, stream: Stream) -> None:
        body = bytearray()
        try:
            while isinstance(event := await _next(connection, stream), h11.Data):
                begin = max(0, len(body) - len(wanted))
                body += event.data
                if body.find(wanted, begin) >= 0:
                    return
        except TooMuch:
            raise ProbeFailure("the expected text is not in the body's first 60 KiB") from None
        raise ProbeFailure("the expected text is not in the body")


async def _next(connection: h11.Connection, stream: Stream) -> object:
    """What the target says next."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        data = await stream.some()
        connection.receive_data(data)
        if not data:
            try:
                return connection.next_event()  # the end of a body that ends with the connection
            except h11.RemoteProtocolError:
                raise ProbeFailure("hung up before its answer was whole") from None
    return event
