"""Orders about the supervised service: `POST /api/v1/service/hold` keeps it stopped, `…/release` starts it again.

Who exchanges the service's data holds it meanwhile (a restore in place). It is not remembered: a proxy that is started
anew starts the service.
"""

from collections.abc import Awaitable, Callable

from sidecar.control.child import Child
from sidecar.runtime.admin_doors import Refused, Tables, as_json
from sidecar.runtime.admin_http import Request, Response
from sidecar.runtime.logs import Log

PREFIX = "/api/v1/service/"

_log = Log(__name__)


class ServiceOrders:
    """Of one program; `child`: None when it supervises nothing."""

    def __init__(self, child: Child | None) -> None:
        self._child = child
        self.tables = Tables({}, {}, {f"{PREFIX}hold": self._hold, f"{PREFIX}release": self._release}, {})

    async def _hold(self, _request: Request) -> Response:
        return await self._order("hold", "the service is stopped until it is released", lambda one: one.hold())

    async def _release(self, _request: Request) -> Response:
        return await self._order("release", "the service is started", lambda one: one.release())

    async def _order(self, what: str, done: str, order: Callable[[Child], Awaitable[bool]]) -> Response:
        if self._child is None:
            raise Refused(409, "this proxy supervises no service: it was started without a command after --")
        _log.warning("service_ordered", action=what)
        if not await order(self._child):
            raise Refused(409, f"the service cannot be {'held' if what == 'hold' else 'started'} now; see the log")
        return as_json({"ok": True, "message": done})
