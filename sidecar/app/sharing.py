"""What replicas share through Redis: wires the one link, and the fleet's breakers to those here.

Made before anybody serves, since breakers are born with their tie; it begins to talk once they are there. What must
not change while it runs is taken from the first configuration, as `config/changes.py` tells the operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.app.neighbours import member
from sidecar.app.pod import breakers_of
from sidecar.control.fleet import FleetShell
from sidecar.control.fleet_redis import FleetPort
from sidecar.control.redis_link import RedisLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.config.document import Config
    from sidecar.config.redis import SharedState
    from sidecar.control.fleet import SharedBreaker
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor


class Sharing:
    """The link, and who talks over it about breakers."""

    def __init__(
        self, shared: SharedState, config: Config, tasks: Supervisor, registry: Registry, observer: Observer
    ) -> None:
        self._tasks = tasks
        self.link = RedisLink(shared.redis, registry, observer)
        self.me = member(config)
        port = FleetPort(self.link, shared.namespace, config.service.name, self.me)
        self.fleet = FleetShell(self.me, self.link, port, registry, observer)

    def start(
        self, config: Config, breakers: Callable[[], Mapping[str, SharedBreaker]], calls: Callable[[], float]
    ) -> None:
        """Begin to talk; `calls`: a number that grows with every call."""
        self.fleet.serve(breakers, calls)
        self.apply(config)
        self._tasks.start("shared-state", self.link.run)
        self._tasks.start("fleet", self.fleet.run)

    def apply(self, config: Config) -> None:
        """A reload."""
        self.fleet.follow(dict(breakers_of(config)))

    async def look(self, breakers: list[dict[str, Any]]) -> dict[str, Any]:
        """Add to each of `breakers` what is known of the fleet's, votes and leases among it.

        Returns the fleet: me, connected, error (why not), peers as `fleet_redis.Shown` has them, looked_seconds_ago
        (the age of the peers and votes, null: never heard of).
        """
        look = await self.fleet.look()
        for one in breakers:
            fleet = one["fleet"] = self.fleet.view(one["name"])
            if fleet is not None:
                fleet |= {"looked_seconds_ago": look.seconds_ago, **look.voices.get(one["name"], {})}
        return {
            "me": self.me,
            "connected": self.link.up,
            "error": self.link.reason or None,
            "peers": look.peers,
            "looked_seconds_ago": look.seconds_ago,
        }

    def hand_over(self) -> None:
        """A successor of the same name talks from now on."""
        for task in ("fleet", "shared-state"):
            self._tasks.cancel(task)
