"""A connection of a probe: opened, bounded in bytes, always closed.

At most MAX_BYTES are taken from a target, in pieces of READ_BYTES; asyncio stops reading when nobody takes them. A
target that floods costs its probe a failure and nobody anything else.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from sidecar.config.address import Address
from sidecar.control.probes.probe import ProbeFailure
from sidecar.control.probes.resolve import resolve
from sidecar.runtime.calling import Calling

MAX_BYTES = 64 * 1024
READ_BYTES = 16 * 1024
GOODBYE_SECONDS = 0.2


class TooMuch(ProbeFailure):
    """The target sent MAX_BYTES and still was not done."""


class Stream:
    """Both directions of an open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = MAX_BYTES

    async def some(self, most: int = READ_BYTES) -> bytes:
        """What is there, at least a byte; empty: the target closed its side. Raises TooMuch."""
        if self._left <= 0:
            raise TooMuch(f"sent more than {MAX_BYTES // 1024} KiB")
        data = await self._reader.read(min(most, self._left))
        self._left -= len(data)
        return data

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises TooMuch, ProbeFailure when the target closes before."""
        if count > self._left:
            raise TooMuch(f"sent more than {MAX_BYTES // 1024} KiB")
        try:
            data = await self._reader.readexactly(count)
        except asyncio.IncompleteReadError:
            raise ProbeFailure("hung up in the middle of its answer") from None
        self._left -= count
        return data

    async def line(self) -> bytes:
        """The next line without its CRLF. Raises ProbeFailure when none ends within READ_BYTES."""
        try:
            data = await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError:
            raise ProbeFailure("hung up in the middle of its answer") from None
        except asyncio.LimitOverrunError:
            raise TooMuch(f"sent more than {READ_BYTES // 1024} KiB without a line's end") from None
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch(f"sent more than {MAX_BYTES // 1024} KiB")
        return data[:-2]

    async def send(self, data: bytes) -> None:
        """Send, waiting while the target does not take it."""
        self._writer.write(data)
        await self._writer.drain()

    async def start_tls(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """Go on encrypted. Raises ssl.SSLError."""
        await self._writer.start_tls(context, server_hostname=server_name)

    async def finish(self, last: bytes) -> None:
        """Say goodbye: send `last` and close, in order. A target that does not let us go is left soon."""
        self._writer.write(last)
        self._writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._writer.wait_closed()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def dial(target: Address, tls: ssl.SSLContext | Calling | None = None) -> AsyncIterator[Stream]:
    """A connection to `target`, closed at the end; a name's addresses are tried in turn. Raises OSError.

    With a context the certificate is verified for the target's host, as far as the context asks for it; with a
    `Calling` as the requests of its upstream verify it.
    """
    if isinstance(tls, Calling):
        reader, writer = await _open(target, tls.context, tls.name_for(target.host) or "")
        try:
            tls.check(writer.get_extra_info("ssl_object"))
        except ssl.SSLError:
            writer.transport.abort()
            raise
    else:
        reader, writer = await _open(target, tls, None if tls is None else target.host)
    stream = Stream(reader, writer)
    try:
        yield stream
    finally:
        stream.abort()


async def _open(
    target: Address, tls: ssl.SSLContext | None, name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.path:
        return await asyncio.open_unix_connection(target.path, limit=READ_BYTES, ssl=tls, server_hostname=name)
    last = OSError("no address")
    for host in await resolve(target.host):
        try:
            return await asyncio.open_connection(host, target.port, limit=READ_BYTES, ssl=tls, server_hostname=name)
        except OSError as error:
            last = error
    raise last
