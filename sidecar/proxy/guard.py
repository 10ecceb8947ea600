"""Guard: asks the breaker before each try, and tells it and the outlier watch what came of it.

Who is to blame decides what is recorded: what the upstream did (a failure status or field, a refused or broken
connection, a time-out, an answer that is no HTTP) counts; what the client or we ourselves did counts as neither, and
the permit goes back. A try is recorded exactly once; a permit that is gone makes later calls do nothing.

Every verdict that `ask` gives is timed into `sidecar_breaker_decision_seconds`; `attempt` spares most requests the
question while the breaker is closed.
"""

from __future__ import annotations

from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from sidecar.base.errors import OwnRefusal
from sidecar.base.names import Decision
from sidecar.machines.blame import GATEWAY_STATUSES, UPSTREAMS_FAULT
from sidecar.machines.breaker import Refusal, Trial

if TYPE_CHECKING:
    from sidecar.proxy.codec.head import ResponseHead
    from sidecar.proxy.exchange import Exchange

_WORDS = {
    Decision.BREAKER_OPEN: "the upstream's breaker is open: it failed too often; try again later",
    Decision.MANUAL_OPEN: "the upstream's breaker was opened by hand; try again later",
}


class Refused(OwnRefusal):
    """The breaker said no; `retry_after` is whole seconds."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(_WORDS[refusal.reason], 503, refusal.reason)
        self.retry_after = refusal.retry_after


def ask(exchange: Exchange, now: float) -> None:
    """Get a permit for a try that begins at `now`; raises Refused."""
    guarded = exchange.guarded
    began = perf_counter()
    permit = guarded.breaker.admit(now)
    guarded.decision.observe(perf_counter() - began)
    exchange.tried_at = now
    exchange.answered_at = 0.0
    if isinstance(permit, int):
        exchange.permit = permit
        if permit < 0:
            guarded.count_refusals()  # mode observe lets pass what it would have refused
        return
    if isinstance(permit, Refusal):
        guarded.count_refusals()
        raise Refused(permit)
    exchange.permit = permit
    guarded.trial(permit)


def answered(exchange: Exchange, status: int, now: float) -> None:
    """The answer's head is here at `now` and its body goes on: a trial that got this far is no longer bound in time."""
    permit = exchange.permit
    guarded = exchange.guarded
    exchange.answered_at = now
    if isinstance(permit, Trial) and (status not in guarded.suspects or _is_good(exchange, exchange.answer, status)):
        permit.answered = now - exchange.tried_at < guarded.slow_after


def record(exchange: Exchange, status: int, now: float, head: ResponseHead | None = None) -> None:
    """The try ended at `now` with a whole answer; `head`: one that is not for the client."""
    permit = exchange.permit
    if permit is None:
        return
    exchange.permit = None
    guarded = exchange.guarded
    took = (exchange.answered_at or now) - exchange.tried_at
    ok = status not in guarded.suspects or _is_good(exchange, head or exchange.answer, status)
    change = guarded.breaker.record(permit, now, ok=ok, slow=took >= guarded.slow_after)
    if change is not None:
        guarded.changed(change)
    endpoint = exchange.endpoint
    if endpoint is not None and endpoint.standing is not None:
        outliers = exchange.upstream.outliers
        gateway = not ok and status in GATEWAY_STATUSES
        ejection = outliers.record(endpoint.standing, now, exchange.tried_at, ok, gateway, took >= outliers.slow_after)
        if ejection is not None:
            outliers.tell(ejection)


def _is_good(exchange: Exchange, head: ResponseHead | None, status: int) -> bool:
    """The second look at an answer whose status alone does not clear it."""
    guarded = exchange.guarded
    if status in guarded.policy.failure_statuses:
        return False
    reader = exchange.answer_reader

    def lines(name: bytes) -> list[bytes]:
        found = [] if head is None else head.lines(name)
        return found if reader is None else found + reader.trailer(name)

    return not guarded.failure_fields.mean_failure(lines)


def blame(exchange: Exchange, decision: Decision) -> None:
    """The try ended without a whole answer, for the reason that `decision` names."""
    permit = exchange.permit
    if permit is None:
        return
    exchange.permit = None
    guarded = exchange.guarded
    if decision not in UPSTREAMS_FAULT:
        guarded.cancel(permit)
        return
    now = monotonic()
    took = now - exchange.tried_at if exchange.answered_at == 0.0 else 0.0
    change = guarded.breaker.record(permit, now, ok=False, slow=took >= guarded.slow_after)
    if change is not None:
        guarded.changed(change)
    endpoint = exchange.endpoint
    if endpoint is not None and endpoint.standing is not None:
        outliers = exchange.upstream.outliers
        gateway = decision is Decision.CONNECT_FAILURE
        slow = took >= outliers.slow_after
        ejection = outliers.record(endpoint.standing, now, exchange.tried_at, False, gateway, slow)
        if ejection is not None:
            outliers.tell(ejection)


def forget(exchange: Exchange) -> None:
    """The try ended for no reason of the upstream's."""
    permit = exchange.permit
    if permit is not None:
        exchange.permit = None
        exchange.guarded.cancel(permit)
