"""The pod: what several worker processes know of the breakers, agreed on in the program.

Theory. Each worker judges its own calls, but an upstream that fails for one fails for all. So the program holds one
breaker per name, the same machine that the workers run, and its callers are the workers: a worker's trip trips it,
every change of its state is told to all, and each trial call is dealt to a worker as a lease. So the limits on trial
calls and the successes that close it hold for the pod. It exports the states and tells the changes, once for all.

Rules. The first trial goes to a worker that had to refuse somebody (*hungry*); who returns one unused is so no more.
Whichever worker the kernel hands the next call should be able to try it: while half open, workers that were not hungry
have one lent in turn, too, so long as another is out. Those from beyond go to the hungry alone, since other pods may
want them. A worker that dies gives back what it was lent. Each word has an epoch, and a trip in reply to an older one
counts for nothing. Whoever shares the pod's breakers with other pods is *beyond*: a tie like any other.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.leases import Ended, TrialEnd
from sidecar.proxy.breakers import Guarded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.config.breaker import Breaker as BreakerPolicy
    from sidecar.config.document import Config
    from sidecar.machines.breaker import BreakerChange, Snapshot, Trial
    from sidecar.proxy.breakers import Tie
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

TOPIC = "breaker"
"""Of the frames that both say: `[name, verb, ...]`."""
USE_WITHIN = 1.0
"""Seconds in which a worker begins the trial that it was dealt, or returns it."""
_AT_ONCE = 16
"""Trials for each worker that are lent at once, however many the policy permits: each costs a frame."""
_GRACE = 0.5
"""Seconds beyond a trial's time in which the worker may tell how it ended."""
_ASK_AGAIN = 0.1
"""Seconds until those beyond are asked once more for leases that somebody here waits for."""
_AGAIN = 0.5
"""Seconds until a worker that did not read is told once more."""


class Member(Protocol):
    """A worker process."""

    def say(self, topic: str, payload: Any) -> bool:
        """Tell it something; False: it does not read."""


@dataclass
class _Shared:
    """A breaker of the pod."""

    guarded: Guarded
    epoch: int = 0
    hungry: dict[Member, None] = field(default_factory=dict)
    """In the order of their turns."""
    lent: dict[str, tuple[Member, Trial]] = field(default_factory=dict)
    dealt: dict[Member, None] = field(default_factory=dict)
    """Who was lent a trial, the last one last."""
    timer: asyncio.TimerHandle | None = None


