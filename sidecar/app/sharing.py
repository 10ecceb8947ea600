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
from sidecar.runtime.admin_doors import Refused
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.config.document import Config
    from sidecar.config.redis import SharedState
    from sidecar.control.fleet import SharedBreaker
    from sidecar.control.orders import Body
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor

_log = Log(__name__)


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

    def beside(self, name: str, action: str) -> str:
        """What is to be added to the answer to an order for this replica alone."""
        seen = self.fleet.view(name)
        if seen is None:
            return ""
        if action != "reset":
            return ", in this replica only (--fleet: in all)"
        if seen["alone"] or seen["state"] == "closed":
            return ""
        return f"; the replicas together hold it {seen['state'].replace('_', ' ')} (reset --fleet ends that)"

    def hand_over(self) -> None:
        """A successor of the same name talks from now on."""
        for task in ("fleet", "shared-state"):
            self._tasks.cancel(task)


async def order_fleet(sharing: Sharing | None, name: str, action: str, said: Body) -> str:
    """An order for all replicas, and what there is to say of it; raises Refused."""
    if sharing is None:
        raise Refused(409, "there is no shared_state: leave --fleet out and say it to each replica")
    if sharing.fleet.view(name) is None:
        raise Refused(404, f"replicas do not share a breaker {name!r}: see `sidecar breaker list` and breaker.shared")
    why = await sharing.fleet.order(name, action, seconds=said.for_seconds, by=said.by, why=said.why)
    if why:
        raise Refused(503, f"not carried out: {why}; without --fleet it is carried out here")
    _log.warning("breaker_ordered", breaker=name, action=action, by=said.by, why=said.why,
                 seconds=said.for_seconds, fleet=True)  # fmt: skip
    above = "; here an order for this replica alone stands above it (reset without --fleet)"
    more = above if sharing.fleet.overruled(name) else ""
    if action == "reset":
        return f"the breaker of {name} is automatic again in all replicas{more}"
    until = "until it is reset" if said.for_seconds is None else f"for {said.for_seconds:g} seconds"
    return f"the breaker of {name} is held {'open' if action == 'open' else 'closed'} in all replicas {until}{more}"
