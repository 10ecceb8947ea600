"""All that a service's keeper keeps, within one process: the port of `control/fleet_redis.py` without a Redis.

    answer = store.run(send, now_us)
    answer = store.sync(me, sync, now_us)

Pages change as `page.py` says. A replica is present for PRESENT_FOR after each sync. Simulation and benchmark run
on it; the contract suite holds it and the scripts in a real Redis to the same answers.
"""

from sidecar.machines.fleet.deeds import Send, Sync, Synced
from sidecar.machines.fleet.page import Page, apply
from sidecar.machines.fleet.words import Answer, Record

PRESENT_FOR = 30_000
"""Milliseconds that a replica counts without a sync: three of them."""
FURTHEST = 120_000
"""An end further ahead comes of a clock that fell back, and does not count."""


class FleetStore:
    """One service's."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self._peers: dict[str, tuple[int, bool]] = {}  # replica -> end of its presence, whether it carries traffic
        self._configs: dict[str, int] = {}
        self._counted: tuple[int, int, int] | None = None  # until when, carrying, replicas

    def run(self, send: Send, now_us: int) -> Answer:
        """Carry one command out."""
        page = self.pages.setdefault(send.name, Page())
        return apply(page, send.command, now_us, self._count(now_us // 1000)[0])

    def sync(self, me: str, sync: Sync, now_us: int) -> Synced:
        """Note that `me` lives, and tell what differs."""
        now = now_us // 1000
        before = self._peers.pop(me, None)
        self._peers[me] = (now + PRESENT_FOR, sync.carrying)
        if before is None or not now < before[0] <= now + FURTHEST or before[1] != sync.carrying:
            self._counted = None
        self._configs[sync.config] = now + PRESENT_FOR
        self._configs = {config: until for config, until in self._configs.items() if until > now}
        records = {}
        for name, known in sync.known.items():
            page = self.pages.get(name)
            record = Record() if page is None else page.record(now)
            if (record.epoch, record.state) != known:
                records[name] = record
        carrying, replicas = self._count(now)
        return Synced(records, max(1, carrying), max(1, replicas), len(self._configs))

    def forget_peers(self) -> None:
        """As after a loss: nobody has been heard yet."""
        self._peers.clear()
        self._configs.clear()
        self._counted = None

    def _count(self, now: int) -> tuple[int, int]:
        """Replicas with traffic, and all; counted anew only when somebody came, went or changed."""
        if self._counted is None or not self._counted[0] - PRESENT_FOR <= now < self._counted[0]:
            self._peers = {one: end for one, end in self._peers.items() if end[0] > now}
            ends = [end for end in self._peers.values() if end[0] <= now + FURTHEST]
            until = min((end for end, _ in ends), default=now + PRESENT_FOR)
            self._counted = until, sum(carrying for _, carrying in ends), len(ends)
        return self._counted[1], self._counted[2]
