"""Asking the name servers: what records a name has, that it has none, or that nobody could say.

The library is aiodns (c-ares): it asks beside the event loop, with its own time-outs and repetitions, follows
/etc/resolv.conf and /etc/hosts, and goes over to TCP when an answer does not fit. A name that does not exist (NXDOMAIN)
and one without such records (NODATA) are both answers, namely nobody; all else that is not records is a failure.

Each look has a resolver of its own, half a millisecond: c-ares keeps answers, the empty ones too and without a TTL for
an hour, so one that lived on would not see an endpoint that came back. A question is never cancelled alone: c-ares
would answer into a future that is gone. Whoever leaves early ends all of a look, and waits until c-ares says so.
"""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

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


class Lookup:
    """One look: some questions to the system's name servers, or to the one given."""

    def __init__(self, server: str = "") -> None:
        """`server`: ip:port; empty for the system's."""
        self._server = server
        self._resolver: aiodns.DNSResolver | None = None
        self._asked: list[asyncio.Future[Any]] = []

    async def __aenter__(self) -> Self:
        import aiodns

        options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "tries": TRIES}
        if self._server:
            options |= {"nameservers": [self._server], "lookups": "b"}  # that server alone, not the hosts file
        self._resolver = aiodns.DNSResolver(**options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._resolver is not None
        waiting = [one for one in self._asked if not one.done()]
        if waiting:
            self._resolver.cancel()
            await asyncio.wait(waiting, timeout=1.0)
        for one in self._asked:
            if one.done():
                one.exception()  # whoever asked may be gone: then nobody else fetches it
        await self._resolver.close()

    async def addresses(self, host: str, family: socket.AddressFamily) -> list[str]:
        """The addresses of `host` in this family, sorted; empty: it has none. Raises LookupFailed."""
        assert self._resolver is not None
        found = await self._answer(self._resolver.getaddrinfo(host, family=family, type=socket.SOCK_STREAM))
        return sorted({node.addr[0].decode("ascii", "replace") for node in found.nodes}) if found else []

    async def services(self, name: str) -> list[Service]:
        """The SRV records of `name`; empty: it has none. Raises LookupFailed."""
        assert self._resolver is not None
        found = await self._answer(self._resolver.query_dns(name, "SRV"))
        records = [record.data for record in found.answer if hasattr(record.data, "target")] if found else []
        return [Service(one.priority, one.weight, one.target.rstrip("."), one.port) for one in records]

    async def _answer(self, question: asyncio.Future[Any]) -> Any:
        """What c-ares says; None when there are no such records."""
        import aiodns

        self._asked.append(question)
        try:
            return await asyncio.shield(question)
        except aiodns.error.DNSError as error:
            code, text = error.args[0], str(error.args[-1])
            if code in _NO_SUCH:
                return None
            raise LookupFailed(text[:1].lower() + text[1:]) from None
