"""TCP: healthy when a connection opens, its TLS included. Nothing is sent, nothing is read."""

from collections.abc import Callable

from sidecar.config.address import Address
from sidecar.control.probes.stream import dial
from sidecar.runtime.calling import Calling


class TcpProbe:
    """Connects to `target` and hangs up."""

    def __init__(self, target: Address, tls: Callable[[], Calling | None] | None = None) -> None:
        self._target = target
        self._tls = tls

    async def __call__(self) -> str:
        async with dial(self._target, None if self._tls is None else self._tls()):
            return "connected"
