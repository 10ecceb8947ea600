"""Route: which rule of the listener takes this request. Asks the compiled table; no rule is a 404."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal
from sidecar.base.names import Decision

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange


def route(exchange: Exchange) -> None:
    """Set `exchange.route`; raises OwnRefusal (404) when no rule matches."""
    head = exchange.head
    plan = exchange.plan
    found = plan.table.find(head.method, head.host, head.path, head.field)
    if found is None:
        raise OwnRefusal("no route of this listener takes this request", 404, Decision.NO_ROUTE)
    exchange.route = chosen = plan.routes[found]
    if head.upgrade is not None and head.upgrade in chosen.upgrades:
        exchange.upgrade = head.upgrade
