"""What replicas say to each other about one breaker, through whoever keeps its page.

The keeper is Redis, or `store.py` in a simulation; the words are the same. A **command** names what its sender
knows (`epoch`) and carries every figure that the keeper needs (permits, quorum, periods), so the keeper knows no
configuration. It is answered with the **record** as it is then, and with what came of it. A record that changed is
told to everybody.

Durations only: milliseconds, whole ones, since clocks differ and Lua's numbers print 14 digits. NO_END is a duration
without an end. Keys on the wire are short; a record of a healthy fleet is not sent at all.
"""

import msgspec

from sidecar.machines.breaker_states import BreakerState

NO_END = -1
"""Instead of a duration: until something else happens."""
VERSION = 1
"""Of the page and of every word here; a page of a newer one is left alone."""
FORCED = (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all replicas of a breaker adopt."""

    epoch: int = msgspec.field(default=0, name="e")
    """Grows with every change of state, in microseconds of the keeper's clock or faster. 0: never changed yet."""
    state: BreakerState = msgspec.field(default=BreakerState.CLOSED, name="s")
    left: int = msgspec.field(default=NO_END, name="l")
    """Of the open period or the order; 0: over."""
    period: int = msgspec.field(default=0, name="p")
    """How long the open period or the order was from its beginning."""
    reopened: int = msgspec.field(default=0, name="n")
    """How often trials have failed since it was closed."""
    reason: str = msgspec.field(default="", name="r")
    """Why it is in this state: a word of `breaker_states.Reason`."""
    detail: str = msgspec.field(default="", name="d")
    by: str = msgspec.field(default="", name="b")
    """Who ordered it, or whose votes opened it."""

    @property
    def left_seconds(self) -> float | None:
        """Of the open period or the order; None: no end."""
        return None if self.left == NO_END else self.left / 1000


class Grant(msgspec.Struct, frozen=True):
    """A lease: the right to make one trial call."""

    token: str = msgspec.field(name="t")
    epoch: int = msgspec.field(name="e")
    """Of the record under which it was granted; under another its result changes nothing."""
    left: int = msgspec.field(name="l")
    """When this is over, others may have it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a command brought about."""

    record: Record = msgspec.field(name="r")
    did: str = msgspec.field(name="a")
    """One word, of `Did`."""
    changed: bool = msgspec.field(default=False, name="c")
    """Whether the record changed its epoch: everybody must hear of it."""
    grants: tuple[Grant, ...] = msgspec.field(default=(), name="g")
    wait: int = msgspec.field(default=0, name="w")
    """A refused `Ask`: no sooner than this."""
    carrying: int = msgspec.field(default=0, name="k")
    """Replicas with traffic, as the keeper counts them."""


class Did:
    """The words of `Answer.did`."""

    NOTHING = "nothing"
    """It repeats what is so already, or nothing follows from it."""
    STALE = "stale"
    """The sender knows another epoch: it must read the record and think again."""
    COUNTED = "counted"
    OPENED = "opened"
    CLOSED = "closed"
    ORDERED = "ordered"
    RESTORED = "restored"
    GRANTED = "granted"
    EARLY = "early"
    """An `Ask` while the open period goes on."""
    TAKEN = "taken"
    """An `Ask` while all permits are lent."""
    BARRED = "barred"
    """An `Ask` of somebody whose last trial failed, while others may try."""


class Vote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="vote"):
    """My own breaker opened. Counts for `lasting`; a later one of the same voter takes its place."""

    voter: str = msgspec.field(name="i")
    epoch: int = msgspec.field(name="e")
    lasting: int = msgspec.field(name="l")
    """What is left of the voter's own open period."""
    period: int = msgspec.field(name="p")
    """How long all are to be open when the quorum is reached."""
    quorum: int = msgspec.field(default=0, name="q")
    """0: the smaller of two and the replicas with traffic."""
    carrying: int = msgspec.field(default=0, name="k")
    """Most replicas with traffic that the voter lately saw: a keeper that lost its memory counts too few."""
    reason: str = msgspec.field(default="", name="r")
    detail: str = msgspec.field(default="", name="d")


class Withdraw(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="withdraw"):
    """My own breaker is not open any more: my vote is void."""

    voter: str = msgspec.field(name="i")


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ask"):
    """Lend me permits. The tokens are named by who asks, so an ask that is repeated is granted the same ones."""

    holder: str = msgspec.field(name="i")
    epoch: int = msgspec.field(name="e")
    tokens: tuple[str, ...] = msgspec.field(name="t")
    permits: int = msgspec.field(name="p")
    """How many may be lent at once, to all together."""
    ttl: int = msgspec.field(name="l")
    due: bool = msgspec.field(default=False, name="u")
    """The asker has known this epoch for the whole of its open period, by a clock that never jumps."""
    carrying: int = msgspec.field(default=0, name="k")


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="report"):
    """What came of a trial. A good one needs its lease; a bad one is believed while its epoch lasts."""

    holder: str = msgspec.field(name="i")
    token: str = msgspec.field(name="t")
    epoch: int = msgspec.field(name="e")
    """The grant's."""
    ok: bool = msgspec.field(name="o")
    needed: int = msgspec.field(name="n")
    """Good trials that close it."""
    period: int = msgspec.field(default=0, name="p")
    """How long it is to be open again when this one failed."""
    reason: str = msgspec.field(default="", name="r")
    detail: str = msgspec.field(default="", name="d")


class Return(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="return"):
    """Leases that were not used, or taught nothing."""

    tokens: tuple[str, ...] = msgspec.field(name="t")


class Force(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="force"):
    """Somebody's order: FORCED_OPEN, FORCED_CLOSED, or CLOSED to take it back. Must know the present epoch."""

    epoch: int = msgspec.field(name="e")
    state: BreakerState = msgspec.field(name="s")
    lasting: int = msgspec.field(default=NO_END, name="l")
    by: str = msgspec.field(default="", name="b")
    why: str = msgspec.field(default="", name="d")


class Restore(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="restore"):
    """The keeper forgot what I know: take the stricter of the two. Only a record of a later epoch than its own."""

    record: Record = msgspec.field(name="r")


class Heal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="heal"):
    """Cut off, I tried by myself and found the upstream well; under this epoch that closes it for all."""

    epoch: int = msgspec.field(name="e")
    detail: str = msgspec.field(default="", name="d")


class Look(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="look"):
    """Only tell me; what is overdue ends."""


Command = Vote | Withdraw | Ask | Report | Return | Force | Restore | Heal | Look
