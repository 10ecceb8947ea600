"""Restart the supervised process: `sidecar run -- COMMAND`. SIGTERM to its group, SIGKILL two seconds later."""

import asyncio

from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import ActionFailed, Surroundings

PATIENCE_SECONDS = 15.0
"""Far beyond SIGKILL: whoever is not gone by then waits in the kernel."""


class RestartProcess(Plain):
    """Ends the child and starts it anew; its supervisor counts the start."""

    strategy = "process"
    restarts = True

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._before: int | None = None

    async def run(self) -> str:
        child = self._around.child
        if child is None:
            raise ActionFailed("there is no process to restart: start it with `sidecar run -c FILE -- COMMAND`")
        self._before = child.pid
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                started = await child.restart()
        except TimeoutError:
            raise ActionFailed("not even SIGKILL ended it: it waits in the kernel, likely for a disk") from None
        if not started:
            raise ActionFailed("it could not be started again; the log says why (child_start_failed)")
        return f"process {self._before or '?'} ended, process {child.pid or '?'} started"

    def renewed(self) -> bool:
        child = self._around.child
        return child is not None and child.pid not in {None, self._before}
