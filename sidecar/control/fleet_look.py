"""What people are told of the fleet that only Redis knows: which replicas are there, who votes, who tries.

Theory. Whoever looks at a page of this sidecar is answered at once, whatever Redis does. So looks are shared: one asks
for all breakers in one word, however many people look, and its answer is good for EVERY seconds. Whoever comes while it
is under way waits for it until it is WITHIN seconds old, and is then told what was last known, and how old that is.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.control.redis_link import RedisGone, RedisRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.control.fleet_redis import FleetPort
    from sidecar.control.redis_link import RedisLink

EVERY = 0.25
WITHIN = 0.2


class Look(NamedTuple):
    """What was known, as plain data (its shapes: `fleet_redis.Shown`)."""

    seconds_ago: float | None
    """None: nobody ever answered, and there is nothing here."""
    peers: Sequence[dict[str, Any]]
    voices: Mapping[str, dict[str, Any]]


class Looks:
    """Looks at Redis, shared by all who want to see."""

    def __init__(self, link: RedisLink, port: FleetPort) -> None:
        self._link = link
        self._port = port
        self._began = self._seen_at = 0.0
        self._seen = Look(None, (), {})
        self._under_way: asyncio.Task[None] | None = None

    async def take(self, names: Sequence[str]) -> Look:
        """What Redis has of these breakers, or had."""
        if self._link.up and names and self._under_way is None and monotonic() - self._began >= EVERY:
            self._began = monotonic()
            self._under_way = asyncio.create_task(self._ask(names))
        if self._under_way is not None:
            await asyncio.wait({self._under_way}, timeout=max(0.0, self._began + WITHIN - monotonic()))
        if self._seen.seconds_ago is None:
            return self._seen
        return self._seen._replace(seconds_ago=round(monotonic() - self._seen_at, 1))

    def stop(self) -> None:
        """Nobody looks any more."""
        if self._under_way is not None:
            self._under_way.cancel()

    async def _ask(self, names: Sequence[str]) -> None:
        try:
            shown = await self._port.show(names)
        except (RedisGone, RedisRefused):
            return
        finally:
            self._under_way = None
        self._seen_at = self._began
        self._seen = Look(0.0, shown.peers, shown.voices)
