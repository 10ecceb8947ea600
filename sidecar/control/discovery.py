"""Discovery: which endpoints each upstream has, told to those who serve whenever it changes.

One source per upstream (`resolvers/`, `registry.py`) looks and reports; `machines/membership.py` decides who takes
part; here its word is carried on. An error changes nothing: the last good answer stands and the error is told, once per
reason. An answer that names our own admin interface, or an address that nobody can have, loses that entry.

A reload leaves alone what it does not change. A source that is replaced leaves its endpoints until the new one has
answered, so that a changed key never means a moment without endpoints.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from sidecar.config.address import Address, parse_address
from sidecar.config.rules_addresses import reaches
from sidecar.machines.membership import LIMIT, Answer, Member, Membership
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sidecar.config.document import Config
    from sidecar.config.upstreams import Discovery as DiscoveryConfig
    from sidecar.config.upstreams import Upstream
    from sidecar.control.resolvers import Source
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor

    Tell = Callable[[str, list[tuple[str, int, int]]], Awaitable[None]]
    IsHealthy = Callable[[str, str], bool | None]
    MakeSource = Callable[[DiscoveryConfig], Source]

JUDGE_SECONDS = 1.0
"""How often those are looked at who are there only because their checks pass."""
_TELL_AGAIN = 300.0

_log = Log(__name__)


class Watched:
    """One upstream with discovery: takes its source's reports."""

    def __init__(self, config: Upstream, discovery: Discovery) -> None:
        self.name = config.name
        self.config = config
        self.source: Source | None = None
        self.membership = Membership(_written(config))
        self.settled = asyncio.Event()
        """The source has answered, or failed to, at least once."""
        self._discovery = discovery
        self._told: list[Member] | None = None
        self._telling = asyncio.Lock()
        self._error: str | None = None
        self._error_at = 0.0
        self._last_success: float | None = None
        self._refused: list[str] = []

    # What the source reports -----------------------------------------------------------------------------------------

    async def found(self, answer: Answer) -> None:
        sane = tuple(one for one in answer.members if not self._discovery.refuses(one.address))
        self._note_refused([one.address for one in answer.members if one not in sane])
        self.membership.found(answer._replace(members=sane), self._is_healthy)
        if self.membership.cut:
            _log.warning("discovery_cut", every=_TELL_AGAIN, about=self.name, upstream=self.name, limit=LIMIT,
                         left_out=self.membership.cut)  # fmt: skip
        if self._error is not None:
            self._discovery.observer.tell(Kind.DISCOVERY_RECOVERED, self.name, upstream=self.name)
        self._error = None
        self._last_success = time.time()
        registry = self._discovery.registry
        registry.cell(series.DISCOVERY_LAST_SUCCESS, self.name).value = self._last_success
        changed = await self.tell()
        registry.cell(series.DISCOVERY_UPDATES, self.name, "changed" if changed else "unchanged").value += 1
        self.settled.set()

    def failed(self, reason: str) -> None:
        if reason != self._error:
            self._discovery.observer.tell(
                Kind.DISCOVERY_FAILED, self.name, level=Level.WARNING, reason=reason, every=_TELL_AGAIN,
                about=f"{self.name} {reason}", upstream=self.name, advice="the last good answer stays",
            )  # fmt: skip
        self._error, self._error_at = reason, time.time()
        self._discovery.registry.cell(series.DISCOVERY_UPDATES, self.name, "error").value += 1
        self.settled.set()

    # Carrying it on --------------------------------------------------------------------------------------------------

    async def tell(self, *, again: bool = False) -> bool:
        """Tell those who serve if anything changed, or in any case; returns whether it had."""
        async with self._telling:
            members = self.membership.members
            changed = members != self._told
            if changed or again:
                if changed and self._told is not None:
                    before, after = ({one.address for one in some} for some in (self._told, members))
                    self._discovery.observer.tell(
                        Kind.ENDPOINTS_CHANGED, self.name, upstream=self.name, count=len(members),
                        came=sorted(after - before)[:20], went=sorted(before - after)[:20],
                    )  # fmt: skip
                self._told = members
                self._discovery.registry.cell(series.DISCOVERY_ENDPOINTS, self.name).value = len(members)
                endpoints = [(one.address, one.weight, one.priority) for one in members]
                await self._discovery.tell(self.name, endpoints)
            return changed

    async def judge(self) -> None:
        """Let those go that were kept for their health and lost it."""
        if self.membership.keeps:
            self.membership.judge(self._is_healthy)
            await self.tell()

    def _is_healthy(self, address: str) -> bool | None:
        return self._discovery.is_healthy(self.name, address)

    def _note_refused(self, refused: list[str]) -> None:
        if refused and refused != self._refused:
            _log.warning("discovery_refused_address", every=_TELL_AGAIN, about=self.name, upstream=self.name,
                         addresses=refused[:10], reason="our own admin interface, or nobody's address")  # fmt: skip
        self._refused = refused[:10]

    def view(self) -> dict[str, Any]:
        """For people."""
        return {
            "kind": "upstream",
            "upstream": self.name,
            "source": self.source.kind if self.source else None,
            "target": self.source.target if self.source else None,
            "last_success": _moment(self._last_success),
            "error": self._error,
            "error_at": _moment(self._error_at) if self._error else None,
            "left_out": self.membership.cut,
            "refused": self._refused,
            "endpoints": [one._asdict() | {"origin": self.membership.origin(one.address)}
                          for one in self.membership.members],
        }  # fmt: skip


