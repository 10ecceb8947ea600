"""Active health checks: asks every endpoint that has a check and every dependency, and tells what it found.

Each target has a task of its own that waits, asks, and hands the result to its machine (`machines/health.py`), which
says what follows and when to ask again. So a target that hangs holds up nobody. How many are asked at the same time
is bounded, far above what a pod has targets.

The verdict on an endpoint is told to who serves after every check, not only when it changes: a worker process that
just came up or was busy learns it at the next one. A dependency with several targets is what `aggregate` makes of
them. A reload keeps what is known of every target that is asked as before; another question begins anew.

Runs in the program's process, once, however many workers serve.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from sidecar.config.dependencies import Dependency, timing
from sidecar.config.document import Config
from sidecar.config.upstreams import HealthCheck as CheckConfig
from sidecar.config.upstreams import Upstream
from sidecar.control.health_targets import Group, Key, Target
from sidecar.control.probes.build import dependency_probes, endpoint_probe, tcp_probe
from sidecar.control.probes.probe import Probe, Result, ask
from sidecar.machines.health import Health, HealthCheck, HealthPolicy
from sidecar.machines.transition import Transition
from sidecar.runtime import series
from sidecar.runtime.calling import Calling
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Kind, Level, Observer
from sidecar.runtime.tasks import Supervisor

MAX_AT_ONCE = 512
"""Probes that run at the same time; each holds a descriptor and at most its stream's limit of memory."""
COUNTED_SECONDS = 1.0
"""So long a look at the traffic counters serves all checks."""
SHORTEST_PAUSE = 0.01
"""Between two checks of one target, whatever the configuration says."""


_log = Log(__name__)


