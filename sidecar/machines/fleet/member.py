"""What one replica does toward the fleet about one breaker: when it votes, asks, reports, restores, whom it believes.

**Believes** the record of the highest epoch it has heard of, whoever brought it; epochs never fall here. An answer of
a lower epoch means that the keeper lost its memory, or that the answer is late: to send what we know (`Restore`) mends
the first and changes nothing in the second. A hint of a lower epoch is late, always. The same epoch for another state:
the keeper gave it twice, before and after a loss under a clock that fell back; mended likewise, one epoch later.

**Votes** when its own breaker opened while the fleet's is closed, a moment later the larger the fleet is: then few
of a crowd that trips at once vote before they hear that the rest is not needed. Again at every sync while it lasts.

**Asks** for leases only when somebody was refused, once the open period is over by its own clock: spread so that
the whole fleet asks ASKS_PER_SECOND times, however many there are. A lease's time counts from when it was asked for.

**Alone** it is PATIENCE after the connection broke, unless the keeper answered meanwhile, or when the keeper refuses
DEAF_AFTER asks in a row: an open breaker goes on by itself then. What it found out alone counts once the tie is back:
closed, it heals the fleet if nobody else has changed anything; otherwise it does as the fleet does. An order stands
until its end, also alone.
"""

from math import ceil, inf

import msgspec

from sidecar.base.backoff import Uniform, exponential
from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Snapshot
from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.deeds import Adopt, Alone, Deed, Lend, Ordered, Send
from sidecar.machines.fleet.leases import Lease, TrialEnd
from sidecar.machines.fleet.words import (
    FORCED,
    NO_END,
    Answer,
    Ask,
    Did,
    Force,
    Heal,
    Record,
    Report,
    Restore,
    Return,
    Vote,
    Withdraw,
)

ASKS_PER_SECOND = 50.0
"""Of the whole fleet, for one breaker."""
VOTE_SPREAD = 0.0005
"""Seconds per replica with traffic over which votes are spread."""
LONGEST_VOTE_SPREAD = 1.0
ASK_AGAIN = 0.25
USE_WITHIN = 1.0
"""A lease that no call took by then goes back."""
PATIENCE = 2.0
DEAF_AFTER = 3
RETRY = 1.0
VOTE_AGAIN = 5.0
MOST_TRIES = 5
"""Of an order whose epoch was overtaken."""
MOST_UNSENT = 64
LONGEST = 200
"""Characters of what people write."""
REOPEN_JITTER = 0.1
WORDS = {
    TrialEnd.FAILED: Reason.TRIAL_FAILED,
    TrialEnd.SLOW: Reason.TRIAL_SLOW,
    TrialEnd.TIMEOUT: Reason.TRIAL_TIMEOUT,
}
NEVER = Record()
"""Before anything was heard."""
WELL = "found well while cut off"
LED = (BreakerState.OPEN, BreakerState.HALF_OPEN)


class Around:
    """What a replica knows of the others; shared by its members."""

    __slots__ = ("_tokens", "carrying", "life", "me", "uniform", "up")

    def __init__(self, me: str, life: str, uniform: Uniform) -> None:
        self.me = me
        self.life = life
        self.uniform = uniform
        self.up = False
        self.carrying = 1
        """Most replicas with traffic seen lately, this one included."""
        self._tokens = 0

    def tokens(self, count: int) -> tuple[str, ...]:
        """Names that nobody else gives."""
        self._tokens += count
        return tuple(f"{self.me}:{self.life}:{self._tokens - place}" for place in range(count))


