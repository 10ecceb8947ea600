"""Which endpoints an upstream has: those written down, those that discovery found, and those it dropped too early.

Written ones are always there; where discovery finds the same address, the written weight and priority count.

A found one stays while discovery names it. An endpoint that an answer no longer names is kept for as long as its active
checks pass, since the one who looks may be wrong while the one who answers is right (Envoy does the same); its first
failed check, or not being checked at all, lets it go. What an answer *withdraws*, by saying that the endpoint is there
and is not to be used, goes at once.

Answers are bounded: beyond `LIMIT` endpoints, those that are in use stay first and the rest follow by address, so that
a name server that shuffles a thousand records makes no endpoint come and go; as many may be kept. Order means nothing:
the result is sorted, and an answer in another order is no change.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

LIMIT = 256
"""Endpoints that discovery may give one upstream at once."""

IsHealthy = Callable[[str], bool | None]
"""What active checks say of an address: they pass, they fail, or (None) nothing is known."""


class Member(NamedTuple):
    """One endpoint: `host:port` and its place among the others."""

    address: str
    weight: int = 1
    priority: int = 0


class Answer(NamedTuple):
    """What a source says the endpoints are now. Addresses that stand twice count once, the first."""

    members: tuple[Member, ...] = ()
    withdrawn: frozenset[str] = frozenset()
    """Addresses that are known and not to be used."""


class Membership:
    """The endpoints of one upstream."""

    def __init__(self, written: Iterable[Member] = ()) -> None:
        self._written = _by_address(written)
        self._found: dict[str, Member] = {}
        self._kept: dict[str, Member] = {}  # dropped by discovery, healthy when last asked
        self.cut = 0
        """Endpoints of the last answer beyond the limit."""

    @property
    def members(self) -> list[Member]:
        """Who takes part now, by address."""
        return sorted((self._kept | self._found | self._written).values())

    @property
    def keeps(self) -> bool:
        """Whether someone is there only because checks pass: then `judge` has work."""
        return bool(self._kept)

    def origin(self, address: str) -> str:
        """Why the address takes part: written, found, or kept."""
        if address in self._written:
            return "written"
        return "found" if address in self._found else "kept"

    def rewrite(self, written: Iterable[Member]) -> None:
        """Another configuration writes other endpoints down."""
        self._written = _by_address(written)

    def found(self, answer: Answer, is_healthy: IsHealthy) -> None:
        """A source answered."""
        known = self._kept | self._found
        self._found = self._bounded(answer.members, known)
        for address, member in known.items():
            if address in self._found or address in answer.withdrawn:
                self._kept.pop(address, None)
            else:
                self._kept[address] = member
        self.judge(is_healthy)

    def judge(self, is_healthy: IsHealthy) -> None:
        """Let those go that discovery dropped and whose checks do not pass any more."""
        passing = sorted(address for address in self._kept if is_healthy(address))
        self._kept = {address: self._kept[address] for address in passing[:LIMIT]}

    def _bounded(self, members: Iterable[Member], known: dict[str, Member]) -> dict[str, Member]:
        found = _by_address(members)
        self.cut = max(0, len(found) - LIMIT)
        if self.cut:
            chosen = sorted(found, key=lambda address: (address not in known, address))[:LIMIT]
            return {address: found[address] for address in chosen}
        return found


def _by_address(members: Iterable[Member]) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for member in members:
        found.setdefault(member.address, member)
    return found
