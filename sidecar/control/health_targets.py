"""What is known of the things that are asked: one target, a dependency of several, and how both are shown."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from sidecar.control.probes.probe import Probe, Result
from sidecar.machines.health import Health, HealthCheck, HealthPolicy, aggregate
from sidecar.machines.transition import Transition

Key = tuple[str, str, str]
"""endpoint or dependency; the upstream's or dependency's name; what is asked."""


@dataclass(eq=False)
class Target:
    """One thing that is asked."""

    key: Key
    question: object
    """What the configuration says is asked; while it stays equal, what is known stays true."""
    probe: Probe
    timeout: float
    policy: HealthPolicy
    check: HealthCheck
    since: datetime
    last: Result | None = None
    asked_at: datetime | None = None
    requests_seen: float | None = None
    """Requests that its upstream had had when it was asked last."""
    well_at: float = float("-inf")
    """When the last good check began, monotonic."""

    def note(self, result: Result, *, traffic: bool) -> Transition[Health] | None:
        """A check came back; the change of state, if it is one."""
        now = monotonic()
        if result.ok:
            self.well_at = now - result.seconds
        change = self.check.result(now, ok=result.ok, seconds=result.seconds, detail=result.detail, traffic=traffic)
        self.last, self.asked_at = result, datetime.now(UTC)
        if change is not None:
            self.since = self.asked_at
        return change

    def view(self) -> dict[str, Any]:
        """For people, JSON-shaped."""
        wait = max(0.0, self.check.next_check - monotonic())
        return {
            "state": str(self.check.state),
            "since": _iso(self.since),
            "last_check": None if self.asked_at is None else _iso(self.asked_at),
            "latency_seconds": None if self.last is None else round(self.last.seconds, 4),
            "detail": self.check.detail,
            "next_check": _iso(datetime.now(UTC) + timedelta(seconds=wait)),
        }


@dataclass(eq=False)
class Group:
    """A dependency: one target, or several that stand for each other."""

    name: str
    kind: str
    targets: list[Target] = field(default_factory=list)
    state: Health = Health.UNKNOWN
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def judge(self, change: Transition[Health] | None = None) -> Transition[Health] | None:
        """Bring the state up to date with the targets', of which `change` was the last to change; what came of it."""
        state = aggregate(one.check.state for one in self.targets)
        if state is self.state:
            return None
        old, self.state, self.since = self.state, state, datetime.now(UTC)
        if change is None:
            return Transition(old, state, "reload", monotonic())
        return Transition(old, state, change.reason, monotonic(), change.detail)

    def view(self) -> dict[str, Any]:
        """For people, JSON-shaped."""
        head = {"kind": "dependency", "dependency": self.name, "check": self.kind}
        parts = [{"target": one.key[2], **one.view()} for one in self.targets]
        if len(parts) == 1:
            (only,) = parts
            del only["target"]
            return {**head, **only, "parts": None}
        good = sum(one.check.state is Health.HEALTHY for one in self.targets)
        return {
            **head,
            "state": str(self.state),
            "since": _iso(self.since),
            "last_check": max((part["last_check"] for part in parts if part["last_check"]), default=None),
            "latency_seconds": max((one.last.seconds for one in self.targets if one.last is not None), default=None),
            "detail": f"{good} of {len(parts)} healthy",
            "next_check": min(part["next_check"] for part in parts),
            "parts": parts,
        }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
