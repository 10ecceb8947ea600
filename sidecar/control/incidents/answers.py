"""The incidents' part of the admin interface.

GET `/api/v1/incidents` lists, GET `/api/v1/incidents/ID` tells one with its timeline, POST `/api/v1/incidents/ID/ack`
and `…/resolve` take `by` and `why` in an optional JSON body. GET `/api/v1/figures` is what is known about ourselves.
POST `/api/v1/happenings` takes what the backup agent beside us reports (`reports.py`).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from sidecar.control.incidents import reports
from sidecar.control.incidents.keeper import Keeper
from sidecar.runtime.admin_doors import Handler, Refused, Tables, as_json, reading
from sidecar.runtime.admin_http import Request, Response
from sidecar.runtime.observer import Observer

PATH = "/api/v1/incidents"
PREFIX = f"{PATH}/"
FIGURES = "/api/v1/figures"


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody may say beside ack and resolve."""

    by: str = ""
    why: str = ""


class Answers:
    """What is answered about incidents."""

    def __init__(self, keeper: Keeper, observer: Observer, figures: Callable[[], dict[str, Any]]) -> None:
        self._keeper = keeper
        self._orders = {"ack": keeper.ack, "resolve": keeper.resolve}
        self._observer = observer
        self._figures = figures
        reads: dict[str, Handler] = {PATH: reading(self._list), FIGURES: reading(self._look_at_ourselves)}
        commands: dict[str, Handler] = {reports.PATH: self._report}
        self.tables = Tables({}, reads, commands, families={PREFIX: self._order}, shelves={PREFIX: self._show})

    async def _list(self) -> list[dict[str, Any]]:
        return self._keeper.view()

    async def _look_at_ourselves(self) -> dict[str, Any]:
        return self._figures()

    async def _show(self, request: Request) -> Response:
        one = request.path.removeprefix(PREFIX)
        found = await self._keeper.show(one)
        if found is None and one.rpartition("/")[2] in self._orders:
            raise Refused(405, "changes are made by POST", ("allow", "POST"))
        if found is None:
            raise self._unknown(one)
        return as_json(found)

    async def _order(self, request: Request) -> Response:
        one, _, action = request.path.removeprefix(PREFIX).rpartition("/")
        if action not in self._orders or not one:
            raise Refused(400, f"write {PREFIX}ID/ and one of {', '.join(self._orders)}")
        try:
            said = msgspec.json.decode(request.body, type=Body) if request.body.strip() else Body()
        except msgspec.DecodeError as error:
            raise Refused(400, f"the body may hold `by` and `why`: {error}") from None
        by = said.by[:100] or "somebody"
        if not await self._orders[action](one, by, said.why[:500]):
            known = await self._keeper.show(one)
            if known is None:
                raise self._unknown(one)
            raise Refused(409, f"{one} is {known['status']} already")
        done = "acknowledged: nobody else is told" if action == "ack" else "resolved"
        return as_json({"ok": True, "message": f"{one} is {done}"})

    async def _report(self, request: Request) -> Response:
        try:
            found = reports.parse(request.body)
        except ValueError as error:
            raise Refused(400, str(error)) from None
        for one in found:
            self._observer.hear(one)  # the agent has logged it
        return as_json({"ok": True, "accepted": len(found)})

    def _unknown(self, one: str) -> Refused:
        names = ", ".join(incident["id"] for incident in self._keeper.open_ones()[:10])
        return Refused(404, f"there is no incident {one[:100]!r}; open are: {names or 'none'}")
