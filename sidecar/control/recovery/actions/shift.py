"""Send an upstream's requests to its endpoints of the next priority, until those of the first are well.

Health does this by itself, gradually, for endpoints that fail their checks. This is for those that pass them and are
sick all the same: errors, slowness, an open breaker.
"""

from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import ActionFailed, Surroundings


class ShiftPriority(Plain):
    """Takes the first priority out, in every worker."""

    strategy = "shift"
    lasts = True

    def __init__(self, upstream: str, around: Surroundings) -> None:
        self._upstream = upstream
        self._around = around
        self._left: set[str] = set()  # addresses that nothing is sent to

    async def run(self) -> str:
        endpoints = await self._around.endpoints(self._upstream)
        first, *others = sorted({priority for _, priority in endpoints}) or [0]
        if not others:
            raise ActionFailed(
                f"all endpoints of {self._upstream} have the same priority: there is nowhere to shift to"
            )
        self._left = {address for address, priority in endpoints if priority == first}
        await self._around.serve("shift_priority", self._upstream, True)
        return f"requests to {self._upstream} go to its endpoints of priority {others[0]}"

    async def undo(self) -> None:
        await self._around.serve("shift_priority", self._upstream, False)

    async def needless(self) -> bool:
        return not self._left & set(self._around.health.sick_endpoints(self._upstream))