class Member:
    """One breaker."""

    __slots__ = (
        "_alone_at",
        "_around",
        "_ask_at",
        "_asking",
        "_deaf",
        "_healed",
        "_leases",
        "_not_before",
        "_tokens",
        "_trip",
        "_unsent",
        "_vote_at",
        "_voted",
        "_wanted",
        "alone",
        "name",
        "policy",
        "record",
        "until",
    )

    def __init__(self, name: str, policy: BreakerPolicy, around: Around) -> None:
        self.name = name
        self.policy = policy
        self._around = around
        self.record = NEVER
        self.until = inf
        """End of the open period or the order, here."""
        self.alone = False
        self._healed = False
        self._alone_at = inf
        self._trip: tuple[float, str, str] | None = None  # until, reason, detail
        self._vote_at = inf
        self._voted = False
        self._wanted = False
        self._ask_at = inf
        self._not_before = -inf
        self._asking = False
        self._tokens: tuple[str, ...] = ()  # asked for, without an answer
        self._deaf = 0
        self._leases: dict[str, int] = {}  # token -> epoch
        self._unsent: dict[str, Report] = {}

    # ------------------------------------------------------------------ what the breaker here tells

    def tripped(self, now: float, seconds: float, reason: str, detail: str) -> list[Deed]:
        """Our own breaker opened by itself for `seconds`."""
        self._healed = False
        self._trip = (now + seconds, reason, detail)
        spread = min(LONGEST_VOTE_SPREAD, VOTE_SPREAD * self._around.carrying)
        self._vote_at = now + self._around.uniform() * spread
        return self.tick(now)

    def untripped(self, now: float, *, closed: bool) -> list[Deed]:
        """It left that state by itself: half open, or closed."""
        if self.alone and closed:
            self._healed = True
        self._trip = None
        self._vote_at = inf
        if self._voted and self._around.up and self.record.state is BreakerState.CLOSED:
            self._voted = False
            return [self._send(Withdraw(voter=self._around.me), now)]
        self._voted = False
        return []

    def wants(self, now: float) -> list[Deed]:
        """A call was refused that a lease would have let through."""
        if self._wanted or self.alone or not self._around.up or self.record.state not in LED:
            return []
        self._wanted = True
        self._plan_ask(now)
        return self.tick(now)

    def ended(self, token: str, outcome: TrialEnd, now: float, detail: str = "") -> list[Deed]:
        """What came of a lease."""
        epoch = self._leases.pop(token, None)
        if epoch is None:
            return []
        if outcome is TrialEnd.UNUSED:
            return [self._send(Return(tokens=(token,)), now)] if self._around.up else []
        policy, ok = self.policy, outcome is TrialEnd.OK
        report = Report(
            holder=self._around.me,
            token=token,
            epoch=epoch,
            ok=ok,
            needed=policy.half_open_successes,
            period=0 if ok else self._next_period(),
            reason="" if ok else WORDS[outcome].value,
            detail="" if ok else detail[:LONGEST] or f"a trial call of {self._around.me} was no good",
        )
        if not self._around.up:
            self._keep(report)
            return []
        return [self._send(report, now)]

    def again(self, now: float) -> list[Deed]:
        """An order that was given here, and stood above the fleet's word, is over."""
        over = self.record.state in FORCED and self.until <= now
        if self.alone or over or self.record.state is BreakerState.CLOSED:
            return []
        return [Adopt(self.name, _snapshot(self._present(now)))]

    def inherit(self, order: Record, now: float) -> list[Deed]:
        """A predecessor followed this order of the fleet's, and so does our breaker: unless we have heard of newer."""
        if order.epoch > self.record.epoch:
            return self._adopt(order, now)
        return [Adopt(self.name, _snapshot(self._present(now)))]

    def ordered(self, now: float) -> Record | None:
        """The fleet's order that is followed here, as it is now; None: there is none."""
        over = self.record.state not in FORCED or self.until <= now
        return None if over else self._present(now)

    def order(
        self, state: BreakerState, seconds: float | None, by: str, why: str, number: int, now: float
    ) -> list[Deed]:
        """Somebody's order for all."""
        if not self._around.up:
            return [Ordered(number, ok=False, why="the fleet is out of reach")]
        lasting = NO_END if seconds is None else max(1, int(seconds * 1000))
        force = Force(epoch=self.record.epoch, state=state, lasting=lasting, by=by[:LONGEST], why=why[:LONGEST])
        return [Send(self.name, force, now, number)]

    # ------------------------------------------------------------------ what the keeper tells

    def heard(self, record: Record, now: float, *, sure: bool) -> list[Deed]:
        """A record: in an answer (`sure`), or as a hint."""
        over = record.epoch == self.record.epoch and self.record.reason == Reason.EXPIRED
        if record.state in FORCED and (record.left == 0 or over):
            record = Record(epoch=record.epoch, reason=Reason.EXPIRED)
        if record.epoch > self.record.epoch:
            return self._adopt(record, now)
        if not sure:
            return []
        self._alone_at = inf
        if self._healed and record.epoch < self.record.epoch:  # nobody is left who would say otherwise
            self.record, self.until = Record(epoch=self.record.epoch, reason=Reason.RECOVERED, detail=WELL), inf
            self.alone = self._healed = False
        if record.state is self.record.state:
            if record.epoch == self.record.epoch:
                return self.same(now)
            if record.state is BreakerState.CLOSED:
                return []
        mine = self._present(now)
        if record.epoch == self.record.epoch:
            mine = msgspec.structs.replace(mine, epoch=mine.epoch + 1)
        return [self._send(Restore(record=mine), now)]

    def same(self, now: float) -> list[Deed]:
        """The keeper knows what we know."""
        self._alone_at = inf
        if not self.alone:
            return []
        if self._healed:
            return [self._send(Heal(epoch=self.record.epoch, detail=WELL), now)]
        return self._adopt(self._present(now), now)

    def synced(self, now: float) -> list[Deed]:
        """The keeper was read, whatever it said: time for what waits."""
        deeds: list[Deed] = []
        if self._trip and self._vote_at == inf and self.record.state is BreakerState.CLOSED:
            self._vote_at = now
        unsent, self._unsent = self._unsent, {}
        deeds += [self._send(report, now) for report in unsent.values()]
        if self._tokens and not self._asking and not self._wanted:
            deeds.append(self._send(Return(tokens=self._tokens), now))
            self._tokens = ()
        return deeds + self.tick(now)

    def answered(self, sent: Send, answer: Answer, now: float) -> list[Deed]:
        """What the keeper made of our command."""
        self._deaf = 0
        deeds = self.heard(answer.record, now, sure=True)
        match sent.command:
            case Ask():
                deeds += self._answered_ask(sent, sent.command, answer, now)
            case Vote() if answer.did == Did.STALE and self._trip:
                self._vote_at = now
            case Report() if answer.did == Did.COUNTED:
                self._not_before = now
            case Force() if answer.did == Did.ORDERED:
                deeds.append(Ordered(sent.number, ok=True))
            case Force() if sent.tries < MOST_TRIES:
                again = msgspec.structs.replace(sent.command, epoch=self.record.epoch)
                deeds.append(Send(self.name, again, now, sent.number, sent.tries + 1))
            case Force():
                deeds.append(Ordered(sent.number, ok=False, why="the state changed again and again meanwhile"))
            case Heal():
                self._healed = False
                if self.alone:
                    deeds += self.same(now)
            case _:
                pass
        return deeds + self.tick(now)

    def failed(self, sent: Send, now: float, *, gone: bool) -> list[Deed]:
        """Our command got no answer (`gone`) or was refused."""
        match sent.command:
            case Ask():
                self._asking = False
                self._wanted = False
                self._not_before = now + RETRY * (0.5 + self._around.uniform())
                if not gone:
                    self._deaf += 1
                    if self._deaf >= DEAF_AFTER:
                        return self.cut_off()
            case Vote() if not gone:
                self._vote_at = now + VOTE_AGAIN
            case Report():
                self._keep(sent.command)
            case Force():
                return [Ordered(sent.number, ok=False, why="Redis did not answer; it may still be carried out")]
            case _:
                pass
        return []

    # ------------------------------------------------------------------ the tie, and time

    def lost(self, now: float) -> None:
        """The connection broke."""
        self._wanted = False
        self._ask_at = self._vote_at = inf
        if self.record.state in LED and not self.alone:
            self._alone_at = min(self._alone_at, now + PATIENCE)

    def connected(self, now: float) -> None:
        """It is back; a sync follows, whose answer counts: a keeper that never answers is none."""
        if self._trip is not None:
            self._vote_at = now + self._around.uniform() * RETRY

    def cut_off(self) -> list[Deed]:
        """Nothing can be agreed about this one: go on alone."""
        self._alone_at = inf
        if self.alone or self.record.state not in LED:
            return []
        self.alone, self._healed = True, False
        self._wanted, self._ask_at = False, inf
        return [Alone(self.name)]

    @property
    def uneasy(self) -> bool:
        """Whether the keeper should be looked at more often than when all is well."""
        return self.record.state is not BreakerState.CLOSED or self._trip is not None

    @property
    def deadline(self) -> float:
        """When `tick` has something to do."""
        over = self.until if self.record.state in FORCED else inf
        return min(self._vote_at, self._ask_at, self._alone_at, over)

    def tick(self, now: float) -> list[Deed]:
        """Do what is due."""
        deeds: list[Deed] = []
        if self.record.state in FORCED and self.until <= now:
            self.record, self.until = Record(epoch=self.record.epoch, reason=Reason.EXPIRED), inf
        if self._alone_at <= now:
            deeds += self.cut_off()
        if self._vote_at <= now:
            self._vote_at = inf
            deeds += self._vote(now)
        if self._ask_at <= now:
            self._ask_at = inf
            deeds += self._ask(now)
        return deeds

    # ------------------------------------------------------------------ how

    def _adopt(self, record: Record, now: float) -> list[Deed]:
        before, self.record = self.record, record
        self.until = inf if record.left == NO_END else now + record.left / 1000
        self.alone = self._healed = False
        self._alone_at = inf if self._around.up or record.state not in LED else now + PATIENCE
        deeds: list[Deed] = []
        if record.epoch != before.epoch and self._tokens and not self._asking:
            deeds.append(self._send(Return(tokens=self._tokens), now))
            self._tokens = ()
        if record.state is not BreakerState.HALF_OPEN:
            self._wanted, self._ask_at = False, inf
        elif self._wanted and not self._asking:
            self._ask_at = min(self._ask_at, now + self._share(ASKS_PER_SECOND))
        if record.state is BreakerState.CLOSED:
            ordered = record.reason == Reason.RESET and before.epoch > 0
            if before.state is BreakerState.CLOSED and not ordered:
                if self._trip is not None:
                    self._vote_at = min(self._vote_at, now)
                return deeds
        self._trip, self._vote_at, self._voted = None, inf, False
        return [*deeds, Adopt(self.name, _snapshot(record))]

    def _vote(self, now: float) -> list[Deed]:
        if self._trip is None or not self._around.up or self.record.state is not BreakerState.CLOSED:
            return []
        until, reason, detail = self._trip
        lasting = int((until - now) * 1000)
        if lasting <= 0:
            return []
        self._voted = True
        vote = Vote(
            voter=self._around.me,
            epoch=self.record.epoch,
            lasting=lasting,
            period=int(self.policy.open_for * 1000),
            quorum=self.policy.quorum or 0,
            carrying=self._around.carrying,
            reason=reason,
            detail=detail[:LONGEST],
        )
        return [self._send(vote, now)]

    def _plan_ask(self, now: float) -> None:
        over = self.until if self.record.state is BreakerState.OPEN else now
        self._ask_at = max(now, over, self._not_before) + self._share(ASKS_PER_SECOND)

    def _ask(self, now: float) -> list[Deed]:
        if self._asking or not self._around.up or self.alone or self.record.state not in LED:
            return []
        if not self._tokens:
            share = ceil(self.policy.half_open_permits / max(1, self._around.carrying))
            self._tokens = self._around.tokens(share)
        self._asking = True
        ask = Ask(
            holder=self._around.me,
            epoch=self.record.epoch,
            tokens=self._tokens,
            permits=self.policy.half_open_permits,
            ttl=int(self.policy.half_open_timeout * 1000),
            due=self.record.state is BreakerState.OPEN and now >= self.until,
            carrying=self._around.carrying,
        )
        return [self._send(ask, now)]

    def _answered_ask(self, sent: Send, ask: Ask, answer: Answer, now: float) -> list[Deed]:
        self._asking = self._wanted = False
        self._tokens = ()
        if answer.did != Did.GRANTED:
            again = max(ASK_AGAIN, self._around.carrying / ASKS_PER_SECOND) * (0.5 + self._around.uniform())
            self._not_before = now + (max(again, answer.wait / 1000) if answer.did == Did.BARRED else again)
            return []
        taken, void = [], []
        margin = min(1.0, ask.ttl / 10_000)
        for grant in answer.grants:
            deadline = sent.at + grant.left / 1000 - margin
            if grant.epoch == self.record.epoch and not self.alone and deadline > now:
                self._leases[grant.token] = grant.epoch
                taken.append(Lease(grant.token, min(now + USE_WITHIN, deadline), deadline))
            else:
                void.append(grant.token)
        deeds: list[Deed] = [Lend(self.name, tuple(taken))] if taken else []
        return [*deeds, self._send(Return(tokens=tuple(void)), now)] if void else deeds

    def _next_period(self) -> int:
        policy = self.policy
        grown = exponential(self.record.reopened + 1, policy.open_for, policy.open_max, policy.open_multiplier)
        jitter = 1.0 + REOPEN_JITTER * self._around.uniform()
        return int(min(grown, policy.open_max / (1.0 + REOPEN_JITTER)) * jitter * 1000)

    def _share(self, per_second: float) -> float:
        """A moment that spreads the whole fleet's over so many a second; none when there is nobody else."""
        others = self._around.carrying - 1
        return self._around.uniform() * others / per_second

    def _present(self, now: float) -> Record:
        """The record as it is now."""
        if self.until == inf:
            return self.record
        return msgspec.structs.replace(self.record, left=max(0, ceil(round((self.until - now) * 1000, 3))))

    def _keep(self, report: Report) -> None:
        self._unsent[report.token] = report
        while len(self._unsent) > MOST_UNSENT:
            del self._unsent[next(iter(self._unsent))]

    def _send(self, command: Vote | Withdraw | Ask | Report | Return | Restore | Heal, now: float) -> Send:
        return Send(self.name, command, now)


def _snapshot(record: Record) -> Snapshot:
    forced = record.state in FORCED
    return Snapshot(
        state=record.state,
        reason=record.reason,
        detail=record.detail,
        remaining=record.left_seconds,
        reopened=record.reopened,
        ordered_by=record.by if forced else "",
        ordered_why=record.detail if forced else "",
    )
