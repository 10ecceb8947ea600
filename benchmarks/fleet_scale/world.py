"""A fleet on virtual time: each replica's real machines, one Redis that takes its time, a network of a millisecond.

Redis is one queue: a command costs what `price.py` measured, a change of state is told to every subscriber at the price
of each. One upstream is called by every replica, once a second; it fails for all of them for a while. The others are
well and only cost their place in each sync. Half way through the open period Redis is emptied.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from math import inf
from typing import Any

import msgspec

from benchmarks.fleet_scale.price import Prices
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Breaker, Refusal, Trial
from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.deeds import Adopt, Alone, Deed, Lend, Send, Sync
from sidecar.machines.fleet.leases import Ended
from sidecar.machines.fleet.replica import Fleet
from sidecar.machines.fleet.store import FleetStore
from sidecar.machines.fleet.words import Answer, Record
from sidecar.machines.transition import Transition

NAME = "upstream-0"
POLICY = BreakerPolicy(failure_rate=0.0, slow_rate=0.0)
LATENCY = 0.0005
"""Seconds one way, on average."""
ANSWERS_AFTER = 0.02
"""Seconds that a call takes, good or bad."""
START, HEALTHY, FAILS, FLUSHED, WELL, ENDS = 0.0, 30.0, 90.0, 130.0, 190.0, 260.0
"""When everybody has started · the outage begins · Redis is emptied · the outage ends · the end; seconds."""
KEY = len("{shop:orders}:breaker:") + 12
"""Bytes of a usual page's key."""


class Change(msgspec.Struct):
    """A record that all had to hear of."""

    at: float
    state: str
    reason: str
    heard: list[float] = []
    """Seconds from the change until each replica had adopted it."""


class Second(msgspec.Struct):
    """What Redis did within one second."""

    syncs: int = 0
    commands: int = 0
    told: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    busy: float = 0.0


