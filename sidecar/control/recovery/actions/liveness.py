"""Let the kubelet restart the service: `/livez/service` answers 503 until the service answers again.

A service that takes long to begin needs a startupProbe of its own: until that has passed the kubelet asks nothing here.
"""

from sidecar.control.recovery.actions.base import Plain


class FailLiveness(Plain):
    """Wants the container restarted. Takes no permission in the cluster: its livenessProbe points at us."""

    strategy = "liveness"
    restarts = True

    def __init__(self) -> None:
        self.wanted = False
        """Whether `/livez/service` fails."""

    async def run(self) -> str:
        self.wanted = True
        return "/livez/service fails until the service answers"

    async def undo(self) -> None:
        self.wanted = False
