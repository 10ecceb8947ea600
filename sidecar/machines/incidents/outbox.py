"""What is still to be told to whom, and when to try.

* One message per receiver and incident waits at a time: what is newer replaces what was not sent yet, for a message
  tells how things stand and not what they were. So a receiver that was away for an hour hears once, the latest.
* One attempt per receiver at a time, the oldest message first: nobody reads `resolved` before `opened`.
* What its receiver refuses for good is given up. Any other failed attempt holds up its receiver for 1 s, 2 s, 4 s …
  5 min, or as long as the receiver said (Retry-After), and nobody else. A message that is a day old is given up.
* No receiver gets more than PER_INCIDENT messages about one incident within PER seconds, nor BURST about all, then one
  each REFILL seconds: what is too much waits, and is replaced by what is newer.
* Bounded: MAX_WAITING messages; of what would be more, the oldest that is not about the opening goes.

Times are Unix seconds, for messages outlive the process. What was under way when a process died is sent again: at
least once, with the same message id.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from sidecar.base.backoff import Uniform, exponential

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
_JITTER = 0.2
GIVE_UP_AFTER = 24 * 3600.0
PER_INCIDENT, PER = 4, 600.0
BURST, REFILL = 20.0, 1.0  # Slack takes one a second
MAX_WAITING = 1000
LONGEST_RETRY_AFTER = 3600.0
_OPENINGS = frozenset({"opened", "reopened", "escalated"})


class Message(msgspec.Struct):
    """One thing to tell somebody."""

    id: str
    """Random, the same at every attempt."""
    receiver: str
    incident: str
    what: str
    """A word of `incident_book.What`, or `escalated`."""
    created: float
    body: dict[str, object] = {}
    """How the incident stood."""
    attempts: int = 0
    error: str = ""
    """What came of the last attempt."""


class Stored(NamedTuple):
    """What the shell has to write down: the message, or that it is no more."""

    message: Message
    gone: bool


class _Receiver:
    """One receiver's patience and credit."""

    __slots__ = ("busy", "credit", "failures", "filled", "not_before")

    def __init__(self, now: float) -> None:
        self.busy = False
        self.failures = 0
        self.not_before = 0.0
        self.credit = BURST
        self.filled = now

    def fill(self, now: float) -> None:
        self.credit = min(BURST, self.credit + max(0.0, now - self.filled) / REFILL)
        self.filled = now


