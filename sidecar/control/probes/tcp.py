"""TCP: healthy when a connection opens. Nothing is sent, nothing is read."""

from sidecar.config.address import Address
from sidecar.control.probes.stream import dial


class TcpProbe:
    """Connects to `target` and hangs up."""

    def __init__(self, target: Address) -> None:
        self._target = target

    async def __call__(self) -> str:
        async with dial(self._target):
            return "connected"
