"""What one replica does toward the fleet, all its breakers together: it shows that it lives, and reads what changed.

One `Sync` serves every breaker: each SYNC seconds when all is well, jittered, so that a healthy replica costs a tenth
of an operation a second however many upstreams it has. While something is open, forced or tripped the keeper is read
more often, so that a keeper that was emptied is told in time: WATCH seconds, or as the whole fleet together
reads WATCHES_PER_SECOND times.

Each `Sync` says whether this replica carries traffic (some within IDLE_AFTER; a fresh one counts as carrying). The
count of those who do is what a quorum is measured against; the highest of MEMORY seconds is used, since a keeper
that has just been emptied counts only who has spoken since. For the same reason nobody believes to be the only one
so long after it connected.

Every method takes `now` and returns what is to be done, in order. `tick` is due from `deadline` on.
"""

import zlib
from math import inf
from typing import Any

import msgspec

from sidecar.base.backoff import Uniform, spread
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.deeds import Deed, Noticed, Ordered, Send, Sync, Synced
from sidecar.machines.fleet.leases import TrialEnd
from sidecar.machines.fleet.member import Around, Member
from sidecar.machines.fleet.page import DEFAULT_QUORUM
from sidecar.machines.fleet.words import Answer, Record

SYNC = 10.0
WATCH = 1.5
WATCHES_PER_SECOND = 20.0
IDLE_AFTER = 60.0
MEMORY = 75.0
JITTER = 0.1
RECONNECTS_PER_SECOND = 1000.0
LONGEST_RECONNECT = 2.0


