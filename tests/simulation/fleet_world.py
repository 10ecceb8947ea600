"""A whole fleet in one process: replicas with their real machines, one Redis, a network that may do anything.

A **schedule** is a list of acts, each a word and a number; the number chooses among what is there (which replica, which
message), whatever that is. So any part of a schedule is a schedule, and a failing one is cut down to what matters.

What is real: `Fleet` and `Breaker` of each replica, and the keeper's store. What is simulated: time, which only acts
move; the connections, each of which may break at any moment; messages, which lie about until an act delivers, drops or
repeats one, in any order; processes that die, stop and start; a Redis that is emptied, falls back to an older state, or
whose clock jumps; upstreams that are down for all or for one replica only.

After every act the invariants are checked (`check`). At the end all faults end (`recover`): then the fleet must
agree, and a well upstream must be called again.
"""

import copy
import random
from math import inf

from sidecar.config.breaker import Breaker as BreakerPolicy
from sidecar.machines.breaker import Breaker, BreakerChange, Refusal, Trial
from sidecar.machines.breaker_states import BreakerState, Reason
from sidecar.machines.fleet.deeds import Adopt, Alone, Lend, Ordered, Send, Sync
from sidecar.machines.fleet.leases import Ended
from sidecar.machines.fleet.member import WELL
from sidecar.machines.fleet.page import Page
from sidecar.machines.fleet.replica import MEMORY, Fleet
from sidecar.machines.fleet.store import FleetStore
from sidecar.machines.fleet.words import Ask, Force, Heal, Report, Restore, Vote

NAME = "x"
TIMEOUT = 4.0
"""The link's: who gets no answer for so long gives the connection up."""
POLICY = BreakerPolicy(
    consecutive_failures=2,
    failure_rate=0.0,
    slow_rate=0.0,
    open_for=1.0,
    open_max=4.0,
    half_open_permits=2,
    half_open_successes=2,
    half_open_timeout=3.0,
)
"""An open period may end before the trials of the one before."""


class Violation(AssertionError):
    """An invariant does not hold; the first word says which."""


class Redis:
    """One primary: what it keeps, and a clock."""

    def __init__(self):
        self.store = FleetStore()
        self.offset_us = 1_700_000_000_000_000
        self.lineage = 0
        self.save()

    @property
    def page(self):
        return self.store.pages.setdefault(NAME, Page())

    def save(self):
        self.saved = copy.deepcopy(self.page)

    def flush(self):
        self.store.pages.clear()
        self.store.forget_peers()

    def fall_back(self):
        self.store.pages[NAME] = copy.deepcopy(self.saved)

    def us(self, now):
        return self.offset_us + int(now * 1_000_000)