class Discovery:
    """All upstreams with discovery."""

    def __init__(
        self,
        make_source: MakeSource,
        tell: Tell,
        is_healthy: IsHealthy,
        tasks: Supervisor,
        registry: Registry,
        observer: Observer,
    ) -> None:
        """`tell(upstream, endpoints)` those who serve."""
        self._make_source = make_source
        self.tell = tell
        self.is_healthy = is_healthy
        self._own: list[Address] = []
        self._tasks = tasks
        self.registry = registry
        self.observer = observer
        self._watched: dict[str, Watched] = {}

    def keep_out(self, own: Iterable[tuple[str, int]]) -> None:
        """Where our admin interface answers: nobody is ever called there."""
        self._own = [Address(host, port) for host, port in own]

    async def apply(self, config: Config) -> None:
        """Look for what `config` says; what it does not change goes on."""
        wanted = {one.name: one for one in config.upstreams if one.discovery is not None}
        for name in self._watched.keys() - wanted.keys():
            await self._end(name)
            del self._watched[name]
            self.registry.remove(upstream=name)
        for name, upstream in wanted.items():
            assert upstream.discovery is not None
            watched = self._watched.get(name)
            if watched is None:
                watched = self._watched[name] = Watched(upstream, self)
            elif watched.config.discovery != upstream.discovery:
                await self._end(name)
            watched.config = upstream
            watched.membership.rewrite(_written(upstream))
            await watched.tell(again=True)  # a reload may have put the written ones in place
            if watched.source is None:
                watched.source = self._make_source(upstream.discovery)
                self._tasks.start(f"discovery-{name}", functools.partial(watched.source.run, watched))
        if self._watched and "discovery-kept" not in self._tasks.running():
            self._tasks.start("discovery-kept", self._judge)

    async def settled(self, within: float) -> None:
        """Wait until every source has answered or failed once, at most so many seconds."""
        waiting = [asyncio.ensure_future(one.settled.wait()) for one in self._watched.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=within)
            for task in late:
                task.cancel()

    async def _end(self, name: str) -> None:
        await self._tasks.end(f"discovery-{name}")
        self._watched[name].source = None

    async def _judge(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            for watched in list(self._watched.values()):
                await watched.judge()

    def refuses(self, address: str) -> bool:
        """Whether nobody may be called there: our own admin interface, and what is no host's address."""
        called = parse_address(address)
        if called.is_unix:
            return False
        try:
            ip = ip_address(called.host)
        except ValueError:
            ip = None
        if ip is not None and (ip.is_unspecified or ip.is_multicast):
            return True
        return any(
            reaches(called, own) or (own.is_any and own.port == called.port and ip is not None and _is_ours(str(ip)))
            for own in self._own
        )

    def members(self, upstream: str) -> list[Member] | None:
        """The endpoints of an upstream with discovery; None: it has none."""
        watched = self._watched.get(upstream)
        return None if watched is None else watched.membership.members

    def view(self, upstream: str) -> dict[str, Any] | None:
        """An upstream with discovery, for people; None: it has none."""
        watched = self._watched.get(upstream)
        return None if watched is None else watched.view()


def _written(config: Upstream) -> list[Member]:
    return [Member(one.address, one.weight, one.priority) for one in config.endpoints]


def _is_ours(ip: str) -> bool:
    """Whether this machine has that address: then one can bind to it."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
