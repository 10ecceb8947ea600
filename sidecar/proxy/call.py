"""Call: open a connection to an endpoint, with TLS where the upstream speaks it, within connect_timeout.

A connection counts as open when its handshake is done and the one who answered is who it should be: until then nothing
of a request is sent. Who is not is a connect failure like a refused connection, and the log says which of the ways to
be wrong it was. What a server of TLS 1.3 dislikes in us, it says after the handshake only: that breaks the connection,
and the log says that too.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from sidecar.base.errors import UpstreamFault
from sidecar.base.names import Decision
from sidecar.proxy.tls import TlsTransport
from sidecar.runtime.calling import sentence_for, word_for
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.proxy.connection import UpstreamConnection
    from sidecar.proxy.upstream import Endpoint
    from sidecar.runtime.calling import Calling

_LOG_SECONDS = 10.0

_log = Log(__name__)


class TlsFault(UpstreamFault):
    """The connection opened, and no TLS that can be trusted came of it."""


class Caller(TlsTransport):
    """Our end of the TLS of one connection to an upstream."""

    __slots__ = ("_calling", "_endpoint", "done")

    def __init__(self, protocol: UpstreamConnection, endpoint: Endpoint, calling: Calling) -> None:
        name = calling.name_for(endpoint.target.host)
        super().__init__(protocol, calling.context, self._greeted, server_side=False, server_name=name)
        self._calling = calling
        self._endpoint = endpoint
        self.done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        """What the handshake came to: None for good."""

    def _greeted(self, _: TlsTransport, error: Exception | None) -> None:
        if error is None:
            try:
                self._calling.check(self.tls)
            except ssl.SSLError as refused:
                error = refused
                self.abort()
        if not self.done.done():
            self.done.set_result(error)

    def connection_lost(self, exc: Exception | None) -> None:
        fault = self.fault
        if self.done.done() and isinstance(fault, ssl.SSLError) and not isinstance(fault, ssl.SSLEOFError):
            endpoint, upstream = self._endpoint.address, self._endpoint.upstream.name
            _log.warning("upstream_tls_broken", every=_LOG_SECONDS, about=f"{endpoint} {fault}", upstream=upstream,
                         endpoint=endpoint, reason=word_for(fault), detail=sentence_for(fault))  # fmt: skip
        super().connection_lost(exc)


async def call(
    loop: asyncio.AbstractEventLoop, endpoint: Endpoint, kind: type[UpstreamConnection]
) -> UpstreamConnection:
    """An open connection; raises OSError, or TlsFault."""
    calling = endpoint.upstream.calling
    async with asyncio.timeout(endpoint.upstream.connect_timeout):
        if calling is None:
            _, connection = await _open(loop, endpoint, lambda: kind(endpoint))
            return connection  # type: ignore[return-value]  # it is of that kind
        protocol = kind(endpoint)
        caller = Caller(protocol, endpoint, calling)
        await _open(loop, endpoint, lambda: caller)
        try:
            error = await caller.done
        except asyncio.CancelledError:
            caller.abort()
            raise
        if isinstance(error, ssl.SSLError):
            address, upstream, detail = endpoint.address, endpoint.upstream.name, sentence_for(error)
            _log.warning("upstream_tls_failed", every=_LOG_SECONDS, about=f"{address} {error}", upstream=upstream,
                         endpoint=address, reason=word_for(error), detail=detail)  # fmt: skip
            raise TlsFault(f"no TLS with the upstream: {detail}", 502, Decision.CONNECT_FAILURE)
        if error is not None:
            raise error
        return protocol


async def _open(
    loop: asyncio.AbstractEventLoop, endpoint: Endpoint, protocol: Callable[[], asyncio.Protocol]
) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
    target = endpoint.target
    if target.path:
        return await loop.create_unix_connection(protocol, target.path)
    return await loop.create_connection(protocol, target.host, target.port)
