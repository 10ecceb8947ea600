"""The fleet's shell: carries words between this process's breakers, the deciding half, and Redis.

`machines/fleet/replica.py` decides; here its deeds are done. What a breaker tells may come from a request's way, so it
is only noted and what is to be sent leaves in a task of its own; nobody waits for Redis but those tasks, and whoever
gave an order for the fleet.

The breakers are reached by name, each a `SharedBreaker`: of the one process that serves, or of the pod's program.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.control.fleet_look import Looks
from sidecar.control.redis_link import RedisGone, RedisRefused
from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.deeds import Adopt, Alone, Lend, Noticed, Ordered, Send, Sync
from sidecar.machines.fleet.leases import TrialEnd
from sidecar.machines.fleet.replica import Fleet
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from sidecar.config.breaker import Breaker as BreakerPolicy
    from sidecar.control.fleet_look import Look
    from sidecar.control.fleet_redis import FleetPort
    from sidecar.control.redis_link import RedisLink
    from sidecar.machines.breaker import Breaker, BreakerChange, Snapshot
    from sidecar.machines.fleet.deeds import Deed
    from sidecar.machines.fleet.leases import Ended, Lease
    from sidecar.machines.fleet.words import Record
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

LOOK_SECONDS = 1.0
"""How often it looks whether calls pass here."""
WANTS_SECONDS = 0.01
ORDER_SECONDS = 10.0
"""An order for the fleet is carried out by then, or has failed."""
_TELL_AGAIN = 3600.0
_FORCED = (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)
_ORDERS = {
    "open": BreakerState.FORCED_OPEN,
    "close": BreakerState.FORCED_CLOSED,
    "reset": BreakerState.CLOSED,
}


class SharedBreaker(Protocol):
    """What is asked of a breaker that the fleet shares."""

    name: str
    breaker: Breaker

    def adopt(self, told: Snapshot) -> None:
        """The fleet agreed on another state."""

    def grant(self, leases: Iterable[Lease]) -> None:
        """Trials that may be made here."""

    def alone(self) -> None:
        """The fleet cannot be heard."""


class FleetShell:
    """This process's place in the fleet, and the tie of each of its breakers."""

    tells = False

    def __init__(self, me: str, link: RedisLink, port: FleetPort, registry: Registry, observer: Observer) -> None:
        """`me`: this replica's name, that no other has and that a restart keeps."""
        self._fleet = Fleet(me, random.random, monotonic())
        self._link = link
        self._port = port
        self._looks = Looks(link, port)
        self._observer = observer
        self._garbled = registry.cell(series.FLEET_GARBLED)
        self._breakers: Callable[[], Mapping[str, SharedBreaker]] = dict
        self._calls: Callable[[], float] = float
        self._followed: set[str] = set()
        self._wanted: dict[str, float] = {}
        self._orders: dict[int, asyncio.Future[Ordered]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        link.subscribe(port.channel, self._hear)
        link.on_change(self._link_changed)

    def serve(self, breakers: Callable[[], Mapping[str, SharedBreaker]], calls: Callable[[], float]) -> None:
        """Where the breakers are, and a number that grows with every call."""
        self._breakers, self._calls = breakers, calls

    def follow(self, policies: Mapping[str, BreakerPolicy]) -> None:
        """Share these breakers from now on, and no others."""
        shared = {name: policy for name, policy in policies.items() if policy.shared}
        for name in self._followed - shared.keys():
            self._fleet.unfollow(name)
            self._wanted.pop(name, None)
            found = self._breakers().get(name)
            if found is not None:
                found.alone()
        for name, policy in shared.items():
            known = name in self._followed
            self._fleet.follow(name, policy)
            if known:  # what was adopted under a policy that switches it off was not followed
                self._do(self._fleet.again(name, monotonic()))
        self._followed = set(shared)
        self._wake.set()

    def orders(self) -> dict[str, Record]:
        """The fleet's orders that are followed here, for a successor."""
        return self._fleet.orders(monotonic())

    def restate(self, orders: Mapping[str, Record]) -> None:
        """The breakers here have just taken over another process's states: the fleet's word counts, our trips too.

        `orders`: those of the fleet's that it followed, which may not have reached the Redis that we talk to.
        """
        now = monotonic()
        for name, order in orders.items():
            self._do(self._fleet.inherit(name, order, now))
        for name in self._followed:
            self._do(self._fleet.again(name, now))
            found = self._breakers().get(name)
            if found is not None and found.breaker.state is BreakerState.OPEN and not found.breaker.led:
                seen = found.breaker.snapshot(now)
                self._do(self._fleet.tripped(name, now, seconds=seen.remaining or 0.0, reason=str(seen.reason),
                                             detail=seen.detail))  # fmt: skip

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        seen = -1.0
        try:
            while True:
                now = monotonic()
                calls = self._calls()
                if calls != seen:
                    seen = calls
                    self._fleet.carries(now)
                self._do(self._fleet.tick(now))
                self._wake.clear()
                pause = min(LOOK_SECONDS, max(0.0, self._fleet.deadline - monotonic()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            for task in list(self._under_way):
                task.cancel()
            self._looks.stop()
            for waiting in self._orders.values():
                waiting.cancel()

    async def order(self, name: str, action: str, *, seconds: float | None, by: str, why: str) -> str:
        """Open, close or reset a breaker in all replicas; returns what went wrong, or nothing."""
        number, deeds = self._fleet.order(name, _ORDERS[action], monotonic(), seconds=seconds, by=by, why=why)
        done: asyncio.Future[Ordered] = asyncio.get_running_loop().create_future()
        self._orders[number] = done
        self._do(deeds)
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                result = await done
        except TimeoutError:
            return "Redis did not answer; it may still be carried out"
        finally:
            self._orders.pop(number, None)
        return "" if result.ok else result.why or "refused"

    def view(self, name: str) -> dict[str, Any] | None:
        """The fleet as it is known here, for people; None: this breaker is not shared."""
        return self._fleet.view(name, monotonic())

    def overruled(self, name: str) -> bool:
        """Whether an order that was given here stands above the fleet's word."""
        found = self._breakers().get(name)
        return found is not None and found.breaker.state in _FORCED and not found.breaker.led

    async def look(self) -> Look:
        """Who is there, who votes and who tries, as Redis had it lately."""
        return await self._looks.take(sorted(self._followed))

    # Tie of each breaker --------------------------------------------------------------------------------------------

    def moved(self, guarded: SharedBreaker, change: BreakerChange | None) -> None:
        """A breaker changed by itself, or by an order that was given here."""
        if change is None or change.reason == Reason.SHARED or guarded.name not in self._followed:
            return
        name, now, fleet = guarded.name, monotonic(), self._fleet
        if change.new is BreakerState.OPEN:
            seconds = guarded.breaker.snapshot(now).remaining or 0.0
            self._do(fleet.tripped(name, now, seconds=seconds, reason=change.reason, detail=change.detail))
            return
        if change.old not in _FORCED:
            self._do(fleet.untripped(name, now, closed=change.reason == Reason.RECOVERED))
        if change.new is BreakerState.CLOSED and change.reason != Reason.RECOVERED:
            self._do(fleet.again(name, now))  # automatic again: the fleet's word counts

    def refused(self, guarded: SharedBreaker) -> None:
        """Somebody could use a lease; said a hundred times a second at most, however many are refused."""
        now = monotonic()
        if now - self._wanted.get(guarded.name, 0.0) >= WANTS_SECONDS:
            self._wanted[guarded.name] = now
            self._do(self._fleet.wants(guarded.name, now))

    def granted(self, guarded: SharedBreaker) -> None:
        """Nothing more to do."""

    def ended(self, guarded: SharedBreaker, ended: Ended) -> None:
        """A lease is no more."""
        self._do(self._fleet.ended(guarded.name, ended.token, ended.end, ended.at))

    # Redis ----------------------------------------------------------------------------------------------------------

    def _link_changed(self, up: bool) -> None:
        now = monotonic()
        self._do(self._fleet.connected(now) if up else self._fleet.lost(now))

    def _hear(self, payload: bytes) -> None:
        """A message on the channel."""
        found = self._port.hint(payload)
        if found is None:
            self._garbled.value += 1
            self._observer.tell(
                Kind.FLEET_NOTICED, "messages", level=Level.WARNING, reason="garbled", every=_TELL_AGAIN,
                detail="somebody else writes on the channel; what it says is passed over",
            )  # fmt: skip
            return
        self._do(self._fleet.heard(*found, monotonic()))

    async def _send(self, sent: Send) -> None:
        try:
            answer = await self._port.run(sent)
        except (RedisGone, RedisRefused) as error:
            self._failed(sent, error)
        else:
            self._do(self._fleet.answered(sent, answer, monotonic()))

    async def _sync(self, sync: Sync) -> None:
        try:
            answer = await self._port.sync(sync)
        except (RedisGone, RedisRefused) as error:
            self._failed(sync, error)
        else:
            self._do(self._fleet.synced(sync, answer, monotonic()))

    def _failed(self, sent: Send | Sync, error: Exception) -> None:
        gone = isinstance(error, RedisGone)
        if not gone:
            from sidecar.control.redis_link import advice

            self._observer.tell(Kind.FLEET_NOTICED, "redis", level=Level.WARNING, reason=str(error),
                                detail=advice(str(error)), every=_TELL_AGAIN, about=str(error)[:20])  # fmt: skip
        self._do(self._fleet.failed(sent, monotonic(), gone=gone))

    # Deeds ----------------------------------------------------------------------------------------------------------

    def _do(self, deeds: list[Deed]) -> None:
        for deed in deeds:
            match deed:
                case Send():
                    self._spawn(self._send(deed))
                case Sync():
                    self._spawn(self._sync(deed))
                case Ordered():
                    waiting = self._orders.get(deed.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(deed)
                case Noticed():
                    self._notice(deed)
                case Adopt() | Lend() | Alone():
                    self._tell(deed)
        self._wake.set()

    def _tell(self, deed: Adopt | Lend | Alone) -> None:
        found = self._breakers().get(deed.name)
        if isinstance(deed, Adopt):
            if found is not None:
                found.adopt(deed.told)
        elif isinstance(deed, Alone):
            if found is not None:
                found.alone()
        elif found is not None and found.breaker.led:
            found.grant(deed.leases)
        else:
            for lease in deed.leases:
                self._do(self._fleet.ended(deed.name, lease.token, TrialEnd.UNUSED, monotonic()))

    def _notice(self, noticed: Noticed) -> None:
        level = Level.WARNING if noticed.detail else Level.INFO
        reason = "unequal" if noticed.about == "configs" else "page"
        self._observer.tell(Kind.FLEET_NOTICED, noticed.about, level=level, reason=reason, detail=noticed.detail)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