class Fleet:
    """This replica among the others."""

    def __init__(self, me: str, uniform: Uniform, now: float) -> None:
        """`me`: this replica's name, that no other has and that a restart keeps."""
        self._around = Around(me, f"{int(uniform() * 2**32):08x}", uniform)
        self._uniform = uniform
        self._members: dict[str, Member] = {}
        self._sync_at = inf
        self._syncing = False
        self._traffic_at = now
        self._counts: list[tuple[float, int]] = []  # when, how many carried traffic
        self._expect_company(now)
        self._replicas = 0
        self._heard_at: float | None = None
        self._noticed: dict[str, str] = {}
        self._orders = 0

    # ------------------------------------------------------------------ who takes part

    def follow(self, name: str, policy: BreakerPolicy) -> None:
        """Share this breaker from now on; again with another policy after a reload."""
        member = self._members.get(name)
        if member is None:
            self._members[name] = Member(name, policy, self._around)
            self._hurry(0.0)
        else:
            member.policy = policy

    def unfollow(self, name: str) -> None:
        """The breaker is no more."""
        self._members.pop(name, None)
        self._noticed.pop(name, None)

    def carries(self, now: float) -> None:
        """Calls pass here."""
        self._traffic_at = now

    def connected(self, now: float) -> list[Deed]:
        """The tie to the keeper is there."""
        self._around.up = True
        self._expect_company(now)
        for member in self._members.values():
            member.connected(now)
        crowd = min(LONGEST_RECONNECT, (self._around.carrying - 1) / RECONNECTS_PER_SECOND)
        self._sync_at = now + self._uniform() * crowd
        return self.tick(now)

    def lost(self, now: float) -> list[Deed]:
        """It broke."""
        self._around.up = False
        self._sync_at = inf
        for member in self._members.values():
            member.lost(now)
        return self.tick(now)

    # ------------------------------------------------------------------ what the breakers here tell

    def tripped(self, name: str, now: float, *, seconds: float, reason: str, detail: str) -> list[Deed]:
        """It opened by itself for `seconds`."""
        return self._about(name, now, lambda member: member.tripped(now, seconds, reason, detail))

    def untripped(self, name: str, now: float, *, closed: bool) -> list[Deed]:
        """It left that state by itself: half open, or closed."""
        return self._about(name, now, lambda member: member.untripped(now, closed=closed))

    def wants(self, name: str, now: float) -> list[Deed]:
        """A call was refused that a lease would have let through."""
        return self._about(name, now, lambda member: member.wants(now))

    def ended(self, name: str, token: str, outcome: TrialEnd, now: float, detail: str = "") -> list[Deed]:
        """What came of a lease."""
        return self._about(name, now, lambda member: member.ended(token, outcome, now, detail))

    def again(self, name: str, now: float) -> list[Deed]:
        """The fleet's word once more: an order that was given here, and stood above it, is over."""
        return self._about(name, now, lambda member: member.again(now))

    def inherit(self, name: str, order: Record, now: float) -> list[Deed]:
        """A predecessor followed this order of the fleet's; what is newer counts, and who lost it is told again."""
        return self._about(name, now, lambda member: member.inherit(order, now))

    def orders(self, now: float) -> dict[str, Record]:
        """The fleet's orders that are followed here, by the breaker's name."""
        found = {name: member.ordered(now) for name, member in self._members.items()}
        return {name: order for name, order in found.items() if order is not None}

    def order(
        self, name: str, state: BreakerState, now: float, *, seconds: float | None, by: str, why: str
    ) -> tuple[int, list[Deed]]:
        """An order for all: FORCED_OPEN, FORCED_CLOSED, or CLOSED to take it back. Returns its number, too."""
        self._orders += 1
        number = self._orders
        if name not in self._members:
            return number, [Ordered(number, ok=False, why="this breaker is not shared")]
        return number, self._about(name, now, lambda one: one.order(state, seconds, by, why, number, now))

    # ------------------------------------------------------------------ what the keeper tells

    def heard(self, name: str, record: Record, now: float) -> list[Deed]:
        """A hint that something changed; may be late, twice, or about nobody here."""
        return self._about(name, now, lambda member: member.heard(record, now, sure=False))

    def answered(self, sent: Send, answer: Answer, now: float) -> list[Deed]:
        """A `Send` was carried out."""
        self._heard_at = now
        return self._about(sent.name, now, lambda member: member.answered(sent, answer, now))

    def synced(self, sync: Sync, answer: Synced, now: float) -> list[Deed]:
        """The answer to a `Sync`."""
        self._syncing = False
        self._heard_at = now
        self._replicas = answer.replicas
        self._counts = [(at, count) for at, count in self._counts if at > now - MEMORY]
        self._counts.append((now, answer.carrying))
        self._around.carrying = max(1, *(count for _, count in self._counts))
        deeds = self._notice("configs", "" if answer.configs <= 1 else f"{answer.configs} different ones")
        for name, known in sync.known.items():
            member = self._members.get(name)
            if member is None:
                continue
            deeds += self._notice(name, answer.foreign.get(name, ""))
            if name in answer.foreign:
                deeds += member.cut_off()
                continue
            record = answer.records.get(name)
            if record is not None:
                deeds += member.heard(record, now, sure=True)
            elif (member.record.epoch, member.record.state) == known:
                deeds += member.same(now)
            deeds += member.synced(now)
        self._sync_at = now + spread(self._period(), JITTER, self._uniform)
        return deeds

    def failed(self, sent: Send | Sync, now: float, *, gone: bool) -> list[Deed]:
        """No answer (`gone`), or a refusal."""
        if isinstance(sent, Send):
            return self._about(sent.name, now, lambda member: member.failed(sent, now, gone=gone))
        self._syncing = False
        if self._around.up:
            self._sync_at = now + spread(self._period(), JITTER, self._uniform)
        return []

    # ------------------------------------------------------------------ time

    @property
    def deadline(self) -> float:
        """When `tick` has something to do."""
        return min(self._sync_at, min((member.deadline for member in self._members.values()), default=inf))

    def tick(self, now: float) -> list[Deed]:
        """Do what is due."""
        deeds: list[Deed] = []
        for member in self._members.values():
            if member.deadline <= now:
                deeds += member.tick(now)
        if self._sync_at <= now:
            self._sync_at = inf
            deeds += self._sync(now)
        return deeds

    def _expect_company(self, now: float) -> None:
        """Nobody is alone before the others had the time to beat, too: a count may be of an emptied keeper."""
        self._counts = [(now, max(DEFAULT_QUORUM, self._around.carrying))]
        self._around.carrying = self._counts[0][1]

    def _sync(self, now: float) -> list[Deed]:
        if self._syncing or not self._around.up or not self._members:
            return []
        self._syncing = True
        known = {name: (member.record.epoch, member.record.state) for name, member in self._members.items()}
        return [Sync(known, now - self._traffic_at < IDLE_AFTER, self.config, now)]

    def _period(self) -> float:
        if any(member.uneasy for member in self._members.values()):
            return min(SYNC, max(WATCH, self._around.carrying / WATCHES_PER_SECOND))
        return SYNC

    def _hurry(self, when: float) -> None:
        """Sync no later than that; meanwhile an answer that is on its way plans the next."""
        if self._around.up and not self._syncing:
            self._sync_at = min(self._sync_at, when)

    def _about(self, name: str, now: float, do: Any) -> list[Deed]:
        member = self._members.get(name)
        if member is None:
            return []
        deeds: list[Deed] = do(member)
        if member.uneasy:
            self._hurry(now + self._period() * (1.0 - JITTER * self._uniform()))
        return deeds

    def _notice(self, about: str, detail: str) -> list[Deed]:
        if self._noticed.get(about, "") == detail:
            return []
        self._noticed[about] = detail
        return [Noticed(about, detail)]

    # ------------------------------------------------------------------ for people

    @property
    def config(self) -> str:
        """Tells apart replicas whose breakers are configured unequally."""
        figures = [
            (name, one.policy.half_open_permits, one.policy.half_open_successes, one.policy.half_open_timeout,
             one.policy.open_for, one.policy.open_max, one.policy.open_multiplier, one.policy.quorum)
            for name, one in sorted(self._members.items())
        ]  # fmt: skip
        return f"{zlib.crc32(msgspec.json.encode(figures)):08x}"

    def epoch(self, name: str) -> int:
        """Of the record that this replica believes; 0: none heard of, or not shared."""
        member = self._members.get(name)
        return member.record.epoch if member else 0

    def view(self, name: str, now: float) -> dict[str, Any] | None:
        """What this replica knows of the fleet's breaker; None: not shared."""
        member = self._members.get(name)
        if member is None:
            return None
        record = member.record
        return {
            "state": record.state.value,
            "epoch": record.epoch,
            "remaining_seconds": None if member.until == inf else round(max(0.0, member.until - now), 1),
            "reason": record.reason,
            "detail": record.detail,
            "by": record.by,
            "reopened": record.reopened,
            "alone": member.alone or not self._around.up,
            "heard_seconds_ago": None if self._heard_at is None else round(now - self._heard_at, 1),
            "replicas": self._replicas,
            "carrying": self._around.carrying,
            "quorum": member.policy.quorum or max(1, min(DEFAULT_QUORUM, self._around.carrying)),
            "fault": self._noticed.get(name) or self._noticed.get("configs") or None,
        }
