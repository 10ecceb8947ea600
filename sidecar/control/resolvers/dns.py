"""Endpoints from DNS: every A and AAAA record of a name, or what its SRV records name.

The name is looked up every `refresh`, jittered, off the request path. Each lookup (of one name in one family) that
fails keeps what it found last, so a name server that drops AAAA queries takes no IPv4 endpoint away. Only when nothing
is known of what failed and nothing else was found is the whole look a failure.

`localhost` is this machine, one endpoint whatever addresses it has (RFC 6761 §6.3): a service on 127.0.0.1 alone would
fail every other request as [::1].

SRV: the lower priority goes first (our priorities are its ranks), weights are kept in proportion, 0 counts as 1. A
target of "." says that there is no such service, as having no records does.
"""

import asyncio
import random
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from sidecar.base.backoff import spread
from sidecar.config.address import Address, parse_address
from sidecar.control.resolvers import Report
from sidecar.control.resolvers.lookups import Lookup, LookupFailed, Service
from sidecar.machines.membership import LIMIT, Answer, Member

_JITTER = 0.1
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_HEAVIEST = 1000
_LAST_PRIORITY = 127
_AT_ONCE = 8
"""Targets of one SRV answer that are looked up at the same time."""


class _Names:
    """Addresses by name, each family remembered for when it cannot be asked."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, socket.AddressFamily], list[str]] = {}
        self.failures: list[str] = []
        """Of this look; what failed was answered from memory."""

    async def addresses(self, lookup: Lookup, host: str) -> list[str]:
        """IP addresses of `host`; raises LookupFailed when nothing is found or known and not everybody said so."""
        if _is_ip(host):
            return [host]
        results = await asyncio.gather(
            *(self._one(lookup, host, family) for family in _FAMILIES), return_exceptions=True
        )
        found: list[str] = []
        unknown: LookupFailed | None = None
        for result in results:
            if isinstance(result, LookupFailed):
                unknown = result
            elif isinstance(result, BaseException):
                raise result
            else:
                found += result
        if unknown is not None and not found:
            raise unknown
        return found

    async def _one(self, lookup: Lookup, host: str, family: socket.AddressFamily) -> list[str]:
        try:
            found = await lookup.addresses(host, family)
        except LookupFailed as error:
            self.failures.append(f"{host} ({'A' if family is socket.AF_INET else 'AAAA'}): {error}")
            if (host, family) not in self._last:
                raise
            return self._last[host, family]
        self._last[host, family] = found
        return found

    def forget(self, hosts: set[str]) -> None:
        """Remember these names only."""
        self._last = {key: found for key, found in self._last.items() if key[0] in hosts}


class _Dns:
    """What looking up every so often has in common for both sorts of records."""

    def __init__(self, refresh: float, server: str) -> None:
        self._refresh = refresh
        self._server = server
        self._names = _Names()

    async def run(self, report: Report) -> None:
        while True:
            self._names.failures.clear()
            try:
                async with Lookup(self._server) as lookup:
                    answer = await self.look(lookup)
                await report.found(answer)
            except LookupFailed as error:
                report.failed("; ".join(self._names.failures) or str(error))
            else:
                if self._names.failures:
                    report.failed("; ".join(self._names.failures))
            await asyncio.sleep(spread(self._refresh, _JITTER, random.random))

    async def look(self, lookup: Lookup) -> Answer:
        """Ask once; raises LookupFailed."""
        raise NotImplementedError


class DnsSource(_Dns):
    """The A and AAAA records of one name, all with one port."""

    kind = "dns"

    def __init__(self, target: str, refresh: float, server: str = "") -> None:
        """`target`: host:port; `server`: ip:port, empty for the system's."""
        super().__init__(refresh, server)
        self.target = target
        self._address = parse_address(target)

    async def look(self, lookup: Lookup) -> Answer:
        host = self._address.host
        found = [host] if host.lower() == "localhost" else await self._names.addresses(lookup, host)
        return Answer(tuple(Member(str(Address(host, self._address.port))) for host in found))


class SrvSource(_Dns):
    """The SRV records of one name, and the addresses of what they name."""

    kind = "srv"

    def __init__(self, target: str, refresh: float, server: str = "") -> None:
        super().__init__(refresh, server)
        self.target = target

    async def look(self, lookup: Lookup) -> Answer:
        try:
            records = await lookup.services(self.target)
        except LookupFailed as error:
            raise LookupFailed(f"{self.target} (SRV): {error}") from None
        named = sorted({one for one in records if one.host and one.port})[:LIMIT]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def resolve(host: str) -> list[str]:
            async with gate:
                try:
                    return await self._names.addresses(lookup, host)
                except LookupFailed:
                    return []  # noted; the others serve

        hosts = sorted({one.host for one in named})
        found = dict(zip(hosts, await asyncio.gather(*map(resolve, hosts)), strict=True))
        self._names.forget(set(hosts))
        members = _members(named, found)
        if not members and self._names.failures:
            raise LookupFailed(self._names.failures[0])
        return Answer(tuple(members))


def _members(records: Sequence[Service], found: dict[str, list[str]]) -> list[Member]:
    ranks = {priority: rank for rank, priority in enumerate(sorted({one.priority for one in records}))}
    heaviest = max((one.weight for one in records), default=1)
    scale = min(1.0, _HEAVIEST / heaviest) if heaviest else 1.0
    return [
        Member(
            str(Address(host, one.port)), max(1, round(one.weight * scale)), min(ranks[one.priority], _LAST_PRIORITY)
        )
        for one in records
        for host in found[one.host]
    ]


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
