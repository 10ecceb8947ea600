"""Send an upstream's requests to another until it is well. Requests under way stay where they are."""

from sidecar.config.recovery import Reroute as RerouteConfig
from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import Surroundings


class Reroute(Plain):
    """Every route of `upstream` leads to `to`, in every worker."""

    strategy = "reroute"
    lasts = True

    def __init__(self, config: RerouteConfig, around: Surroundings) -> None:
        self._config = config
        self._around = around
        self.about = config.to  # who has to be well for this to help

    async def run(self) -> str:
        await self._around.serve("reroute", self._config.upstream, self._config.to)
        return f"requests to {self._config.upstream} go to {self._config.to}"

    async def undo(self) -> None:
        await self._around.serve("reroute", self._config.upstream, None)

    async def needless(self) -> bool:
        answers = await self._around.health.ask_upstream(self._config.upstream)
        return not answers or any(one.ok for one in answers)
