"""Counts requests every few seconds: how fast the error budget burns, and what an open incident cost.

Failed is what the client got a 5xx for, made here or not; who left before an answer counts in neither. A burn is an
incident of its own only when nothing else explains it: while requests fail because of another incident, and until that
one is closed, it is that one's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple

from sidecar.control.incidents.detect import Gone
from sidecar.control.incidents.keeper import Keeper
from sidecar.machines.incidents.availability import BURNS, BudgetBurn
from sidecar.machines.incidents.incident import Condition, Incident
from sidecar.runtime import series
from sidecar.runtime.metrics import Registry, Snapshot

SAMPLE_SECONDS = 5.0
BUDGET = "error_budget_burn"
_WINDOWS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "6h": 21600.0}


class Count(NamedTuple):
    """Requests that were answered so far, and those of them that failed."""

    requests: float
    failed: float


def count(snapshot: Snapshot) -> dict[str, Count]:
    """By upstream."""
    upstream, code = series.REQUESTS.labels.index("upstream"), series.REQUESTS.labels.index("code")
    found: dict[str, Count] = {}
    for one in snapshot.select(series.REQUESTS):
        if one.labels[code] != "0":
            requests, failed = found.get(one.labels[upstream], Count(0.0, 0.0))
            bad = one.value if one.labels[code].startswith("5") else 0.0
            found[one.labels[upstream]] = Count(requests + one.value, failed + bad)
    return found


class Measure:
    """`objective`: the share of requests that must not fail; None: no burn is an incident."""

    def __init__(
        self, snapshot: Callable[[], Awaitable[Snapshot]], keeper: Keeper, registry: Registry, service: str
    ) -> None:
        self.objective: float | None = None
        self._snapshot = snapshot
        self._keeper = keeper
        self._registry = registry
        self._service = service
        self._last: Mapping[str, Count] = {}
        self._burn: BudgetBurn | None = None
        self._burning_of: float | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.sample(count(await self._snapshot()), monotonic())
            await asyncio.sleep(SAMPLE_SECONDS)

    def sample(self, seen: Mapping[str, Count], now: float) -> None:
        """So many requests there were until now, by upstream."""
        grown = {name: _grown(one, self._last.get(name)) for name, one in seen.items()}
        self._last = seen
        for incident in self._keeper.book.open():
            self._add_impact(incident, grown)
        if self.objective != self._burning_of:
            self._burn, self._burning_of = None, self.objective
        if self.objective is None:
            self._keeper.tell(Gone(BUDGET, self._service, "burn"))
            return
        if self._burn is None:
            self._burn = BudgetBurn(self.objective, now)
        requests, failed = (sum(one[place] for one in seen.values()) for place in (0, 1))
        self._burn.add(now, requests, failed)
        for window, seconds in _WINDOWS.items():
            self._registry.cell(series.BURN_RATE, window).value = self._burn.rate(seconds)
        self._judge(self._burn, self.objective)

    def view(self) -> dict[str, Any]:
        """The objective and how fast its budget burns, by window."""
        burn = self._burn
        rates = {} if burn is None else {window: round(burn.rate(seconds), 3) for window, seconds in _WINDOWS.items()}
        return {"objective": self.objective, "burn_rates": rates}

    def _judge(self, burn: BudgetBurn, objective: float) -> None:
        burning = burn.burning()
        if burning is None:
            self._keeper.tell(Gone(BUDGET, self._service, "burn"))
            return
        others = [one for one in self._keeper.book.live() if one.failure != BUDGET]
        if any(one.out_since is not None or one.outages for one in others):
            return
        text = (
            f"The error budget of {100 * objective:.6g} % burns {burn.rate(burning.short):.0f} times too fast: "
            f"{burn.counted(burning.short)[1]:.0f} requests failed in {burning.short / 60:.0f} min"
        )
        self._keeper.tell(Condition(BUDGET, self._service, "burn", burning.severity, text))

    def _add_impact(self, incident: Incident, grown: Mapping[str, Count]) -> None:
        touched = [grown[incident.subject]] if incident.subject in grown else list(grown.values())
        requests, failed = (sum(one[place] for one in touched) for place in (0, 1))
        if requests:
            impact = incident.impact
            impact["requests"] = impact.get("requests", 0.0) + requests
            impact["failed_requests"] = impact.get("failed_requests", 0.0) + failed
            self._keeper.keep(incident)


def _grown(now: Count, before: Count | None) -> Count:
    """What was added; counts that fell back began anew."""
    if before is None or now.requests < before.requests:
        return now
    return Count(now.requests - before.requests, max(0.0, now.failed - before.failed))


assert {burn.long for burn in BURNS} | {burn.short for burn in BURNS} == set(_WINDOWS.values()), "all are shown"
