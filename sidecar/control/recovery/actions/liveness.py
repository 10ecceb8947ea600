"""Let the kubelet restart the service: `/livez/service` answers 503 until the service is well again."""

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
        return "/livez/service fails until the service is well"

    async def undo(self) -> None:
        self.wanted = False