class World:
    """Everything at once."""

    def __init__(self, sidecars: int, upstreams: int, prices: Prices, seed: int = 1) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.prices = prices
        self.upstreams = [f"upstream-{number}" for number in range(upstreams)]
        self.seconds: dict[int, Second] = {}
        self.changes: dict[int, Change] = {}
        self.kinds: Counter[str] = Counter()
        self.trials = 0
        self.most_trials = 0
        self.trial_calls = 0
        self.failing_calls = 0
        self.restored: float | None = None
        self._store = FleetStore()
        self._busy_until = 0.0
        self._events: list[tuple[float, int, Any, Any]] = []
        self._count = 0
        self.replicas = [Replica(number, self) for number in range(sidecars)]
        for one in self.replicas:
            self.at(self.dice.random() * 10.0, one.connect, None)
            self.at(FAILS + self.dice.expovariate(1.0), one.call, None)
        self.at(FLUSHED, self._flush, None)

    @property
    def well(self) -> bool:
        return not FAILS <= self.now < WELL

    def at(self, when: float, do: Any, what: Any) -> None:
        """Let `do(what)` happen then."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do, what))

    def run(self) -> Iterator[float]:
        """To the end; yields each virtual second."""
        whole = 1.0
        while self._events and self._events[0][0] < ENDS:
            self.now, _, do, what = heapq.heappop(self._events)
            do(what)
            if self.now >= whole:
                yield whole
                whole += 1.0

    def travel(self) -> float:
        """Seconds that a message takes."""
        return LATENCY * (0.5 + self.dice.expovariate(2.0))

    def second(self) -> Second:
        return self.seconds.setdefault(int(self.now), Second())

    # Redis ----------------------------------------------------------------------------------------------------------

    def serve(self, asked: tuple["Replica", Send | Sync]) -> None:
        """A command arrives at Redis: it waits for its turn, and is answered."""
        one, sent = asked
        second = self.second()
        if isinstance(sent, Sync):
            answer: Any = self._store.sync(one.me, sent, self._us())
            price = self.prices.beat
            second.syncs += 1
            second.bytes_in += 130 + len(sent.known) * (KEY + 20)
            second.bytes_out += 40 + 450 * len(answer.records)
        else:
            answer = self._store.run(sent, self._us())
            price = self.prices.command
            second.commands += 1
            second.bytes_in += 150 + 2 * KEY + len(msgspec.json.encode(sent.command))
            second.bytes_out += 260
            self.kinds[f"{type(sent.command).__name__.lower()} {answer.did}"] += 1
        done = self._work(price)
        self.at(done + self.travel(), one.hear, (sent, answer))
        if isinstance(answer, Answer) and answer.changed:
            self._tell(answer.record)

    def _work(self, microseconds: float) -> float:
        start = max(self.now, self._busy_until)
        self._busy_until = start + microseconds / 1e6
        self.second().busy += microseconds / 1e6
        return self._busy_until

    def _tell(self, record: Record) -> None:
        """Everybody who listens, one after the other."""
        self.changes[record.epoch] = Change(self.now, record.state.value, str(record.reason))
        if self.restored is None and self.now > FLUSHED:
            self.restored = self.now - FLUSHED
        second = self.second()
        second.told += len(self.replicas)
        second.bytes_out += 330 * len(self.replicas)
        for one in self.replicas:
            self.at(self._work(self.prices.tell) + self.travel(), one.hint, record)

    def _us(self) -> int:
        return 1_700_000_000_000_000 + int(self.now * 1e6)

    def _flush(self, _: None) -> None:
        self._store.pages.clear()
        self._store.forget_peers()


class Replica:
    """One sidecar."""

    __slots__ = ("_world", "breaker", "epoch", "fleet", "me", "wakes")

    def __init__(self, number: int, world: World) -> None:
        self._world = world
        self.me = f"orders-{number}"
        self.fleet = Fleet(self.me, world.dice.random, 0.0)
        for name in world.upstreams:
            self.fleet.follow(name, POLICY)
        self.breaker = Breaker(POLICY, world.dice.random)
        self.epoch = 0
        self.wakes = inf

    def connect(self, _: None) -> None:
        self.do(self.fleet.connected(self._world.now))

    def call(self, _: None) -> None:
        """A call to the upstream that fails for all; the next one a second later."""
        world, now = self._world, self._world.now
        world.at(now + world.dice.expovariate(1.0), self.call, None)
        self.fleet.carries(now)
        permit = self.breaker.admit(now)
        if isinstance(permit, Refusal):
            if self.breaker.led:
                self.do(self.fleet.wants(NAME, now))
            return
        if isinstance(permit, Trial):
            world.trials += 1
            world.trial_calls += 1
            world.most_trials = max(world.most_trials, world.trials)
            self.change(permit.transition)
        if not world.well:
            world.failing_calls += 1
        world.at(now + ANSWERS_AFTER, self.answered, permit)

    def answered(self, permit: Any) -> None:
        world = self._world
        if isinstance(permit, Trial):
            world.trials -= 1
        self.change(self.breaker.record(permit, world.now, ok=world.well))

    def change(self, change: Any) -> None:
        now = self._world.now
        if isinstance(change, Ended):
            self.do(self.fleet.ended(NAME, change.token, change.end, now))
        elif isinstance(change, Transition) and change.reason is not Reason.SHARED:
            if change.new is BreakerState.OPEN:
                seconds = self.breaker.snapshot(now).remaining or 0.0
                self.do(self.fleet.tripped(NAME, now, seconds=seconds, reason=str(change.reason), detail=change.detail))
            else:
                self.do(self.fleet.untripped(NAME, now, closed=change.new is BreakerState.CLOSED))

    def hear(self, answered: tuple[Send | Sync, Any]) -> None:
        sent, answer = answered
        now = self._world.now
        self.fleet.carries(now)
        if isinstance(sent, Sync):
            self.do(self.fleet.synced(sent, answer, now))
        else:
            self.do(self.fleet.answered(sent, answer, now))

    def hint(self, record: Record) -> None:
        self.do(self.fleet.heard(NAME, record, self._world.now))

    def wake(self, _: None) -> None:
        self.wakes = inf
        now = self._world.now
        while self.breaker.deadline <= now:
            self.change(self.breaker.expire(now))
        self.do(self.fleet.tick(now))

    def do(self, deeds: list[Deed]) -> None:
        world, now = self._world, self._world.now
        for deed in deeds:
            if isinstance(deed, Send | Sync):
                world.at(now + world.travel(), world.serve, (self, deed))
            elif isinstance(deed, Adopt):
                self.change(self.breaker.adopt(deed.told, now))
            elif isinstance(deed, Lend):
                self.breaker.grant(deed.leases)
            elif isinstance(deed, Alone):
                self.change(self.breaker.alone(now))
        epoch = self.fleet.epoch(NAME)
        if epoch != self.epoch:
            self.epoch = epoch
            if (change := world.changes.get(epoch)) is not None:
                change.heard.append(now - change.at)
        due = max(now, min(self.fleet.deadline, self.breaker.deadline))
        if due < self.wakes:
            self.wakes = due
            world.at(due, self.wake, None)
