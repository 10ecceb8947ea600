"""Run a command that restarts the service. No shell; bounded in time and output; nothing that it started outlives it.

What a command is to leave running must be in a session of its own (`setsid`); its process group is killed when it ends.
"""

from collections.abc import Sequence

from sidecar.control.probes.command import CommandProbe
from sidecar.control.probes.probe import ask
from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import ActionFailed


class RunCommand(Plain):
    """Runs `argv`; exit code 0 within the time-out is success."""

    strategy = "command"
    restarts = True

    def __init__(self, argv: Sequence[str], timeout: float) -> None:
        self._program = argv[0]
        self._probe = CommandProbe(argv)
        self._timeout = timeout

    async def run(self) -> str:
        result = await ask(self._probe, self._timeout)
        if not result.ok:
            raise ActionFailed(f"{self._program}: {result.detail}")
        return f"{self._program} {result.detail}"
