"""The fleet's pages in Redis: the port between `machines/fleet/replica.py` and the one link.

    answer = await port.run(send)         # one command on one page
    answer = await port.sync(sync)        # that we live, and whatever differs from what we know
    await port.show(names)                # who is there, who votes, who tries: for people
    port.hint(payload)                    # (breaker, record) of a message on `port.channel`; None: not ours

Raises RedisGone and RedisRefused as the link does, each within the link's time-outs. What comes back is decoded
strictly and bounded: an answer that makes no sense is a refusal, a page that makes none is reported as foreign, a
message that makes none or is larger than LARGEST_HINT is counted and passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sidecar.control.fleet_script import BEAT, COMMAND, FOREIGN, SHOW
from sidecar.control.redis_link import RedisLink, RedisRefused
from sidecar.machines.fleet.deeds import Synced
from sidecar.machines.fleet.page import Page
from sidecar.machines.fleet.store import PRESENT_FOR
from sidecar.machines.fleet.words import VERSION, Answer, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.machines.fleet.deeds import Send, Sync

LARGEST_HINT = 4096
LATEST_EPOCH = 4_102_444_800_000_000
"""The year 2100: beyond it, an epoch is garbage that nobody could ever overtake."""
_NOT_OURS = "its page in Redis holds something else; delete the key, the fleet writes it anew"
_NEWER = "its page in Redis was written by a newer version; update this sidecar"


class Hint(msgspec.Struct):
    """A message on the channel."""

    name: str = msgspec.field(name="n")
    record: Record = msgspec.field(name="r")


class Shown(NamedTuple):
    """What only Redis knows, as plain data."""

    peers: list[dict[str, Any]]
    """replica, carrying, heard_seconds_ago; those with traffic first, PEERS_SHOWN at most."""
    voices: dict[str, dict[str, Any]]
    """By breaker: votes, leases, trial_successes, let_others_try; empty when its page is not ours."""


class FleetPort:
    """The keeper of one service's pages."""

    def __init__(self, link: RedisLink, namespace: str, service: str, me: str) -> None:
        """`me`: this replica, as its machine calls it."""
        self._link = link
        self._me = me
        self._start = f"{{{namespace}:{service}}}"
        self._peers = f"{self._start}:peers"
        self._configs = f"{self._start}:configs"
        self.channel = f"{self._start}:changes"
        self.garbled = 0
        """Messages that made no sense."""

    def page(self, name: str) -> str:
        """The key of a breaker's page."""
        return f"{self._start}:breaker:{name}"

    async def run(self, send: Send) -> Answer:
        """Carry one command out."""
        command = msgspec.json.encode(send.command).decode()
        text = await self._link.script(COMMAND, [self.page(send.name), self._peers], [self.channel, send.name, command])
        try:
            answer = msgspec.json.decode(text, type=Answer, strict=False)
            _sane(answer.record)
        except (ValueError, TypeError) as error:
            raise RedisRefused(f"its answer makes no sense: {error}") from None
        return answer

    async def sync(self, sync: Sync) -> Synced:
        """Beat, and read what differs."""
        names = list(sync.known)
        keys = [self._peers, self._configs, *map(self.page, names)]
        known = [f"{epoch} {state.value}" for epoch, state in sync.known.values()]
        answer = await self._link.script(
            BEAT, keys, [self._me, PRESENT_FOR, "1" if sync.carrying else "0", sync.config, *known]
        )
        records: dict[str, Record] = {}
        foreign: dict[str, str] = {}
        try:
            now, carrying, replicas, configs, news = answer
            for place, text in news:
                try:
                    records[names[place]] = read_page(text, now)
                except ValueError as error:  # msgspec's and Unicode's errors are among them
                    foreign[names[place]] = _NEWER if isinstance(error, NewerPage) else _NOT_OURS
        except (ValueError, TypeError, IndexError) as error:
            raise RedisRefused(f"its answer makes no sense: {error}") from None
        return Synced(records, max(1, carrying), max(1, replicas), configs, foreign)

    async def show(self, names: Sequence[str]) -> Shown:
        """Who is there, and of each breaker who votes and who tries, in one word with Redis."""
        answer = await self._link.script(SHOW, [self._peers, *map(self.page, names)], [])
        try:
            now, peers, pages = answer
            there = [_peer(name, int(score), now) for name, score in zip(peers[::2], peers[1::2], strict=True)]
            voices = {name: _voices(text, now) for name, text in zip(names, pages, strict=True)}
        except (ValueError, TypeError) as error:
            raise RedisRefused(f"its answer makes no sense: {error}") from None
        return Shown(there, voices)

    def hint(self, payload: bytes) -> tuple[str, Record] | None:
        """A breaker's name and its record, as somebody told all."""
        try:
            if len(payload) > LARGEST_HINT:
                raise ValueError("too long")
            hint = msgspec.json.decode(payload, type=Hint, strict=False)
            _sane(hint.record)
        except ValueError:
            self.garbled += 1
            return None
        return hint.name, hint.record


class NewerPage(ValueError):
    """A page of a version that we do not know."""


class _Versioned(msgspec.Struct):
    version: int


def read_page(text: bytes, now: int) -> Record:
    """The record of a page as it stands in Redis at its `now`; raises ValueError, NewerPage."""
    if not text:
        return Record()
    record = _page(text).record(now)
    _sane(record)
    return record


def _peer(name: bytes, score: int, now: int) -> dict[str, Any]:
    """A replica by its score, as BEAT sets it."""
    return {
        "replica": name.decode(errors="replace"),
        "carrying": score > 0,
        "heard_seconds_ago": _seconds(now + PRESENT_FOR - abs(score)),
    }


def _voices(text: bytes, now: int) -> dict[str, Any]:
    """Who votes and who tries, of a page; nothing when it is not ours."""
    try:
        page = Page() if not text else _page(text)
    except ValueError:
        return {}
    return {
        "votes": [
            {
                "replica": voter,
                "reason": vote.reason,
                "detail": vote.detail,
                "remaining_seconds": _seconds(vote.until - now),
            }
            for voter, vote in sorted(page.votes.items())
            if vote.until > now
        ],
        "leases": [
            {
                "replica": lease.holder,
                "remaining_seconds": _seconds(lease.until - now),
                "age_seconds": _seconds(now + lease.ttl - lease.until),
            }
            for _, lease in sorted(page.leases.items())
            if lease.until > now
        ],
        "trial_successes": page.successes,
        "let_others_try": page.barred,
    }


def _page(text: bytes) -> Page:
    if text == FOREIGN.encode():
        raise ValueError("not a page")
    body = text[max(0, text.find(b"{")) :]
    if msgspec.json.decode(body, type=_Versioned).version > VERSION:
        raise NewerPage
    return msgspec.json.decode(body, type=Page, strict=False)


def _seconds(milliseconds: int) -> float:
    return round(max(0, milliseconds) / 1000, 1)


def _sane(record: Record) -> None:
    if not 0 <= record.epoch <= LATEST_EPOCH or record.left < -1 or record.period < 0:
        raise ValueError("figures out of range")
