"""Orders about the supervised service: `POST /api/v1/service/hold` keeps it stopped, `…/release` starts it again.

Who exchanges the service's data holds it meanwhile (a restore in place), and leaves a mark for a proxy that is started
anew (`runtime/fence_mark.py`). Without one that starts the service; a release lifts it.
"""

import contextlib
from collections.abc import Awaitable, Callable

from sidecar.control.child import Child
from sidecar.runtime import fence_mark
from sidecar.runtime.admin_doors import Refused, Tables, as_json
from sidecar.runtime.admin_http import Request, Response
from sidecar.runtime.logs import Log

PREFIX = "/api/v1/service/"

_log = Log(__name__)


class ServiceOrders:
    """Of one program."""

    def __init__(self, child: Child | None, admin_socket: str) -> None:
        """`child`: None when it supervises nothing; `admin_socket`: where the mark is."""
        self._child = child
        self._admin_socket = admin_socket
        self.tables = Tables({}, {}, {f"{PREFIX}hold": self._hold, f"{PREFIX}release": self._release}, {})

    async def _hold(self, _request: Request) -> Response:
        return await self._order("hold", "the service is stopped until it is released", lambda one: one.hold())

    async def _release(self, _request: Request) -> Response:
        with contextlib.suppress(OSError):
            fence_mark.lift(self._admin_socket, service=True)
        return await self._order("release", "the service is started", lambda one: one.release())

    async def _order(self, what: str, done: str, order: Callable[[Child], Awaitable[bool]]) -> Response:
        if self._child is None:
            raise Refused(409, "this proxy supervises no service: it was started without a command after --")
        _log.warning("service_ordered", action=what)
        if not await order(self._child):
            raise Refused(409, f"the service cannot be {'held' if what == 'hold' else 'started'} now; see the log")
        return as_json({"ok": True, "message": done})
