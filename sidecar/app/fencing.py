"""The fence around a service whose data is being exchanged, in a proxy that is started meanwhile.

The proxy before it was told to keep callers away and the service stopped; the mark beside the admin socket says so
still (`runtime/fence_mark.py`). It is looked at once, before anybody is served and before the service is started.
"""

import contextlib

from sidecar.app.crew import Crew
from sidecar.app.recovery import ProgramRecovery
from sidecar.runtime import fence_mark
from sidecar.runtime.logs import Log

_log = Log(__name__)


class Fencing:
    """Of one program."""

    def __init__(self, admin_socket: str) -> None:
        self._admin_socket = admin_socket
        self._mark = fence_mark.read(admin_socket)

    @property
    def stands(self) -> bool:
        """Whether there is one."""
        return self._mark is not None

    @property
    def holds_service(self) -> bool:
        """Whether the supervised service is to stand still."""
        return self._mark is not None and self._mark.service

    async def close(self, crew: Crew) -> None:
        """Callers are kept away; before the first is served."""
        mark = self._mark
        if mark is None:
            return
        for one in await crew.breakers():
            if mark.covers(one["name"]):
                await crew.order(one["name"], "open", None, mark.by, mark.why)
        _log.warning("still_fenced", upstreams=list(mark.upstreams), service=mark.service, by=mark.by, why=mark.why,
                     advice="sidecar restore resume ends it")  # fmt: skip

    def pause(self, recovery: ProgramRecovery) -> None:
        """Recovery leaves alone what is meant to stand still."""
        if self._mark is not None:
            recovery.pause(self._mark.by, self._mark.why)

    def lift(self, upstream: str) -> None:
        """Somebody lets callers through again: no restart takes that back."""
        with contextlib.suppress(OSError):
            fence_mark.lift(self._admin_socket, upstream=upstream)
