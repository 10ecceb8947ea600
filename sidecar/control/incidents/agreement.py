"""Who of the replicas tells people: asked before anything is told, and again with every beat.

Without anybody to agree with, or with Redis away, this sidecar tells. A replica that follows does not become a second
teller the moment that Redis goes: it waits as long as its leader's place would have lasted.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sidecar.control.incidents.keeper import Keeper
from sidecar.machines.incidents.incident import Incident

BEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0
"""So long a replica counts as seeing it after its last beat."""
_VERBS = {"opened": "open", "reopened": "reopen", "acknowledged": "acked"}


class News(NamedTuple):
    """What became of an incident."""

    incident: Incident
    what: str
    text: str


class Standing(NamedTuple):
    """How an incident stands among the replicas."""

    id: str
    leader: str
    members: int
    """Those that are in; after leaving, the others."""
    told: str
    acked: str
    resolved: str
    """Who said so, or empty."""


class Replicas(Protocol):
    """Those that see the same cause (`shared.py`); `me` is this one's name among them."""

    me: str

    async def ask(self, verb: str, incident: Incident, keep: float, said: str = "") -> Standing | None:
        """Say something about an incident; how it stands, None: they cannot be asked."""
        ...


class Agreement:
    """`tell`: has people told."""

    def __init__(self, keeper: Keeper, tell: Callable[[News], None], clock: Callable[[], float] = time.time) -> None:
        self._keeper = keeper
        self._tell = tell
        self._clock = clock
        self._shared: Replicas | None = None
        self._news: deque[News] = deque()
        self._beat_at = 0.0
        self._answered = clock()

    def share(self, shared: Replicas) -> None:
        """There are replicas to agree with."""
        self._shared = shared

    def put(self, news: News) -> None:
        """Have it told by whoever is to tell it."""
        if self._shared is None:
            self._tell(news)
        else:
            self._news.append(news)

    def leads(self, incident: Incident) -> bool:
        """Whether people hear of it from us."""
        return not incident.led_by or self._shared is None

    def due(self) -> float:
        """When `work` has something to do (Unix seconds)."""
        if self._shared is None or not self._keeper.book.open():
            return float("inf")
        return self._beat_at

    async def work(self) -> None:
        """Agree about what happened, and about whatever is open when a beat is due."""
        shared = self._shared
        if shared is None:
            return
        while self._news:
            await self._agree(shared, self._news.popleft())
        if self._clock() >= self._beat_at:
            self._beat_at = self._clock() + BEAT_SECONDS
            for incident in self._keeper.book.open():
                if not await self._beat(shared, incident):
                    break

    async def told(self, incident: Incident) -> None:
        """People were told of it for the first time."""
        if self._shared is not None:
            await self._shared.ask("told", incident, self._keep, self._shared.me)

    async def part(self) -> None:
        """This sidecar goes: the others need not wait for its places to end."""
        if self._shared is not None:
            for incident in self._keeper.book.open():
                if await self._shared.ask("leave", incident, self._keep) is None:
                    return

    @property
    def _keep(self) -> float:
        return self._keeper.book.patience.reopen_within

    async def _agree(self, shared: Replicas, news: News) -> None:
        incident = news.incident
        if news.what == "resolved":
            if incident.resolved_by:
                await shared.ask("resolved", incident, self._keep, incident.resolved_by)
            left = await shared.ask("leave", incident, self._keep)
            led, incident.led_by = self.leads(incident), ""
            if led if left is None else left.members == 0:
                self._tell(news)
            return
        said = incident.acknowledged_by if news.what == "acknowledged" else ""
        standing = await shared.ask(_VERBS.get(news.what, "hold"), incident, self._keep, said)
        self._adopt(shared, incident, standing)
        heard_already = standing is not None and news.what == "opened" and standing.told
        if self.leads(incident) and not heard_already:
            self._tell(news)

    async def _beat(self, shared: Replicas, incident: Incident) -> bool:
        """Whether there was an answer."""
        followed = not self.leads(incident)
        standing = await shared.ask("hold", incident, self._keep)
        self._adopt(shared, incident, standing)
        if standing is None:
            return False
        if standing.resolved:
            await self._keeper.resolve(incident.id, standing.resolved, "said to another replica")
            return True
        if standing.acked and not incident.acked:
            await self._keeper.ack(incident.id, standing.acked, "said to another replica")
        if self.leads(incident) and not standing.told:
            if incident.notified is not None:
                await self.told(incident)  # Redis has forgotten it
            elif followed:
                self._tell(News(incident, "opened", incident.title))
        return True

    def _adopt(self, shared: Replicas, incident: Incident, standing: Standing | None) -> None:
        if standing is None:
            if self._clock() - self._answered >= LEASE_SECONDS:
                incident.led_by = ""
            return
        self._answered = self._clock()
        leader = "" if standing.leader == shared.me else standing.leader
        before = (incident.shared_id, incident.led_by, incident.sharers)
        incident.shared_id, incident.led_by, incident.sharers = standing.id, leader, standing.members
        if before != (standing.id, leader, standing.members):
            self._keeper.keep(incident)