class Replica:
    """One sidecar: its machines, and what its shells would remember."""

    def __init__(self, number, world):
        self.number = number
        self.world = world
        self.me = f"r{number}"
        self.sick = False
        self.stopped = False
        self.connected = False
        self.since = world.now
        """Since when it is there and connected."""
        self.begin(world.now)

    def begin(self, now):
        self.fleet = Fleet(self.me, self.world.chance, now)
        self.fleet.follow(NAME, POLICY)
        self.member = self.fleet._members[NAME]
        self.breaker = Breaker(POLICY, self.world.chance, now)
        self.calls = []  # permits out
        self.open_sends = []
        self.epoch = 0
        self.alive = True
        self.answers = []
        self.refused_until = -inf

    def do(self, deeds):
        world = self.world
        for deed in deeds:
            if isinstance(deed, Send | Sync):
                self.open_sends.append(deed)
                world.wire.append(("ask", self, deed))
            elif isinstance(deed, Adopt):
                if deed.told.state is not self.member.record.state:
                    raise Violation(f"false: {self.me} is told {deed.told} instead of {self.member.record}")
                self.refused_until = -inf
                if deed.told.state is BreakerState.OPEN:
                    self.refused_until = world.now + (deed.told.remaining or 0.0)
                self.changed(self.breaker.adopt(deed.told, world.now))
            elif isinstance(deed, Lend):
                self.breaker.grant(deed.leases)
            elif isinstance(deed, Alone):
                self.changed(self.breaker.alone(world.now))
            elif isinstance(deed, Ordered):
                self.answers.append(deed)

    def changed(self, change):
        """What the breaker returned."""
        now = self.world.now
        if change is None:
            return
        if isinstance(change, Ended):
            self.do(self.fleet.ended(NAME, change.token, change.end, now))
        elif isinstance(change, BreakerChange.__origin__) and change.reason is not Reason.SHARED:
            if change.new is BreakerState.OPEN:
                seconds = self.breaker.snapshot(now).remaining
                self.do(self.fleet.tripped(NAME, now, seconds=seconds, reason=change.reason, detail=""))
            else:
                self.do(self.fleet.untripped(NAME, now, closed=change.new is BreakerState.CLOSED))

    def call(self):
        now = self.world.now
        self.fleet.carries(now)
        permit = self.breaker.admit(now)
        if isinstance(permit, Refusal):
            if self.breaker.led:
                self.do(self.fleet.wants(NAME, now))
            return "refused"
        self.calls.append(permit)
        if isinstance(permit, Trial):
            self.changed(permit.transition)
            return "a trial"
        return "admitted"

    def end(self, choice, *, cancelled=False):
        if not self.calls:
            return "nothing to end"
        permit = self.calls.pop(choice % len(self.calls))
        now = self.world.now
        if cancelled:
            self.changed(self.breaker.cancel(permit, now))
            return "cancelled"
        ok = self.world.well and not self.sick
        self.changed(self.breaker.record(permit, now, ok=ok))
        return "good" if ok else "bad"

    def tick(self):
        now = self.world.now
        if self.world.lone_sick:
            self.fleet.carries(now)
        if self.open_sends and self.open_sends[0].at + TIMEOUT <= now:
            self.cut()
        while self.breaker.deadline <= now:
            self.changed(self.breaker.expire(now))
        if self.fleet.deadline <= now:
            self.do(self.fleet.tick(now))

    @property
    def deadline(self):
        answer = self.open_sends[0].at + TIMEOUT if self.open_sends else inf
        return min(self.fleet.deadline, self.breaker.deadline, answer)

    def connect(self):
        if self.alive and not self.connected:
            self.connected = True
            self.since = self.world.now
            self.do(self.fleet.connected(self.world.now))
            return "connected"
        return "no change"

    def cut(self):
        """The connection breaks: what was not answered has failed."""
        if not self.connected:
            return "no change"
        self.connected = False
        now = self.world.now
        sends, self.open_sends = self.open_sends, []
        self.do(self.fleet.lost(now))
        for sent in sends:
            self.do(self.fleet.failed(sent, now, gone=True))
        return "cut"


