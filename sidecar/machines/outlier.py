"""Which endpoint of an upstream is passed over for a while, because calls to it fail or take too long.

Learnt from the traffic itself (passive health), endpoint by endpoint; the breaker judges the upstream as a whole.

* `consecutive_failures` in a row eject at once; so do `consecutive_gateway_failures`, a row of which holds connect
  failures and 502 to 504 and nothing else: then the endpoint is gone rather than failing, and the reason says so.
* Every `interval` two shares within it are judged, the worst endpoint first, if it holds 20 calls or more: that of
  failures, and that of calls whose answer's head took `slow_after` or longer.
* The n-th ejection lasts n * base_ejection, at most max_ejection. Every interval with calls and nothing bad among
  them takes one from n, so that an endpoint which keeps failing stays out longer and a cured one is forgiven.
* At most the share max_ejected is out at once, one at least (Envoy's rule), but never all: a lone endpoint
  is never ejected, and when discovery takes endpoints away the longest out come back.

Calls that began before an endpoint came back say nothing about it now and are not counted; neither is anything
while it is out. Mode *observe* does all of this, but its changes are not `enforced`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from sidecar.config.breaker import Outlier as OutlierPolicy

MINIMUM_CALLS = 20
"""Fewer calls within an interval are not judged by their rate; the breaker's default minimum_requests."""


