"""What a rule tells of itself: its changes of stage as happenings, counts and a record of its last tries.

A try has one entry: when it began, what was seen, what was done, and what came of it. A relapse changes the entry of
the success that it undoes, and nothing else.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.config.recovery import Trigger
from sidecar.machines.recovery.stages import Hold, Stage
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from sidecar.config.recovery import Recovery as RuleConfig
    from sidecar.machines.recovery.recovery import Change
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

MAX_RECORD = 20
RESULTS = ("started", "verified", "failed", "relapsed", "dry_run", "escalated")
"""The words on the metric."""
_AT_IT = {Stage.ACTING, Stage.PROVING}
_FAILED = {Stage.WAITING, Stage.ESCALATED, Stage.DEAD}


class Tale:
    """One rule's."""

    def __init__(
        self, config: RuleConfig, strategy: str, about: dict[str, str], observer: Observer, registry: Registry
    ) -> None:
        """`about`: what the rule watches, for happenings."""
        self._name = config.name
        self._of_child = config.do.restart == "process"
        self._strategy = strategy
        self._about = about
        self._observer = observer
        self._registry = registry
        self._attempt = 0
        self.detector = next(key for key in Trigger.one_of if getattr(config.when, key) is not None)
        """The key of `when`."""
        self.since = _now()
        """When the stage changed last."""
        self.record: deque[dict[str, Any]] = deque(maxlen=MAX_RECORD)
        """The last tries, oldest first: at, attempt, result, detail, did, seconds (from detection to proof)."""
        for result in RESULTS:  # from zero on, so that the first one is an increase
            registry.cell(series.RECOVERY_ATTEMPTS, strategy, result)
        self._duration = registry.cell(series.RECOVERY_DURATION, strategy)

    def did(self, what: str) -> None:
        """The action of the present try was done."""
        if self.record:
            self.record[-1]["did"] = what

    def tell(self, change: Change, attempt: int, detected_at: float | None) -> None:
        """The stage changed."""
        self.since, self._attempt = _now(), attempt
        new, old = change.new, change.old
        if change.reason == "relapsed":
            if self.record:
                self.record[-1]["result"] = "relapsed"
            self._say(Kind.RECOVERY_RELAPSED, change, Level.WARNING, count="relapsed")
        if old in _AT_IT and new in _FAILED:
            self._ended("failed", change)
            self._say(Kind.RECOVERY_FAILED, change, Level.WARNING, count="failed")
        if new is Stage.ACTING or change.reason == "reborn":
            self._begin(change)
        elif new is Stage.CHECKING and change.reason == "lasts":
            self._say(Kind.RECOVERY_DETECTED, change, Level.WARNING, detector=self.detector)
        elif new is Stage.HELD:
            count = "dry_run" if change.reason == Hold.DRY_RUN else ""
            self._say(Kind.RECOVERY_HELD, change, Level.WARNING, count=count, hold=change.reason)
        elif new is Stage.HEALED:
            seconds = change.at - (change.at if detected_at is None else detected_at)
            self._ended("verified", change, round(seconds, 3))
            self._duration.observe(seconds)
            self._say(Kind.RECOVERY_VERIFIED, change, count="verified", seconds=round(seconds, 3))
        elif new is Stage.ESCALATED and change.reason != "known":
            self._say(Kind.RECOVERY_ESCALATED, change, Level.ERROR, count="escalated")
        elif new is Stage.QUIET or (new is Stage.WELL and old is not Stage.SICK):
            self._say(Kind.RECOVERY_ENDED, change)

    def _begin(self, change: Change) -> None:
        did = "started again" if change.reason == "reborn" else ""
        self.record.append(
            {"at": self.since, "attempt": self._attempt, "result": "running", "detail": change.detail, "did": did,
             "seconds": None}
        )  # fmt: skip
        count = "" if self._of_child else "started"  # the supervisor counts what it starts
        self._say(Kind.RECOVERY_STARTED, change, Level.WARNING, count=count)

    def _ended(self, result: str, change: Change, seconds: float | None = None) -> None:
        if self.record:
            last = self.record[-1]
            last |= {"result": result, "seconds": seconds, "detail": change.detail or last["detail"]}

    def _say(self, kind: Kind, change: Change, level: Level = Level.INFO, *, count: str = "", **fields: Any) -> None:
        if count:
            self._registry.cell(series.RECOVERY_ATTEMPTS, self._strategy, count).value += 1
        fields |= self._about
        self._observer.tell(kind, self._name, level=level, reason=change.reason, detail=change.detail,
                            rule=self._name, strategy=self._strategy, attempt=self._attempt, **fields)  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