class HealthChecks:
    """Everything that this pod asks.

    `verdict(upstream, address, healthy)` tells who serves; `requests()` says how many requests each upstream has had,
    so that what carries no traffic is asked less often; `calling(upstream)`, how its TLS is called at the moment.
    """

    def __init__(
        self,
        registry: Registry,
        tasks: Supervisor,
        observer: Observer,
        verdict: Callable[[str, str, bool], Awaitable[None]],
        requests: Callable[[], Awaitable[Mapping[str, float]]],
        calling: Callable[[str], Calling | None],
    ) -> None:
        self._registry = registry
        self._tasks = tasks
        self._observer = observer
        self._verdict = verdict
        self._requests = requests
        self._calling = calling
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._changing = asyncio.Lock()
        self._upstreams: dict[str, Upstream] = {}
        self._discovered: dict[str, tuple[str, ...]] = {}
        self._targets: dict[Key, Target] = {}
        self._groups: dict[str, Group] = {}
        self._counts: Mapping[str, float] = {}
        self._counted_at = -COUNTED_SECONDS

    # What to watch --------------------------------------------------------------------------------------------------

    async def apply(self, config: Config) -> None:
        """Ask what `config` says from now on."""
        async with self._changing:
            self._upstreams = {one.name: one for one in config.upstreams}
            for name in self._discovered.keys() - {one.name for one in config.upstreams if one.discovery is not None}:
                del self._discovered[name]
            for name in self._upstreams:
                await self._fit_endpoints(name)
            for name in {key[1] for key in self._targets if key[0] == "endpoint"} - self._upstreams.keys():
                await self._fit_endpoints(name)
            for name in self._groups.keys() - {one.name for one in config.dependencies}:
                await self._forget_dependency(name)
            for dependency in config.dependencies:
                await self._fit_dependency(dependency)

    async def set_endpoints(self, upstream: str, addresses: Iterable[str]) -> None:
        """Discovery found these endpoints; they replace those that the configuration names."""
        async with self._changing:
            self._discovered[upstream] = tuple(addresses)
            await self._fit_endpoints(upstream)

    def healthy(self, upstream: str, address: str) -> bool | None:
        """Whether an endpoint's checks pass; None: it is not asked, or has not answered yet."""
        target = self._targets.get(("endpoint", upstream, address))
        if target is None or target.check.state is Health.UNKNOWN:
            return None
        return target.check.available

    # What recovery asks ---------------------------------------------------------------------------------------------

    def upstream_trouble(self, name: str) -> str:
        """What the checks say when they find every endpoint of an upstream unhealthy; empty: they do not."""
        asked = [
            target for (kind, upstream, _), target in self._targets.items() if (kind, upstream) == ("endpoint", name)
        ]
        if not asked or any(one.check.state is not Health.UNHEALTHY for one in asked):
            return ""
        return f"all endpoints are unhealthy: {asked[0].check.detail}" if len(asked) > 1 else asked[0].check.detail

    def answered_since(self, name: str, moment: float) -> bool:
        """Whether an endpoint of an upstream was found well by a check that began after `moment` (monotonic); true
        where nothing is checked.
        """
        asked = [one for (kind, upstream, _), one in self._targets.items() if (kind, upstream) == ("endpoint", name)]
        return not asked or any(one.well_at >= moment for one in asked)

    def sick_endpoints(self, name: str) -> list[str]:
        """The addresses of an upstream that are unhealthy."""
        return [what for (kind, upstream, what), target in self._targets.items()
                if (kind, upstream) == ("endpoint", name) and target.check.state is Health.UNHEALTHY]  # fmt: skip

    def dependency_trouble(self, name: str) -> str:
        """What the checks say of an unhealthy dependency; empty: it is not."""
        group = self._groups.get(name)
        if group is None or group.state is not Health.UNHEALTHY:
            return ""
        return next((one.check.detail for one in group.targets if one.check.detail), "unhealthy")

    async def ask_upstream(self, name: str) -> list[Result]:
        """Ask every endpoint of an upstream now; where it has no check, whether it takes a connection."""
        upstream = self._upstreams.get(name)
        if upstream is None:
            return []
        check = upstream.health_check
        addresses = self._discovered.get(name, [one.address for one in upstream.endpoints])
        if check is None:
            return await self._ask_all([(tcp_probe(one), upstream.connect_timeout) for one in addresses])
        return await self._ask_all([(endpoint_probe(check, one), check.patience) for one in addresses])

    async def ask_dependency(self, name: str) -> list[Result]:
        """Ask every part of a dependency now."""
        group = self._groups.get(name)
        return await self._ask_all([(one.probe, one.timeout) for one in group.targets] if group else [])

    async def _ask_all(self, questions: list[tuple[Probe, float]]) -> list[Result]:
        async def one(probe: Probe, timeout: float) -> Result:  # noqa: ASYNC109 - of the probe
            async with self._slots:
                return await ask(probe, timeout)

        return await asyncio.gather(*(one(*question) for question in questions))

    # Watching -------------------------------------------------------------------------------------------------------
    def awaited(self, upstream: str, address: str) -> bool:
        """Whether an endpoint is asked and has not answered yet."""
        target = self._targets.get(("endpoint", upstream, address))
        return target is not None and target.check.state is Health.UNKNOWN

    async def _fit_endpoints(self, name: str) -> None:
        """Watch the present endpoints of one upstream, and no others."""
        upstream = self._upstreams.get(name)
        check = None if upstream is None else upstream.health_check
        wanted: dict[Key, Probe] = {}
        if upstream is not None and check is not None:
            addresses = self._discovered.get(name, [one.address for one in upstream.endpoints])
            tls = None if upstream.tls is None else functools.partial(self._calling, name)
            wanted = {("endpoint", name, one): endpoint_probe(check, one, tls) for one in addresses}
        for key in [key for key in self._targets if key[:2] == ("endpoint", name) and key not in wanted]:
            await self._forget(key)
        if upstream is not None and check is not None:
            policy = HealthPolicy(check.interval, check.unhealthy_after, check.healthy_after)
            for key, probe in wanted.items():
                await self._watch(key, _question(upstream, check), probe, check.patience, policy)

    async def _fit_dependency(self, dependency: Dependency) -> None:
        figures = timing(dependency)
        policy = HealthPolicy(
            figures.interval, dependency.unhealthy_after, dependency.healthy_after, figures.degraded_above
        )
        probes = {("dependency", dependency.name, one): probe for one, probe in dependency_probes(dependency).items()}
        group = self._groups.get(dependency.name)
        if group is None:
            group = self._groups[dependency.name] = Group(dependency.name, dependency.kind)
        group.kind = dependency.kind
        for target in group.targets:
            if target.key not in probes:
                await self._forget(target.key)
        group.targets = [
            await self._watch(key, dependency.check, probe, figures.timeout, policy) for key, probe in probes.items()
        ]
        self._export(group, group.judge())

    async def _forget_dependency(self, name: str) -> None:
        for target in self._groups.pop(name).targets:
            await self._forget(target.key)
        self._registry.remove(dependency=name)

    async def _watch(
        self,
        key: Key,
        question: object,
        probe: Probe,
        timeout: float,  # noqa: ASYNC109 - of the probe, not of this
        policy: HealthPolicy,
    ) -> Target:
        """Ask under `key` from now on; what is known stays when the question does."""
        known = self._targets.get(key)
        if known is not None and known.question == question:
            if (known.policy, known.timeout) != (policy, timeout):
                await self._tasks.end(_task(key))
                known.check.reconfigure(policy, monotonic())
                known.policy, known.timeout = policy, timeout
                self._tasks.start(_task(key), lambda: self._keep_asking(known))
            return known
        if known is not None:
            await self._forget(key)
        check = HealthCheck(policy, random.random, monotonic())
        target = Target(key, question, probe, timeout, policy, check, datetime.now(UTC))
        self._targets[key] = target
        self._tasks.start(_task(key), lambda: self._keep_asking(target))
        return target

    async def _forget(self, key: Key) -> None:
        """Ask no more; an endpoint that nobody asks is not held to be unhealthy."""
        await self._tasks.end(_task(key))
        target = self._targets.pop(key, None)
        if target is not None and key[0] == "endpoint" and not target.check.available:
            await self._verdict(key[1], key[2], True)

    # Asking ---------------------------------------------------------------------------------------------------------

    async def _keep_asking(self, target: Target) -> None:
        while True:
            await asyncio.sleep(max(SHORTEST_PAUSE, target.check.next_check - monotonic()))
            async with self._slots:
                result = await ask(target.probe, target.timeout)
            kind, name, what = target.key
            _log.debug("health_checked", **{kind: name}, target=what, ok=result.ok, detail=result.detail,
                       seconds=round(result.seconds, 4))  # fmt: skip
            change = target.note(result, traffic=await self._has_traffic(target))
            await self._tell(target, change)

    async def _has_traffic(self, target: Target) -> bool:
        """Whether an endpoint's upstream had requests since it was asked last. Dependencies are always in use."""
        kind, name, _ = target.key
        if kind != "endpoint":
            return True
        now = monotonic()
        if now - self._counted_at >= COUNTED_SECONDS:
            self._counted_at = now
            self._counts = await self._requests()
        before, target.requests_seen = target.requests_seen, self._counts.get(name, 0.0)
        return before != target.requests_seen

    async def _tell(self, target: Target, change: Transition[Health] | None) -> None:
        kind, name, what = target.key
        if kind == "endpoint":
            if change is not None:
                self._say(Kind.ENDPOINT_HEALTH_CHANGED, name, change, upstream=name, endpoint=what)
            await self._verdict(name, what, target.check.available)
            return
        group = self._groups[name]
        if change is not None and len(group.targets) > 1:
            self._say(Kind.DEPENDENCY_PART_CHANGED, name, change, dependency=name, part=what)
        self._export(group, group.judge(change))

    def _export(self, group: Group, change: Transition[Health] | None) -> None:
        for state in Health:
            cell = self._registry.cell(series.DEPENDENCY_STATUS, group.name, state.value)
            cell.value = float(state is group.state)
        if change is not None:
            self._say(Kind.DEPENDENCY_HEALTH_CHANGED, group.name, change, dependency=group.name)

    def _say(self, kind: Kind, subject: str, change: Transition[Health], **about: Any) -> None:
        level = Level.INFO if change.new is Health.HEALTHY else Level.WARNING
        self._observer.tell(
            kind, subject, level=level, reason=change.reason, detail=change.detail,
            **about, before=change.old.value, now=change.new.value,
        )  # fmt: skip

    # Telling people -------------------------------------------------------------------------------------------------

    def view(self) -> list[dict[str, Any]]:
        """Every endpoint and dependency that is asked.

        {kind: endpoint, upstream, endpoint, check, …} or {kind: dependency, dependency, check, parts: [{target, …}] or
        null, …}, both with state (unknown | healthy | degraded | unhealthy), since, last_check, next_check (UTC),
        latency_seconds, detail.
        """
        shown = []
        for (kind, name, what), target in self._targets.items():
            upstream = self._upstreams.get(name)
            if kind == "endpoint" and upstream is not None and upstream.health_check is not None:
                word = _kind(upstream.health_check)
                shown.append({"kind": kind, "upstream": name, "endpoint": what, "check": word} | target.view())
        return shown + [group.view() for group in self._groups.values()]


def _question(upstream: Upstream, check: CheckConfig) -> object:
    """What a check asks, without how often and how it is judged."""
    return (*(getattr(check, kind) for kind in check.one_of), upstream.tls, check.tls)


def _kind(check: CheckConfig) -> str:
    return next(kind for kind in check.one_of if getattr(check, kind) is not None)


def _task(key: Key) -> str:
    return f"health-{':'.join(key)}"
