"""The service registry: sidecars tell in Redis where their service instance is, and find the others' there.

One script call does it all, every third of a ttl or at the shortest `refresh`, jittered: it renews this instance's
lease, sweeps leases that ran out, and brings back the instances of every service that an upstream here asks for. At the
defaults (15 s and 5 s) that is 0.2 calls a second, however many services are asked for. A change of this instance's own
state is told at once.

An instance that stops writes `left`, so that others hear of it before its lease ends. What stands in Redis, and how
little of it is trusted, is in `registry_entries.py`; what is foreign or garbled is told once an hour. Who takes part
when Redis is silent or was emptied is `machines/instances.py`'s word.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar.base.backoff import spread
from sidecar.control.redis_link import RedisGone, RedisLink, RedisRefused
from sidecar.control.registry_entries import BEAT, MOST_INSTANCES, entry_of, keys_of, read_leases
from sidecar.machines.instances import Instance, Instances, State
from sidecar.machines.membership import Answer, Member
from sidecar.runtime import series
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.redis import Registration
    from sidecar.control.resolvers import Report
    from sidecar.runtime.metrics import Registry as Metrics

DEFAULT_TTL = 15.0
"""The grace of a sidecar that only asks; also how long `left` can be read at least."""
BEATS_PER_TTL = 3.0
_JITTER = 0.1
_LEAST_GAP = 1.0
"""Seconds between two calls, whatever hurries."""
_LOOK_SECONDS = 0.5
"""How often this instance looks whether its own state is still what it told."""
_TELL_AGAIN = 3600.0

_log = Log(__name__)


class ServiceRegistry:
    """This sidecar's place in the registry, and what it asks of it."""

    def __init__(
        self,
        link: RedisLink,
        metrics: Metrics,
        namespace: str,
        service: str,
        instance: str,
        registration: Registration | None,
        state: Callable[[], State],
    ) -> None:
        """`state`: how this instance is at the moment; asked at each beat. Without registration it only asks."""
        self._link = link
        self._metrics = metrics
        self._namespace = namespace
        self._service = service
        self._instance = instance
        self._registration = registration
        self._state = state
        self._ttl = registration.ttl if registration else DEFAULT_TTL
        self._services: dict[str, Instances] = {}
        self._reports: dict[str, dict[Report, float]] = {}  # per service who is told, and how often
        self._told: State | None = None  # our state as Redis has it
        self._hurry = asyncio.Event()
        self._left = False
        self._last_ok: float | None = None
        link.on_change(self._link_changed)

    async def run(self) -> None:
        """Beat until this instance leaves, or until cancelled."""
        await self._link.tried.wait()
        while not self._left:
            self._hurry.clear()
            await self._beat_and_report()
            pause = spread(self._period(), _JITTER, random.random)
            due = monotonic() + pause
            await asyncio.sleep(min(_LEAST_GAP, pause))
            while (rest := due - monotonic()) > 0 and not self._hurry.is_set() and not self._state_changed():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), min(rest, _LOOK_SECONDS))

    def follow(self, service: str, report: Report, refresh: float) -> None:
        """Report the instances of `service` from now on, every `refresh` seconds or more often."""
        self._reports.setdefault(service, {})[report] = refresh
        self._services.setdefault(service, Instances(self._ttl))
        self._hurry.set()

    def unfollow(self, service: str, report: Report) -> None:
        """Report no more."""
        reports = self._reports.get(service, {})
        reports.pop(report, None)
        if not reports:
            self._reports.pop(service, None)
            self._services.pop(service, None)

    async def leave(self) -> None:
        """Say that this instance goes. Does nothing when Redis is away: then the lease runs out."""
        self._left = True
        if self._registration and self._link.up:
            try:
                async with asyncio.timeout(_LEAST_GAP):
                    await self._beat(State.LEFT)
            except (RedisGone, RedisRefused, TimeoutError):
                pass

    def view(self) -> dict[str, Any] | None:
        """Our own entry, for people; None without registration."""
        if self._registration is None:
            return None
        return {
            "kind": "self",
            "service": self._service,
            "instance": self._instance,
            "address": self._registration.advertise,
            "state": self._state().value,
            "connected": self._link.up,
            "told": self._told.value if self._told else None,
            "last_beat_seconds_ago": None if self._last_ok is None else round(monotonic() - self._last_ok, 1),
            "error": self._link.reason or None,
        }

    def instances(self, service: str) -> list[dict[str, str]]:
        """Who takes part in a service that is followed, for people."""
        known = self._services.get(service)
        present = known.present() if known else []
        return [{"instance": one.name, "address": one.address, "state": one.state.value} for one in present]

    # The beat -----------------------------------------------------------------------------------------------------

    def _period(self) -> float:
        """Seconds between two beats."""
        refreshes = [refresh for reports in self._reports.values() for refresh in reports.values()]
        return min([self._ttl / BEATS_PER_TTL, *refreshes])

    def _state_changed(self) -> bool:
        return self._registration is not None and self._told is not None and self._state() is not self._told

    def _link_changed(self, up: bool) -> None:
        if up:
            self._told = None
            self._hurry.set()

    async def _beat_and_report(self) -> None:
        if not self._registration and not self._services:
            return
        try:
            faults = await self._beat(self._state())
            result = "ok"
        except RedisGone as gone:
            result, faults = "unreachable", dict.fromkeys(self._services, f"Redis: {gone}")
        except RedisRefused as refusal:
            result, faults = "refused", dict.fromkeys(self._services, f"Redis: {refusal}")
            _log.warning("registry_refused", every=_TELL_AGAIN, reason=str(refusal))
        self._metrics.cell(series.REGISTRY_BEATS, result).value += 1
        for service in faults:
            if service in self._services:
                self._services[service].silent()
        for service, reports in list(self._reports.items()):
            for report in list(reports):
                if service in faults:
                    report.failed(faults[service])
                elif service in self._services:
                    await report.found(_answer(self._services[service].present()))

    async def _beat(self, state: State) -> dict[str, str]:
        """One call; returns what is wrong with which service. Raises RedisGone or RedisRefused."""
        asked = list(self._services)
        keys: list[str] = []
        arguments: list[str | int] = ["", 0, "", MOST_INSTANCES]
        if self._registration:
            keys += keys_of(self._namespace, self._service)
            entry = entry_of(self._registration.advertise, state)
            ttl = max(self._ttl, DEFAULT_TTL) if state is State.LEFT else self._ttl
            arguments = [self._instance, int(ttl * 1000), entry, MOST_INSTANCES]
        for service in asked:
            keys += keys_of(self._namespace, service)
        if not keys:
            return {}
        answers, told = await self._link.script(BEAT, keys, arguments)
        now = self._last_ok = monotonic()
        self._told = state
        if told:
            _log.warning("registry_keys_foreign", every=_TELL_AGAIN, namespace=self._namespace,
                         reasons=[one.decode("utf-8", "replace") for one in told])  # fmt: skip
        faults = {}
        for service, answer in zip(asked, answers, strict=True):
            if answer is None:
                faults[service] = "Redis: its keys hold something else than the registry's"
            elif service in self._services:
                leases, garbage = read_leases(answer)
                self._services[service].heard(now, leases)
                if garbage:
                    _log.warning(
                        "registry_entries_garbled", every=_TELL_AGAIN, about=service, service=service, count=garbage
                    )
        return faults


class RegistrySource:
    """A service in the registry as a source of endpoints."""

    kind = "registry"

    def __init__(self, registry: ServiceRegistry, service: str, refresh: float) -> None:
        self.target = service
        self._registry = registry
        self._refresh = refresh

    async def run(self, report: Report) -> None:
        self._registry.follow(self.target, report, self._refresh)
        try:
            await asyncio.Event().wait()
        finally:
            self._registry.unfollow(self.target, report)


def _answer(present: list[Instance]) -> Answer:
    members = tuple(Member(one.address) for one in present if one.state is State.AVAILABLE)
    available = {member.address for member in members}
    return Answer(members, frozenset(one.address for one in present) - available)
