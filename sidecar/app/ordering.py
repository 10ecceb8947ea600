"""Orders to breakers: carried out here or in all replicas, noted in the log, and answered in a sentence that says for
whom it counts, until when, and what stands above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.runtime.admin_doors import Refused
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from sidecar.app.crew import Crew
    from sidecar.app.fencing import Fencing
    from sidecar.app.sharing import Sharing
    from sidecar.control.fleet import FleetShell
    from sidecar.control.orders import Body

_log = Log(__name__)


class Ordering:
    """Of one program."""

    def __init__(self, crew: Crew, sharing: Sharing | None, fencing: Fencing) -> None:
        self._crew = crew
        self._fleet = None if sharing is None else sharing.fleet
        self._fencing = fencing

    async def order(self, name: str, action: str, said: Body) -> str:
        """`action`: open, close or reset. What came of it, in words. Raises Refused."""
        if said.fleet:
            whose, more = " in all replicas", await self._everywhere(name, action, said)
        else:
            whose, more = "", await self._here(name, action, said)
        _log.warning("breaker_ordered", breaker=name, action=action, by=said.by, why=said.why,
                     seconds=said.for_seconds, fleet=said.fleet)  # fmt: skip
        if action == "reset":
            return f"the breaker of {name} is automatic again{whose}{more}"
        until = "until it is reset" if said.for_seconds is None else f"for {said.for_seconds:g} seconds"
        return f"the breaker of {name} is held {'open' if action == 'open' else 'closed'}{whose} {until}{more}"

    async def _here(self, name: str, action: str, said: Body) -> str:
        if not await self._crew.order(name, action, said.for_seconds, said.by, said.why):
            names = ", ".join(one["name"] for one in await self._crew.breakers())
            raise Refused(404, f"there is no breaker {name!r}; there are: {names}")
        if action != "open":
            self._fencing.lift(name)
        return "" if self._fleet is None else _beside(self._fleet, name, action)

    async def _everywhere(self, name: str, action: str, said: Body) -> str:
        if self._fleet is None:
            raise Refused(409, "there is no shared_state: leave --fleet out and say it to each replica")
        if self._fleet.view(name) is None:
            raise Refused(
                404, f"replicas do not share a breaker {name!r}: see `sidecar breaker list` and breaker.shared"
            )
        why = await self._fleet.order(name, action, seconds=said.for_seconds, by=said.by, why=said.why)
        if why:
            raise Refused(503, f"not carried out: {why}; without --fleet it is carried out here")
        above = "; here an order for this replica alone stands above it (reset without --fleet)"
        return above if self._fleet.overruled(name) else ""


def _beside(fleet: FleetShell, name: str, action: str) -> str:
    """What is to be added to the answer to an order for this replica alone."""
    seen = fleet.view(name)
    if seen is None:
        return ""
    if action != "reset":
        return ", in this replica only (--fleet: in all)"
    if seen["alone"] or seen["state"] == "closed":
        return ""
    return f"; the replicas together hold it {seen['state'].replace('_', ' ')} (reset --fleet ends that)"
