"""Take an upstream's unhealthy endpoints out: no new request goes there, not even in a panic; what idles is closed."""

from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import ActionFailed, Surroundings


class DrainEndpoints(Plain):
    """Drains those whose checks fail, in every worker."""

    strategy = "drain"
    lasts = True

    def __init__(self, upstream: str, around: Surroundings) -> None:
        self._upstream = upstream
        self._around = around
        self._drained: list[str] = []

    async def run(self) -> str:
        sick = self._around.health.sick_endpoints(self._upstream)
        if not sick:
            raise ActionFailed(f"no endpoint of {self._upstream} is unhealthy: there is nothing to drain")
        self._drained = sick
        await self._around.serve("drain_endpoints", self._upstream, sick)
        return f"drained {', '.join(sick[:5])}" + (f" and {len(sick) - 5} more" if len(sick) > 5 else "")

    async def undo(self) -> None:
        await self._around.serve("drain_endpoints", self._upstream, [])

    async def needless(self) -> bool:
        return not set(self._drained) & set(self._around.health.sick_endpoints(self._upstream))