class World:
    """Everything, and the acts that may happen to it."""

    def __init__(self, seed, replicas=3, *, lone_sick=False):
        self.now = 100.0
        self.dice = random.Random(seed)
        self.chance = self.dice.random
        self.redis = Redis()
        self.wire = []
        self.lone_sick = lone_sick
        self.well = True
        self.lent = {}  # token -> lineage of the redis that lent it
        self.issued = {0: {BreakerState.CLOSED}}  # epoch -> states
        self.replicas = [Replica(number, self) for number in range(replicas)]
        for one in self.replicas:
            one.connect()
        self.quiet(1.5 * MEMORY if lone_sick else 12.0)
        self.redis.save()
        if lone_sick:
            self.replicas[0].sick = True

    # ------------------------------------------------------------------ acts

    def act(self, word, number):
        """Let one thing happen; returns what it was, for the trace."""
        one = self.replicas[number % len(self.replicas)]
        rest = number // len(self.replicas)
        match word:
            case "time":
                self.now += (0.01, 0.05, 0.3, 0.7, 1.5, 3.0)[number % 6]
                for each in self.replicas:
                    if each.alive and not each.stopped:
                        each.tick()
                return f"now {self.now:.2f}"
            case "deliver" | "drop" | "repeat":
                return self.deliver(word, number)
            case "network":
                return "; ".join(self.deliver("deliver", 0) for _ in range(2 + number % 12) if self.wire)
            case "everybody":
                return "; ".join(
                    f"{each.me} {each.call()}" for each in self.replicas if each.alive and not each.stopped
                )
            case "call" | "end" | "cancel" | "burst" if not one.alive or one.stopped:
                return f"{one.me} does nothing"
            case "call":
                return f"{one.me}: {one.call()}"
            case "end" | "cancel":
                return f"{one.me}: {one.end(rest, cancelled=word == 'cancel')}"
            case "burst":
                return f"{one.me}: {[(one.call(), one.end(-1)) for _ in range(3)]}"
            case "break":
                return f"{one.me}: {one.cut()}"
            case "connect":
                return f"{one.me}: {one.connect()}"
            case "crash":
                one.cut()
                one.alive = False
                self.wire = [each for each in self.wire if each[0] == "ask" or each[1] is not one]
                return f"{one.me} dies"
            case "start":
                if not one.alive:
                    one.begin(self.now)
                if one.stopped:
                    one.since = self.now
                one.stopped = False
                return f"{one.me} lives"
            case "stop":
                one.stopped = True
                return f"{one.me} stands still"
            case "upstream":
                if not self.lone_sick:
                    self.well = bool(number % 2)
                return f"upstream {'well' if self.well else 'down'}"
            case "save":
                self.redis.save()
                return "redis: replicated"
            case "flush" | "fail over":
                self.redis.lineage += 1
                if word == "flush":
                    self.redis.flush()
                else:
                    self.redis.fall_back()
                    for each in self.replicas:
                        each.cut()
                return f"redis: {word}, epoch {self.redis.page.epoch}"
            case "jump":
                self.redis.offset_us += (3600_000_000, -3600_000_000)[number % 2]
                self.redis.lineage += 1
                return "redis: the clock jumps"
            case "order":
                state = (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED, BreakerState.CLOSED)[rest % 3]
                if one.alive and not one.stopped:
                    seconds = (None, 2.0)[rest % 2]
                    one.do(one.fleet.order(NAME, state, self.now, seconds=seconds, by="eve", why="")[1])
                return f"{one.me}: order {state}"
        raise ValueError(word)

    def deliver(self, word, number):
        if not self.wire:
            return "no message"
        at = number % min(4, len(self.wire)) if word == "deliver" else number % len(self.wire)
        message = self.wire[at] if word == "repeat" else self.wire.pop(at)
        kind, one, what, *answer = message
        if word == "drop":
            if kind != "hint":
                one.cut()
            return f"{one.me}: lost a {kind}"
        if kind == "ask":
            return self.serve(one, what)
        if not one.alive or one.stopped:
            return f"{one.me} hears nothing"
        if kind == "hint":
            one.do(one.fleet.heard(NAME, what, self.now))
            return f"{one.me}: hears {what.state} {what.epoch}"
        if what not in one.open_sends:
            return f"{one.me}: an answer to nobody"
        one.open_sends.remove(what)
        if isinstance(what, Sync):
            one.do(one.fleet.synced(what, answer[0], self.now))
            return f"{one.me}: synced"
        one.do(one.fleet.answered(what, answer[0], self.now))
        return f"{one.me}: {type(what.command).__name__} {answer[0].did}, epoch {answer[0].record.epoch}"

    def serve(self, one, sent):
        """Redis carries out a command; even that takes a microsecond."""
        self.now += 0.000_001
        if isinstance(sent, Sync):
            self.wire.append(("answer", one, sent, self.redis.store.sync(one.me, sent, self.redis.us(self.now))))
            return f"redis: syncs {one.me}"
        before = self.redis.page.record(self.redis.us(self.now) // 1000)
        answer = self.redis.store.run(sent, self.redis.us(self.now))
        self.issued.setdefault(answer.record.epoch, set()).add(answer.record.state)
        self.check_turn(sent.command, before, answer)
        for grant in answer.grants:
            self.lent.setdefault(grant.token, self.redis.lineage)
        if answer.changed:
            self.wire += [("hint", each, answer.record) for each in self.replicas if each.connected]
        self.wire.append(("answer", one, sent, answer))
        what = type(sent.command).__name__
        return f"redis: {one.me}'s {what}: {answer.did}, {answer.record.state} {answer.record.epoch}"

    # ------------------------------------------------------------------ invariants

    def check_turn(self, command, before, answer):
        """What one turn of the keeper must not do."""
        after = answer.record
        expired = before.state in ("forced_open", "forced_closed") and after.reason == Reason.EXPIRED
        if after.epoch < before.epoch:
            raise Violation(f"epochs: the page fell from {before.epoch} to {after.epoch}")
        if expired:
            return
        stale = {
            Vote: lambda: command.epoch < before.epoch,
            Ask: lambda: command.epoch != before.epoch,
            Report: lambda: command.epoch != before.epoch,
            Force: lambda: command.epoch < before.epoch,
            Heal: lambda: command.epoch != before.epoch,
            Restore: lambda: command.record.epoch <= before.epoch,
        }.get(type(command), lambda: True)()
        if stale and answer.changed:
            raise Violation(f"stale: {command} changed {before} to {after}")
        if before.epoch != after.epoch and before.state != after.state:
            legal = {
                ("closed", "open"): (Vote, Restore),
                ("open", "half_open"): (Ask,),
                ("half_open", "open"): (Report, Restore),
                ("half_open", "closed"): (Report, Heal, Force),
                ("open", "closed"): (Heal, Force),
            }.get((before.state.value, after.state.value), (Force, Restore))
            if not isinstance(command, legal):
                raise Violation(f"table: {command} changed {before.state} to {after.state}")
        company = any(one.number and one.connected and not one.stopped and self.now - one.since > MEMORY
                      for one in self.replicas)  # fmt: skip
        if self.lone_sick and company and after.state is BreakerState.OPEN and isinstance(command, Vote):
            raise Violation(f"lone: one sick replica opened it: {command}, {after}")

    def check(self):
        """What must hold after every act."""
        page, now_ms = self.redis.page, self.redis.us(self.now) // 1000
        live = sum(1 for lease in page.leases.values() if lease.until > now_ms)
        if live > POLICY.half_open_permits:
            raise Violation(f"permits: {live} leases live")
        running = 0
        for one in self.replicas:
            record = one.member.record
            if record.epoch < one.epoch:
                raise Violation(f"epochs: {one.me} fell from {one.epoch} to {record.epoch}")
            one.epoch = record.epoch
            if (
                record.state not in self.issued.get(record.epoch, ())
                and record.reason != Reason.EXPIRED
                and record.detail != WELL
            ):
                raise Violation(f"false: {one.me} believes {record}, which no keeper ever said")
            if not one.alive:
                continue
            for permit in one.calls:
                if isinstance(permit, Trial) and permit.token and permit.deadline > self.now:
                    running += self.lent.get(permit.token) == self.redis.lineage
            if (
                one.breaker.ready
                and self.now < one.refused_until
                and one.breaker.state is not BreakerState.FORCED_CLOSED
            ):
                raise Violation(f"early: {one.me} lets calls through before {one.refused_until:.2f}")
        if running > POLICY.half_open_permits:
            raise Violation(f"permits: {running} leased trials run at once")

    # ------------------------------------------------------------------ the end

    def quiet(self, seconds):
        """Time passes, and the network works."""
        end = self.now + seconds
        while True:
            while self.wire:
                self.deliver("deliver", 0)
            for one in self.replicas:
                one.connect()
            due = min((one.deadline for one in self.replicas if one.alive), default=inf)
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            for one in self.replicas:
                if one.alive:
                    one.tick()
            self.check()

    def recover(self):
        """All faults end but the deaths; then everybody must agree, and be well."""
        self.well = True
        living = [one for one in self.replicas if one.alive] or self.replicas[:1]
        for one in living:
            one.sick = False
            if not one.alive:
                self.act("start", one.number)
            one.stopped = False
            one.connect()
        self.quiet(3.0)
        if living[0].member.record.state in ("forced_open", "forced_closed"):
            living[0].do(living[0].fleet.order(NAME, BreakerState.CLOSED, self.now, seconds=None, by="eve", why="")[1])
        for _ in range(60):
            for one in living:
                while one.calls:
                    one.end(0)
                if one.call() != "refused":
                    one.end(0)
            self.quiet(0.5)
            if all(one.breaker.state is BreakerState.CLOSED for one in living):
                break
        if any(one.breaker.state is not BreakerState.CLOSED for one in living):
            raise Violation(f"wedged: {self.states(living)}, page {self.redis.page}")
        self.quiet(12.0)
        page = self.redis.page.record(self.redis.us(self.now) // 1000)
        if page.left == 0:  # an order that is over
            return
        for one in living:
            record = one.member.record
            if one.breaker.led or (record.state != page.state and record.epoch != page.epoch):
                raise Violation(f"apart: {self.states(living)}, page {page}")

    def states(self, living):
        return {one.me: (one.breaker.state.value, one.breaker.led, one.member.record) for one in living}


ORDINARY = {"time": 16, "deliver": 20, "network": 10, "call": 12, "everybody": 3, "end": 10, "burst": 6, "cancel": 1,
            "upstream": 1.5, "save": 1, "connect": 3}  # fmt: skip
FAULTS = {"drop": 2, "repeat": 3, "break": 0.7, "crash": 0.4, "start": 1.2, "stop": 0.4, "flush": 0.5, "fail over": 0.5,
          "jump": 0.2, "order": 0.4}  # fmt: skip
OUTAGE = [("upstream", 0), ("burst", 0), ("burst", 1), ("time", 1), ("network", 11), ("network", 11), ("everybody", 0),
          ("time", 3), ("time", 2)]  # fmt: skip
"""The way to where it becomes interesting: open for all, and somebody was refused."""
ASK = [("time", 1), ("time", 1), ("network", 11), ("network", 11), ("everybody", 0), ("time", 2), ("time", 2),
       ("network", 11), ("network", 11), ("everybody", 0)]  # fmt: skip
TRIALS = OUTAGE + ASK
"""Trial calls are under way."""
AGAIN = [*TRIALS, ("end", 0), ("network", 11), ("everybody", 0), ("time", 3), ("time", 2), ("time", 1), *ASK]
"""One of them failed, the others still run, and it is half open again."""


def schedule(seed, length):
    """The acts of a seed. An eighth of the seeds knows no faults, half of the rest no jumps and no orders."""
    dice = random.Random(seed)
    weights = dict(ORDINARY)
    if seed % 8:
        weights |= {word: weight for word, weight in FAULTS.items() if seed % 2 or word not in ("jump", "order")}
    if seed % 4 == 1:  # a slow upstream, and short pauses: many trials at once
        weights |= {"end": 2, "time": 8, "everybody": 9, "network": 16}
    words = dice.choices(list(weights), list(weights.values()), k=length)
    start = {1: TRIALS, 5: AGAIN}.get(seed % 8, OUTAGE if seed % 4 else [])
    return start + [(word, dice.randrange(1 << 16)) for word in words]


def play(seed, acts, trace=None):
    """Run a schedule; raises Violation."""
    world = World(seed, 2 + seed % 3, lone_sick=seed % 5 == 0)
    for word, number in acts:
        said = world.act(word, number)
        if trace is not None:
            trace.append(f"{world.now:8.2f} {said}")
        world.check()
    world.recover()
    return world


def violation(seed, acts):
    """The invariant that a schedule breaks, in one word; None: none."""
    try:
        play(seed, acts)
    except Violation as broken:
        return str(broken).split(":")[0]
    return None


def smallest(seed, acts):
    """Cut a failing schedule down to acts that all matter."""
    word = violation(seed, acts)
    size = len(acts) // 2
    while size:
        at = 0
        while at < len(acts):
            shorter = acts[:at] + acts[at + size :]
            if violation(seed, shorter) == word:
                acts = shorter
            else:
                at += size
        size //= 2
    return acts


def story(seed, acts):
    """What happens in a failing schedule, cut down, for people."""
    acts = smallest(seed, acts)
    trace = []
    try:
        play(seed, acts, trace)
    except Violation as broken:
        trace.append(str(broken))
    return f"seed {seed}, {len(acts)} acts\n" + "\n".join(trace)