class OutlierReason(StrEnum):
    """Why an endpoint was ejected or came back."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    CONSECUTIVE_GATEWAY_FAILURES = "consecutive_gateway_failures"
    FAILURE_RATE = "failure_rate"
    SLOW_RATE = "slow_rate"
    EXPIRED = "expired"
    TOO_FEW_LEFT = "too_few_left"
    MODE_CHANGED = "mode_changed"


EJECTING = tuple(OutlierReason)[:4]
"""Those of ejections."""


class Standing:
    """What is known of one endpoint. The data plane keeps it with the endpoint and hands it to `record`."""

    __slots__ = (
        "address",
        "calls",
        "counts_from",
        "detail",
        "ejections",
        "failures",
        "gateway",
        "reason",
        "row",
        "slow",
        "until",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.counts_from = -math.inf
        """Calls that began earlier are not counted; infinity while it is out."""
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.row = 0
        """Failures in a row."""
        self.gateway = 0
        """Gateway failures in a row."""
        self.ejections = 0
        self.until: float | None = None
        """When the ejection ends; None: it is in."""
        self.reason = ""
        self.detail = ""


@dataclass(frozen=True, slots=True)
class Ejection:
    """An endpoint went out or came back; `standing` has the details."""

    standing: Standing
    out: bool
    reason: OutlierReason
    enforced: bool
    """False in mode observe: the endpoint is to be used all the same."""
    at: float


class Outliers:
    """The endpoints of one upstream. `sweep` is due at `deadline`."""

    __slots__ = ("_gateway", "_next_judgement", "_out", "_policy", "_standings", "slow_after", "withheld")

    def __init__(self, policy: OutlierPolicy, now: float) -> None:
        self._standings: dict[str, Standing] = {}
        self._out = 0
        self._next_judgement = now + policy.interval
        self.withheld = 0
        """Ejections that max_ejected did not allow, since the start."""
        self.slow_after = math.inf
        """A call whose answer's head took so many seconds is slow; infinity when nobody is judged by that."""
        self._take(policy)

    def _take(self, policy: OutlierPolicy) -> None:
        self._policy = policy
        own = policy.consecutive_gateway_failures
        self._gateway = policy.consecutive_failures if own is None else own
        self.slow_after = policy.slow_after if policy.slow_rate > 0.0 else math.inf

    @property
    def deadline(self) -> float:
        """The next ejection's end or the next judgement, whichever is earlier."""
        ends = [standing.until for standing in self._standings.values() if standing.until is not None]
        return min([self._next_judgement, *ends])

    def watch(self, address: str) -> Standing:
        """The standing of an endpoint; a new one begins in good standing."""
        standing = self._standings.get(address)
        if standing is None:
            standing = self._standings[address] = Standing(address)
            if self._policy.mode == "disabled":
                standing.counts_from = math.inf
        return standing

    def excludes(self, standing: Standing) -> bool:
        """Whether the endpoint is to be passed over now; never in mode observe."""
        return standing.until is not None and self._policy.mode == "enforce"

    def forget(self, address: str, now: float) -> list[Ejection]:
        """The endpoint is gone. Others may have to come back for it."""
        standing = self._standings.pop(address, None)
        if standing is None:
            return []
        standing.counts_from = math.inf
        if standing.until is not None:
            self._out -= 1
        return self._readmit_beyond_limit(now)

    def record(
        self, standing: Standing, now: float, began: float, ok: bool, gateway: bool = False, slow: bool = False
    ) -> Ejection | None:
        """What came of a call that began at `began`. `gateway`: it failed by not connecting or with 502 to 504."""
        if began < standing.counts_from:
            return None
        standing.calls += 1
        if slow:
            standing.slow += 1
        if ok:
            standing.row = standing.gateway = 0
            return None
        standing.failures += 1
        standing.row += 1
        standing.gateway = standing.gateway + 1 if gateway else 0
        if 0 < self._gateway <= standing.gateway:
            detail = f"{standing.gateway} gateway failures in a row"
            return self._eject(standing, OutlierReason.CONSECUTIVE_GATEWAY_FAILURES, detail, now)
        if 0 < self._policy.consecutive_failures <= standing.row:
            return self._eject(standing, OutlierReason.CONSECUTIVE_FAILURES, f"{standing.row} failures in a row", now)
        return None

    def sweep(self, now: float) -> list[Ejection]:
        """Readmit whose time is over; once per interval judge the rates."""
        changes = [
            self._readmit(standing, OutlierReason.EXPIRED, now)
            for standing in self._standings.values()
            if standing.until is not None and standing.until <= now
        ]
        if now >= self._next_judgement:
            self._next_judgement = now + self._policy.interval
            changes += self._judge(now)
        return changes

    def reconfigure(self, policy: OutlierPolicy, now: float) -> list[Ejection]:
        """Go on under another policy. Running ejections keep their end, unless the mode changes or fewer may be out."""
        changes = []
        if policy.mode != self._policy.mode:
            changes = [
                self._readmit(standing, OutlierReason.MODE_CHANGED, now)
                for standing in self._standings.values()
                if standing.until is not None
            ]
            for standing in self._standings.values():
                standing.counts_from = math.inf if policy.mode == "disabled" else now
        self._take(policy)
        self._next_judgement = min(self._next_judgement, now + policy.interval)
        return changes + self._readmit_beyond_limit(now)

    def _judge(self, now: float) -> list[Ejection]:
        rate, slow_rate = self._policy.failure_rate, self._policy.slow_rate
        suspects = []
        for standing in self._standings.values():
            calls, failures, slow = standing.calls, standing.failures, standing.slow
            standing.calls = standing.failures = standing.slow = 0
            if standing.until is not None:
                continue
            if calls and not failures and not slow:
                standing.ejections = max(0, standing.ejections - 1)
            if calls < MINIMUM_CALLS:
                continue
            if 0.0 < rate <= failures / calls:
                why = (OutlierReason.FAILURE_RATE, f"{failures} of {calls} calls failed")
                suspects.append((1.0 + failures / calls, standing, why))
            elif 0.0 < slow_rate <= slow / calls:
                why = (OutlierReason.SLOW_RATE, f"{slow} of {calls} calls were slow")
                suspects.append((slow / calls, standing, why))
        suspects.sort(key=lambda suspect: suspect[0], reverse=True)  # who fails is worse than who is slow
        ejected = [self._eject(standing, *why, now) for _, standing, why in suspects]
        return [change for change in ejected if change is not None]

    def _limit(self) -> int:
        """How many may be out at once."""
        count = len(self._standings)
        if self._policy.max_ejected <= 0.0:
            return 0
        return min(max(1, math.floor(self._policy.max_ejected * count)), count - 1)

    def _eject(self, standing: Standing, reason: OutlierReason, detail: str, now: float) -> Ejection | None:
        if self._out >= self._limit():
            self.withheld += 1
            return None
        self._out += 1
        standing.ejections += 1
        standing.until = now + min(standing.ejections * self._policy.base_ejection, self._policy.max_ejection)
        standing.counts_from = math.inf
        standing.calls = standing.failures = standing.slow = standing.row = standing.gateway = 0
        standing.reason, standing.detail = reason, detail
        return Ejection(standing, out=True, reason=reason, enforced=self._policy.mode == "enforce", at=now)

    def _readmit(self, standing: Standing, reason: OutlierReason, now: float) -> Ejection:
        self._out -= 1
        standing.until = None
        standing.counts_from = now
        standing.reason = standing.detail = ""
        return Ejection(standing, out=False, reason=reason, enforced=self._policy.mode == "enforce", at=now)

    def _readmit_beyond_limit(self, now: float) -> list[Ejection]:
        out = [(standing.until, standing) for standing in self._standings.values() if standing.until is not None]
        out.sort(key=lambda entry: entry[0])
        surplus = len(out) - max(0, self._limit())
        return [self._readmit(standing, OutlierReason.TOO_FEW_LEFT, now) for _, standing in out[: max(0, surplus)]]