class Pod:
    """Every breaker of the pod; the tie of each, too."""

    tells = False

    def __init__(self, registry: Registry, observer: Observer, beyond: Tie | None = None) -> None:
        self._registry = registry
        self._observer = observer
        self._beyond = beyond
        self._shared: dict[str, _Shared] = {}
        self._members: dict[Member, None] = {}
        self._behind: set[Member] = set()
        self._tokens = itertools.count(1)

    def apply(self, config: Config) -> None:
        """Hold the breakers of `config`; those that were there before keep their state."""
        wanted = dict(breakers_of(config))
        for name, policy in wanted.items():
            known = self._shared.get(name)
            if known is None:
                guarded = Guarded(name, policy, self._registry, self._observer, self)
                self._shared[name] = _Shared(guarded)
            else:
                known.guarded.reconfigure(policy)
        for name in self._shared.keys() - wanted:
            gone = self._shared.pop(name)
            gone.guarded.retire()
            if gone.timer is not None:
                gone.timer.cancel()

    def breakers(self) -> dict[str, Guarded]:
        """Every breaker by its name."""
        return {name: one.guarded for name, one in self._shared.items()}

    def restore(self, states: Mapping[str, Snapshot]) -> None:
        """Go on with a predecessor's breakers; the workers hear it before they are told to accept."""
        for name, one in self._shared.items():
            if name in states:
                one.guarded.restore(states[name])
                self.moved(one.guarded, None)

    # Workers --------------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> list[list[Any]]:
        """Tell `member` everything from now on; returns what it has to know first."""
        self._members[member] = None
        return [self._word(name, one) for name, one in self._shared.items() if one.epoch]

    def leave(self, member: Member) -> None:
        """It is gone, and what it was lent comes back."""
        self._members.pop(member, None)
        self._behind.discard(member)
        for name, one in list(self._shared.items()):
            one.hungry.pop(member, None)
            one.dealt.pop(member, None)
            for token, (holder, _) in list(one.lent.items()):
                if holder is member:
                    self._end(name, one, token, TrialEnd.UNUSED)

    def hear(self, member: Member, payload: Any) -> None:
        """What a worker said."""
        name, verb, *told = payload
        one = self._shared.get(name)
        if one is None:
            return  # a reload took it away meanwhile
        if verb == "tripped":
            epoch, reason, detail = told
            if epoch == one.epoch:
                change = one.guarded.breaker.trip(Reason(reason), detail, monotonic())
                if change is not None:
                    one.guarded.changed(change)
        elif verb == "wants":
            if one.guarded.breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
                one.hungry[member] = None
                self._deal(one)
        elif verb == "ended":
            token, end = told
            self._end(name, one, token, TrialEnd(end))
        elif verb == "behind":
            self._say(member, self._word(name, one))

    # Tie of each of its breakers ------------------------------------------------------------------------------------

    def moved(self, guarded: Guarded, change: BreakerChange | None) -> None:
        """Tell all workers."""
        one = self._shared.get(guarded.name)
        if one is not None:
            one.epoch += 1
            if guarded.breaker.state is not BreakerState.HALF_OPEN:
                one.hungry.clear()  # who is refused in this period says so anew
            for member in self._members:
                self._say(member, self._word(guarded.name, one))
            self._arm(one)
        if self._beyond is not None:
            self._beyond.moved(guarded, change)

    def refused(self, guarded: Guarded) -> None:
        """Nobody asks it but workers, who say what they want."""

    def granted(self, guarded: Guarded) -> None:
        """Leases from beyond: deal them."""
        self._deal(self._shared[guarded.name])

    def ended(self, guarded: Guarded, ended: Ended) -> None:
        """A lease from beyond is no more."""
        if self._beyond is not None:
            self._beyond.ended(guarded, ended)

    # How ------------------------------------------------------------------------------------------------------------

    def _word(self, name: str, one: _Shared) -> list[Any]:
        return [name, "word", one.epoch, msgspec.to_builtins(one.guarded.breaker.snapshot(monotonic()))]

    def _say(self, member: Member, payload: list[Any]) -> None:
        if member not in self._behind and not member.say(TOPIC, payload):
            self._behind.add(member)
            asyncio.get_running_loop().call_later(_AGAIN, self._tell_again, member)

    def _tell_again(self, member: Member) -> None:
        """It did not read: it has missed something, so it hears everything."""
        self._behind.discard(member)
        if member in self._members:
            for name, one in self._shared.items():
                self._say(member, self._word(name, one))

    def _deal(self, one: _Shared) -> None:
        """Lend trials, as many as there may be."""
        breaker = one.guarded.breaker
        while (member := self._next(one)) is not None:
            now = monotonic()
            trial = breaker.take(now, _GRACE)
            if trial is None:
                break
            one.guarded.trial(trial)
            if member in one.hungry:
                del one.hungry[member]
                one.hungry[member] = None  # the others come first now, and so they do below
            one.dealt.pop(member, None)
            one.dealt[member] = None
            token = str(next(self._tokens))
            one.lent[token] = (member, trial)
            self._say(member, [one.guarded.name, "lease", token, trial.deadline - _GRACE - now])
        if one.hungry and breaker.led and self._beyond is not None:
            self._beyond.refused(one.guarded)
        self._arm(one)

    def _next(self, one: _Shared) -> Member | None:
        """Whose turn it is to be lent a trial, if anybody's."""
        holders = {member for member, _ in one.lent.values()}
        breaker = one.guarded.breaker
        turns = [member for member in one.hungry if member not in holders]
        if breaker.led or self._members.keys() <= holders:
            turns += one.hungry if len(one.lent) < _AT_ONCE * len(self._members) else ()
        elif breaker.state is BreakerState.HALF_OPEN and holders:
            new = (member for member in self._members if member not in one.dealt)
            turns += (member for member in (*new, *one.dealt) if member not in holders)
        return next((member for member in turns if member not in self._behind), None)

    def _end(self, name: str, one: _Shared, token: str, end: TrialEnd) -> None:
        member, trial = one.lent.pop(token, (None, None))
        if member is None or trial is None:
            return
        if end is TrialEnd.UNUSED:
            one.hungry.pop(member, None)
        change = one.guarded.breaker.conclude(trial, end, monotonic())
        if change is not None:
            one.guarded.changed(change)
        if name in self._shared:
            self._deal(one)

    def _arm(self, one: _Shared) -> None:
        """Come back when something is due: a deadline, or the end of the open period that somebody waits for."""
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        now = monotonic()
        due = one.guarded.deadline
        breaker = one.guarded.breaker
        if one.hungry and (breaker.led or breaker.state is BreakerState.OPEN):
            left = breaker.snapshot(now).remaining or 0.0
            due = min(due, now + max(left, _ASK_AGAIN if breaker.led else 0.0))
        if due < float("inf"):
            one.timer = asyncio.get_running_loop().call_later(max(0.0, due - now) + 0.001, self._wake, one)

    def _wake(self, one: _Shared) -> None:
        one.timer = None
        one.guarded.expire(monotonic())
        self._deal(one)


def breakers_of(config: Config) -> Iterator[tuple[str, BreakerPolicy]]:
    """Name and policy of every breaker: the upstreams', and those of routes that have their own."""
    policies = {one.name: one.breaker for one in config.upstreams}
    yield from policies.items()
    for listener in config.listeners:
        for route in listener.routes:
            if route.breaker == "own":
                yield f"{route.upstream}/{route.name}", policies[route.upstream]
