"""Asking the name servers: what records a name has, that it has none, or that nobody could say.

The library is aiodns (c-ares): it asks beside the event loop, with its own time-outs and repetitions, follows
/etc/resolv.conf and /etc/hosts, and goes over to TCP when an answer does not fit. It keeps an answer for as long as
the records' own TTL allows. A name that does not exist (NXDOMAIN) and one without such records (NODATA) are both
answers, namely nobody; everything else that is not records is a failure.

A lookup in flight is never cancelled by us: c-ares would answer into a future that is gone. It has its own time-out.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import aiodns

TIMEOUT_SECONDS = 2.0
"""One try at one server; c-ares doubles it for the second."""
TRIES = 2

_NO_SUCH = {1, 4}  # ARES_ENODATA, ARES_ENOTFOUND


class LookupFailed(Exception):
    """Nobody could say; the text is why, in one line."""


class Service(NamedTuple):
    """One SRV record (RFC 2782)."""

    priority: int
    weight: int
    host: str
    port: int


class Lookups:
    """The name servers that this process asks: the system's, and those that upstreams name."""

    def __init__(self) -> None:
        self._resolvers: dict[str, aiodns.DNSResolver] = {}
        self._asking: set[asyncio.Future[Any]] = set()

    async def addresses(self, host: str, family: socket.AddressFamily, server: str = "") -> list[str]:
        """The addresses of `host` in this family, sorted; empty: it has none. Raises LookupFailed."""
        query = self._resolver(server).getaddrinfo(host, family=family, type=socket.SOCK_STREAM)
        found = await self._answer(query)
        return sorted({node.addr[0].decode("ascii", "replace") for node in found.nodes}) if found else []

    async def services(self, name: str, server: str = "") -> list[Service]:
        """The SRV records of `name`; empty: it has none. Raises LookupFailed."""
        found = await self._answer(self._resolver(server).query_dns(name, "SRV"))
        records = [record.data for record in found.answer if hasattr(record.data, "target")] if found else []
        return [Service(one.priority, one.weight, one.target.rstrip("."), one.port) for one in records]

    async def close(self) -> None:
        """Give up what is being asked and let go of the library."""
        for resolver in self._resolvers.values():
            resolver.cancel()
        if self._asking:
            await asyncio.wait(self._asking, timeout=1.0)
        for resolver in self._resolvers.values():
            await resolver.close()
        self._resolvers.clear()

    async def _answer(self, query: asyncio.Future[Any]) -> Any:
        import aiodns

        self._asking.add(query)
        query.add_done_callback(self._done)
        try:
            return await asyncio.shield(query)
        except aiodns.error.DNSError as error:
            code, text = error.args[0], str(error.args[-1])
            if code in _NO_SUCH:
                return None
            raise LookupFailed(text[:1].lower() + text[1:]) from None

    def _done(self, query: asyncio.Future[Any]) -> None:
        self._asking.discard(query)
        if not query.cancelled():
            query.exception()  # whoever asked may be gone: then nobody else fetches it

    def _resolver(self, server: str) -> aiodns.DNSResolver:
        resolver = self._resolvers.get(server)
        if resolver is None:
            import aiodns

            options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "tries": TRIES}
            if server:
                options |= {"nameservers": [server], "lookups": "b"}  # that server alone, not the hosts file
            resolver = self._resolvers[server] = aiodns.DNSResolver(**options)
        return resolver
