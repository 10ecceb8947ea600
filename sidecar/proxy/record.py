"""Record: count how a request ended and, where it is asked for, log it. Two dictionary look-ups and a bisect.

Cells are found by (method, status, outcome) in the route's own table; the registry is asked once for each. The label
`method` knows the registered methods only, everything else is OTHER.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.runtime import series

if TYPE_CHECKING:
    from sidecar.base.errors import RequestFault
    from sidecar.proxy.exchange import Exchange
    from sidecar.proxy.plan import ListenerPlan, RoutePlan
    from sidecar.proxy.upstream import Endpoint
    from sidecar.runtime.series import Counter

METHODS = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
}


def record(exchange: Exchange, endpoint: Endpoint | None, outcome: str, now: float) -> None:
    """Count `exchange`, which ended at `now` (monotonic seconds) with `outcome`."""
    plan = exchange.plan
    route = exchange.route
    key = (exchange.head.method, exchange.status, outcome)
    cell = route.cells.get(key)
    if cell is None:
        cell = requests_cell(plan, route, exchange.head.method, exchange.status, outcome)
        if exchange.head.method in METHODS:
            route.cells[key] = cell
    cell.value += 1
    route.duration.observe(now - exchange.started)
    plan.bytes_in.value += exchange.bytes_in + exchange.head.size
    plan.bytes_out.value += exchange.bytes_out
    tracer = plan.state.tracer
    if tracer is not None:
        tracer.end(exchange, "" if endpoint is None else endpoint.address, outcome, now)
    log = plan.state.access_log
    if log is not None:
        head = exchange.head
        trace = exchange.trace
        log.record(
            plan.name,
            route.name,
            route.upstream_name,
            "" if endpoint is None else endpoint.address,
            head.method,
            head.target,
            head.host,
            exchange.status,
            "" if exchange.decision is None else exchange.decision.value,
            now - exchange.started,
            exchange.bytes_in,
            exchange.bytes_out,
            exchange.request_id or b"",
            (trace is not None and trace.traceparent) or head.field(b"traceparent") or b"",
            exchange.client.peer,
            exchange.attempt,
        )


def record_refused(plan: ListenerPlan, peer: str, fault: RequestFault) -> None:
    """Count and log what never became a request. Its bytes are nobody's business, so none of them is logged."""
    requests_cell(plan, plan.unrouted, b"", fault.status, fault.decision).value += 1
    log = plan.state.access_log
    if log is not None:
        word = fault.decision.value
        log.record(plan.name, "", "", "", "", "", "", fault.status, word, 0.0, 0, 0, "", "", peer, 0)


def requests_cell(plan: ListenerPlan, route: RoutePlan, method: bytes, status: int, outcome: str) -> Counter:
    """The counter of requests that ended this way."""
    return plan.registry.cell(
        series.REQUESTS, plan.name, route.name, route.upstream_name, METHODS.get(method, "OTHER"), str(status), outcome
    )
