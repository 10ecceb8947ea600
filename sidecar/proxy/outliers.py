"""Outliers at their post: the machine that judges an upstream's endpoints, and what happens when it ejects one.

An endpoint takes requests when it is neither ejected here nor failed by its active checks. Upstreams with one
endpoint are not watched at all: the only one is never ejected, so the hot path need not pay for it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from sidecar.machines.outlier import EJECTING, Ejection, Outliers
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config.breaker import Outlier as OutlierPolicy
    from sidecar.proxy.upstream import Endpoint
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer


class OutlierWatch:
    """The endpoints of one upstream under watch; swept like everything that has a deadline."""

    def __init__(self, upstream: str, policy: OutlierPolicy, registry: Registry, observer: Observer) -> None:
        self._upstream = upstream
        self._registry = registry
        self._observer = observer
        self._policy = policy
        self._machine = Outliers(policy, monotonic())
        self._endpoints: dict[str, Endpoint] = {}
        self.record = self._machine.record
        """Hears what came of each call; an ejection that it returns goes to `tell`."""
        self.slow_after = self._machine.slow_after
        for reason in EJECTING:  # from zero on, so that the first is an increase
            registry.cell(series.OUTLIER_EJECTIONS, upstream, reason)

    @property
    def deadline(self) -> float:
        """When `expire` has something to do."""
        return self._machine.deadline

    def expire(self, now: float) -> None:
        """Judge, and readmit whose time is over."""
        self.tell(*self._machine.sweep(now))

    def reconfigure(self, policy: OutlierPolicy) -> None:
        """Go on under another policy."""
        if policy != self._policy:
            self._policy = policy
            self.tell(*self._machine.reconfigure(policy, monotonic()))
            self.slow_after = self._machine.slow_after

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """These are the upstream's endpoints now."""
        now = monotonic()
        present = {one.address: one for one in endpoints}
        for address in self._endpoints.keys() - present.keys():
            self.tell(*self._machine.forget(address, now))
        self._endpoints = present
        for one in endpoints:
            standing = self._machine.watch(one.address)
            one.standing = standing if len(present) > 1 else None
            one.ejected = self._machine.excludes(standing)
            one.judge()

    def tell(self, *changes: Ejection) -> None:
        """Endpoints went out or came back: balance without or with them, count it, log it."""
        for change in changes:
            standing = change.standing
            endpoint = self._endpoints.get(standing.address)
            if endpoint is not None:
                endpoint.ejected = self._machine.excludes(standing)
                endpoint.judge()
            reason = change.reason.value
            if change.out:
                self._registry.cell(series.OUTLIER_EJECTIONS, self._upstream, reason).value += 1
                self._observer.tell(
                    Kind.ENDPOINT_EJECTED, self._upstream, level=Level.WARNING, reason=reason, detail=standing.detail,
                    upstream=self._upstream, endpoint=standing.address, enforced=change.enforced,
                    ejections=standing.ejections, seconds=round((standing.until or change.at) - change.at, 1),
                )  # fmt: skip
            else:
                self._observer.tell(
                    Kind.ENDPOINT_READMITTED, self._upstream, reason=reason,
                    upstream=self._upstream, endpoint=standing.address,
                )  # fmt: skip