class Outbox:
    """All that waits. `waiting` holds it in order; `dropped` counts what was given up."""

    def __init__(self, uniform: Uniform, new_id: Callable[[], str]) -> None:
        self._uniform = uniform
        self._new_id = new_id
        self._waiting: dict[tuple[str, str], Message] = {}
        self._receivers: dict[str, _Receiver] = {}
        self._sent: dict[tuple[str, str], list[float]] = {}  # when, within PER
        self._under_way: set[str] = set()
        self.dropped = 0

    def put(self, receiver: str, incident: str, what: str, body: dict[str, object], now: float) -> list[Stored]:
        """Tell `receiver`; returns what to write down."""
        key = (receiver, incident)
        old = self._waiting.get(key)
        message = Message(self._new_id(), receiver, incident, what, now, body)
        stored = []
        if old is not None:
            if old.id not in self._under_way and old.what in _OPENINGS and what not in {*_OPENINGS, "resolved"}:
                message.what = old.what  # nobody was told of the opening yet
            message.created = old.created
            stored.append(Stored(old, gone=True))
            self._waiting[key] = message  # at the place of the old one
        else:
            if len(self._waiting) >= MAX_WAITING:
                stored.append(self._make_room())
            self._waiting[key] = message
        return [*stored, Stored(message, gone=False)]

    def restore(self, messages: Iterable[Message]) -> None:
        """What an earlier run left behind."""
        for message in messages:
            self._waiting.setdefault((message.receiver, message.incident), message)

    def keep_only(self, receivers: Iterable[str]) -> list[Stored]:
        """Give up what is for receivers that are no more."""
        known = set(receivers)
        return [self._forget(one) for one in list(self._waiting.values()) if one.receiver not in known]

    def take(self, now: float) -> list[Message]:
        """What is to be tried now, at most one per receiver; each is owed a `sent` or a `failed`."""
        taken = []
        for message in self._waiting.values():
            receiver = self._receiver(message.receiver, now)
            if receiver.busy or now < self._ready(message, receiver, now):
                continue
            receiver.busy = True
            self._under_way.add(message.id)
            message.attempts += 1
            taken.append(message)
        return taken

    def due(self, now: float) -> float | None:
        """When `take` may have something; None: when something is put or an attempt ends."""
        times = []
        for message in self._waiting.values():
            receiver = self._receiver(message.receiver, now)
            if not receiver.busy:
                times.append(self._ready(message, receiver, now))
        return min(times, default=None)

    def sent(self, message: Message, now: float) -> Stored:
        """It arrived."""
        receiver = self._ended(message, now)
        receiver.failures, receiver.not_before = 0, 0.0
        receiver.fill(now)
        receiver.credit -= 1.0
        self._recent(message, now).append(now)
        key = (message.receiver, message.incident)
        if self._waiting.get(key) is message:
            del self._waiting[key]
        return Stored(message, gone=True)

    def failed(
        self, message: Message, now: float, error: str, retry_after: float | None = None, *, final: bool = False
    ) -> Stored:
        """It did not; `final`: nor ever will. Returns the message as it waits on, or that it was given up."""
        receiver = self._ended(message, now)
        if final:  # it is the message's fault, not the receiver's
            receiver.failures, retry_after = 0, 0.0
        pause = exponential(receiver.failures, FIRST_PAUSE, LONGEST_PAUSE)
        receiver.failures += 1
        pause *= 1.0 - _JITTER * self._uniform()
        receiver.not_before = now + max(pause, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
        message.error = error
        if self._waiting.get((message.receiver, message.incident)) is not message:
            return Stored(message, gone=True)  # replaced meanwhile
        if final or now - message.created >= GIVE_UP_AFTER:
            return self._forget(message)
        return Stored(message, gone=False)

    def given_back(self, message: Message, now: float) -> None:
        """The attempt was broken off by us: as if it had not begun."""
        self._ended(message, now)
        message.attempts -= 1

    @property
    def waiting(self) -> list[Message]:
        """All, the oldest first."""
        return list(self._waiting.values())

    def _ended(self, message: Message, now: float) -> _Receiver:
        self._under_way.discard(message.id)
        receiver = self._receiver(message.receiver, now)
        receiver.busy = False
        return receiver

    def _ready(self, message: Message, receiver: _Receiver, now: float) -> float:
        """When this message may be tried, as its receiver's limits stand."""
        receiver.fill(now)
        ready = receiver.not_before
        if receiver.credit < 1.0:
            ready = max(ready, now + (1.0 - receiver.credit) * REFILL)
        recent = self._recent(message, now)
        if len(recent) >= PER_INCIDENT and message.what != "escalated":
            ready = max(ready, recent[-PER_INCIDENT] + PER)
        return ready

    def _recent(self, message: Message, now: float) -> list[float]:
        """When this receiver heard of this incident lately."""
        for key in [key for key, times in self._sent.items() if not times or now - times[-1] >= PER]:
            del self._sent[key]
        return self._sent.setdefault((message.receiver, message.incident), [])

    def _receiver(self, name: str, now: float) -> _Receiver:
        return self._receivers.setdefault(name, _Receiver(now))

    def _make_room(self) -> Stored:
        waiting = list(self._waiting.values())
        return self._forget(next((one for one in waiting if one.what not in _OPENINGS), waiting[0]))

    def _forget(self, message: Message) -> Stored:
        self.dropped += 1
        del self._waiting[message.receiver, message.incident]
        return Stored(message, gone=True)
