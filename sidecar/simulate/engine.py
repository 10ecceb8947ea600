"""The event loop on a virtual clock, and the way of a request over the proxy's machines.

Time is a heap of moments; the clock jumps from one to the next. The steps are those of the proxy (`route`, `admit`,
`attempt`, `guard`, `fallback`, `settle`), by the same names and in the same order, for that order is what the machines
are told: but here they move counters where the proxy moves bytes. Every verdict is a machine's: which route, whether
the breaker, budget and cache allow, which endpoint, whether another try follows and when.

What is left out: bodies take no time, clients never leave, time-outs strike exactly (the proxy's sweep is up to 0.1 s
late), one process serves, active health checks and shared state do not act.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

from sidecar.base.errors import OwnRefusal, RequestFault, UpstreamFault
from sidecar.base.names import Decision
from sidecar.machines import retry
from sidecar.machines.answer_cache import AnswerCache
from sidecar.machines.blame import FALLBACK_DECISIONS, FALLBACK_STATUSES, GATEWAY_STATUSES, UPSTREAMS_FAULT
from sidecar.machines.breaker import Refusal, Trial
from sidecar.simulate.call import Call
from sidecar.simulate.network import Connection, Endpoint, Network, Tier, Upstream
from sidecar.simulate.tally import Tally
from sidecar.simulate.world import Outcome, World

SWEEP_SECONDS = 0.1
"""How often the proxy, too, looks for what is overdue."""


class Simulation:
    """One configuration in one world."""

    def __init__(self, network: Network, world: World, tally: Tally, random: Random) -> None:
        """`random` is the machines' dice; the world throws its own."""
        self.network = network
        self.now = 0.0
        self._world = world
        self._tally = tally
        self._uniform = random.random
        self._moments: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._under_way = 0
        self._end = 0.0

    def run(self, streams: Iterable[Iterator[Call]], seconds: float) -> None:
        """Serve all calls of all streams (each in the order of `started`) and let the last ones end."""
        self._end = seconds
        for moment, change in self._world.edges(self.network):
            self._at(moment, change)
        for stream in streams:
            self._next(stream)
        self._at(SWEEP_SECONDS, self._sweep)
        moments, pop = self._moments, heapq.heappop
        while moments:
            self.now, _, step, arguments = pop(moments)
            step(*arguments)

    def _at(self, moment: float, step: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._moments, (moment, self._number, step, arguments))

    def _next(self, stream: Iterator[Call]) -> None:
        call = next(stream, None)
        if call is not None:
            self._at(call.started, self._arrive, call, stream)

    def _sweep(self) -> None:
        for guard in self.network.guards.values():
            if guard.breaker.deadline <= self.now:
                guard.sweep(self.now)
        for upstream in self.network.upstreams.values():
            upstream.sweep(self.now)
        if self.now < self._end or self._under_way:
            self._at(self.now + SWEEP_SECONDS, self._sweep)

    # Route, admit --------------------------------------------------------------------------------------------------

    def _arrive(self, call: Call, stream: Iterator[Call]) -> None:
        self._next(stream)
        self._under_way += 1
        asked = call.asked
        route = asked.route
        if route is None:
            found = asked.listener.table.find(asked.method, asked.host, asked.path, asked.field_of)
            if found is None:
                self._settle(call, "", 404, Decision.NO_ROUTE)
                return
            route = asked.listener.routes[found]
        call.route = route
        call.upstream = upstream = route.upstream
        call.guard = route.guard
        try:
            if upstream.inflight >= upstream.max_requests:
                raise OwnRefusal("as many requests under way as there may be", 503, Decision.OVERFLOW)
            upstream.inflight += 1
            call.admitted = True
            upstream.budget.request(self.now)
            self._attempt(call)
        except RequestFault as fault:
            self._refuse(call, fault)

    # Attempt -------------------------------------------------------------------------------------------------------

    def _attempt(self, call: Call) -> None:
        upstream, now = call.upstream, self.now
        permit = call.guard.breaker.admit(now)
        if isinstance(permit, Refusal):
            raise OwnRefusal("the breaker is open", 503, permit.reason)
        call.permit = permit
        call.tried_at = now
        if isinstance(permit, Trial):
            call.guard.changed(permit.transition)
        endpoint = upstream.picker.pick(call.tried or (), self._hash_key(call) if upstream.hashes else b"")
        if endpoint is None:
            raise OwnRefusal("no endpoint is healthy", 503, Decision.NO_HEALTHY_ENDPOINT)
        assert isinstance(endpoint, Endpoint)
        call.endpoint = endpoint
        endpoint.active += 1
        call.attempt += 1
        if call.give_up_at == 0.0:
            call.give_up_at = now + call.route.timeout
        if endpoint.idle and self._world.has_left(call, endpoint):
            endpoint.close_idle()
        if endpoint.idle:
            self._forward(call, endpoint.idle.pop())
        elif upstream.has_room():
            self._open(call, endpoint)
        elif len(upstream.waiting) < upstream.max_pending:
            upstream.waiting[call] = None
            self._at(min(call.give_up_at, now + upstream.pending_timeout), self._expire, call, call.step)
        else:
            raise OwnRefusal("too many requests wait for a connection", 503, Decision.OVERFLOW)

    @staticmethod
    def _hash_key(call: Call) -> bytes:
        name = call.upstream.hash_header
        value = None if name is None else call.asked.field_of(name)
        return call.client if value is None else value

    def _open(self, call: Call, endpoint: Endpoint) -> None:
        upstream = endpoint.upstream
        upstream.opening += 1
        outcome = self._world.connects(call, endpoint)
        seconds = min(outcome.seconds, upstream.connect_timeout)
        opened = outcome.fault is None and outcome.seconds < upstream.connect_timeout
        self._at(self.now + seconds, self._opened, call, call.step, endpoint, opened)
        if call.give_up_at < self.now + seconds:
            self._at(call.give_up_at, self._expire, call, call.step)

    def _opened(self, call: Call, step: int, endpoint: Endpoint, opened: bool) -> None:
        upstream = endpoint.upstream
        upstream.opening -= 1
        if opened:
            upstream.connections += 1
            if call.step == step:
                self._forward(call, Connection(endpoint))
            else:
                self._rest(Connection(endpoint))
            return
        if call.step == step:
            self._fail(call, UpstreamFault("no connection", 502, Decision.CONNECT_FAILURE))
        self._serve_waiting(upstream)

    def _forward(self, call: Call, connection: Connection) -> None:
        call.connection = connection
        call.sent = True
        call.step += 1
        connection.uses += 1
        endpoint = connection.endpoint
        endpoint.calls += 1
        endpoint.upstream.tries += 1
        outcome = self._world.answers(call, endpoint)
        by = min(call.give_up_at, self.now + call.route.per_try_timeout)
        if self.now + outcome.seconds < by:
            self._at(self.now + outcome.seconds, self._end_try, call, outcome)
        else:
            self._at(by, self._expire, call, call.step)

    def _expire(self, call: Call, step: int) -> None:
        if call.step != step:
            return
        call.upstream.waiting.pop(call, None)
        late = UpstreamFault("no answer in time", 504, Decision.TIMEOUT)
        if self.now >= call.give_up_at:
            late.retryable = False
        elif call.connection is None:
            self._fail(call, OwnRefusal("no connection became free in time", 503, Decision.OVERFLOW))
            return
        self._fail(call, late)

    # The end of a try ----------------------------------------------------------------------------------------------

    def _end_try(self, call: Call, outcome: Outcome) -> None:
        connection = call.connection
        assert connection is not None, "only a call on a connection is answered"
        if outcome.fault is not None:
            status = 504 if outcome.fault is Decision.TIMEOUT else 502
            self._fail(call, UpstreamFault("the call failed", status, outcome.fault), reused=connection.uses > 1)
            return
        status = outcome.status
        self._record(call, outcome)
        call.connection = None
        call.step += 1
        if call.route.reacts and self._give_up_answer(call, connection, status):
            return
        self._keep(call, connection.endpoint, status)
        self._settle(call, call.route.upstream.name, status, call.decision)
        self._rest(connection)

    def _give_up_answer(self, call: Call, connection: Connection, status: int) -> bool:
        """Whether another try or a fallback follows this answer."""
        again = None
        policy = call.route.retry
        if policy is not None and status in policy.statuses:
            again = self._decide(call, retry.Failure(status=status, answered=True))
        if again is not None:
            self._rest(connection)
            self._try_again(call, again.delay)
        elif status in FALLBACK_STATUSES and self._has_tier(call):
            self._rest(connection)
            self._refuse(call, UpstreamFault("the upstream answered that it cannot serve", status))
        else:
            return False
        return True

    def _fail(self, call: Call, fault: RequestFault, *, reused: bool = False) -> None:
        call.step += 1
        self._drop_connection(call)
        failure = retry.Failure(fault.decision, sent=call.sent, reused=reused)
        if call.free_retry and retry.lost_keep_alive_race(failure, method=call.asked.method, replayable=True):
            self._forget(call)
            call.free_retry = False
            call.attempt -= 1
            self._try_again(call, 0.0, elsewhere=False)
            return
        self._blame(call, fault.decision)
        again = self._decide(call, failure) if fault.retryable else None
        if again is None:
            self._refuse(call, fault)
        else:
            self._try_again(call, again.delay)

    def _decide(self, call: Call, failure: retry.Failure) -> retry.Retry | None:
        policy = call.route.retry
        if policy is None or not call.admitted:
            return None
        budget, now = call.upstream.budget, self.now
        again = retry.decide(
            policy,
            failure,
            attempt=call.attempt,
            method=call.asked.method,
            replayable=True,
            time_left=call.give_up_at - now,
            spend=lambda: budget.take(now),
            uniform=self._uniform,
        )
        if not isinstance(again, retry.Retry):
            return None
        call.upstream.retries += 1
        return again

    def _try_again(self, call: Call, delay: float, *, elsewhere: bool = True) -> None:
        endpoint = call.endpoint
        if endpoint is not None:
            endpoint.active -= 1
            call.endpoint = None
            if elsewhere:
                call.tried = [*(call.tried or ()), endpoint]
        self._at(self.now + delay, self._begin_again, call)

    def _begin_again(self, call: Call) -> None:
        try:
            self._attempt(call)
        except RequestFault as fault:
            self._refuse(call, fault)

    # Guard ---------------------------------------------------------------------------------------------------------

    def _record(self, call: Call, outcome: Outcome) -> None:
        guard, status = call.guard, outcome.status
        ok = status not in guard.suspects or (
            status not in guard.policy.failure_statuses and not guard.failure_fields.mean_failure(outcome.lines)
        )
        self._tell(call, ok=ok, gateway=not ok and status in GATEWAY_STATUSES)

    def _blame(self, call: Call, decision: Decision) -> None:
        if decision in UPSTREAMS_FAULT:
            self._tell(call, ok=False, gateway=decision is Decision.CONNECT_FAILURE)
        else:
            self._forget(call)

    def _forget(self, call: Call) -> None:
        permit = call.permit
        if permit is not None:
            call.permit = None
            call.guard.breaker.cancel(permit, self.now)

    def _tell(self, call: Call, *, ok: bool, gateway: bool) -> None:
        """The breaker and the outlier watch hear of each try once."""
        permit, now, guard = call.permit, self.now, call.guard
        if permit is None:
            return
        call.permit = None
        took = now - call.tried_at
        change = guard.breaker.record(permit, now, ok=ok, slow=took >= guard.slow_after)
        if change is not None:
            guard.changed(change)
        endpoint = call.endpoint
        if endpoint is not None and endpoint.standing is not None:
            outliers = call.upstream.outliers
            slow = took >= outliers.slow_after
            ejection = outliers.record(endpoint.standing, now, call.tried_at, ok, gateway, slow)
            if ejection is not None:
                call.upstream.told([ejection])

    # Fallback ------------------------------------------------------------------------------------------------------

    def _refuse(self, call: Call, fault: RequestFault) -> None:
        self._blame(call, fault.decision)
        call.step += 1
        if call.route.tiers and fault.decision in FALLBACK_DECISIONS:
            while (tier := self._next_tier(call)) is not None:
                if isinstance(tier, Upstream):
                    try:
                        self._move(call, tier)
                        self._attempt(call)
                    except RequestFault as refusal:
                        self._blame(call, refusal.decision)
                        fault = refusal
                        continue
                elif isinstance(tier, AnswerCache):
                    kept = tier.find(call.asked.host, call.target, call.asked.field_of, self.now)
                    assert kept is not None, "the tier applied a moment ago"
                    self._settle(call, call.route.upstream.name, kept.status, Decision.FALLBACK_CACHE)
                else:
                    self._settle(call, call.route.upstream.name, tier, Decision.FALLBACK_RESPOND)
                return
        self._settle(call, call.route.upstream.name, fault.status, fault.decision)

    def _has_tier(self, call: Call) -> bool:
        before = call.tier
        found = self._next_tier(call)
        call.tier = before
        return found is not None

    def _next_tier(self, call: Call) -> Tier | None:
        tiers = call.route.tiers
        while call.tier < len(tiers):
            tier = tiers[call.tier]
            call.tier += 1
            if self._applies(call, tier):
                return tier
        return None

    def _applies(self, call: Call, tier: Tier) -> bool:
        asked = call.asked
        if isinstance(tier, Upstream):
            return not call.sent or asked.method in retry.IDEMPOTENT
        if isinstance(tier, int):
            return True
        if asked.method not in (b"GET", b"HEAD"):
            return False
        return tier.find(asked.host, call.target, asked.field_of, self.now) is not None

    def _move(self, call: Call, upstream: Upstream) -> None:
        if call.endpoint is not None:
            call.endpoint.active -= 1
            call.endpoint = None
        if upstream.inflight >= upstream.max_requests:
            raise OwnRefusal("the fallback has as many requests under way as it may have", 503, Decision.OVERFLOW)
        if call.admitted:
            call.upstream.inflight -= 1
            upstream.inflight += 1
        call.upstream = upstream
        call.guard = upstream.guard
        call.tried = None
        call.attempt = 0
        call.free_retry = True
        call.give_up_at = 0.0
        call.decision = Decision.FALLBACK_UPSTREAM

    def _keep(self, call: Call, endpoint: Endpoint, status: int) -> None:
        cache, asked, now = call.route.cache, call.asked, self.now
        if cache is None or call.decision is not None:
            return
        if cache.wants(asked.host, call.target, now) and cache.may_keep(
            asked.method, status, asked.field_of, _no_field
        ):
            body = self._world.body(endpoint)
            cache.keep(asked.host, call.target, asked.field_of, _no_field, b"", body, status, now)

    # Connections ---------------------------------------------------------------------------------------------------

    def _rest(self, connection: Connection) -> None:
        """Give the connection to who has waited longest, or let it rest."""
        endpoint = connection.endpoint
        call = self._next_waiting(endpoint.upstream)
        if call is None:
            connection.idle_since = self.now
            endpoint.idle.append(connection)
            return
        if call.endpoint is not endpoint:
            if call.endpoint is not None:
                call.endpoint.active -= 1
            call.endpoint = endpoint
            endpoint.active += 1
        self._forward(call, connection)

    def _drop_connection(self, call: Call) -> None:
        connection = call.connection
        if connection is not None:
            call.connection = None
            upstream = connection.endpoint.upstream
            upstream.connections -= 1
            self._serve_waiting(upstream)

    def _serve_waiting(self, upstream: Upstream) -> None:
        while upstream.waiting and upstream.connections + upstream.opening < upstream.max_connections:
            call = self._next_waiting(upstream)
            if call is not None and call.endpoint is not None:
                self._open(call, call.endpoint)

    @staticmethod
    def _next_waiting(upstream: Upstream) -> Call | None:
        call = next(iter(upstream.waiting), None)
        if call is not None:
            del upstream.waiting[call]
        return call

    # Settle --------------------------------------------------------------------------------------------------------

    def _settle(self, call: Call, upstream: str, status: int, decision: Decision | None) -> None:
        call.step += 1
        self._under_way -= 1
        if call.endpoint is not None:
            call.endpoint.active -= 1
            call.endpoint = None
        if call.admitted:
            call.upstream.inflight -= 1
        self._tally.count(call.asked.phase, upstream, status, decision, call.started, self.now)


def _no_field(_: bytes) -> None:
    """An answer without fields of its own."""
