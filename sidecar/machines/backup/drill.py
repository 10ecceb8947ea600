"""A drill: what happens in which order, how it ends, and what it says about a restore in earnest. Pure.

    waiting ─▶ choosing ─▶ restoring ─▶ starting ─▶ checking ─▶ clearing ─▶ passed
                  └──────────┴────────────┴───────────┴─▶ clearing ─▶ failed

Rules. Whatever happens, what the drill made is cleared away; only then does it end. It passes when every step went well
and every check held. Times are taken on the monotonic clock: the RTO from the begin to the last check, the RPO from the
state that came back to the begin.

What a drill took says little about a restore of ten times the data. Two parts are told apart: what grows with the bytes
(restoring them), and what does not (choosing, starting, checking). `extrapolate` stretches the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from sidecar.base.backoff import Uniform
from sidecar.machines.transition import Transition


class DrillState(StrEnum):
    """Where a drill is."""

    WAITING = "waiting"
    CHOOSING = "choosing"
    RESTORING = "restoring"
    STARTING = "starting"
    CHECKING = "checking"
    CLEARING = "clearing"
    PASSED = "passed"
    FAILED = "failed"


_WAY = (
    DrillState.WAITING,
    DrillState.CHOOSING,
    DrillState.RESTORING,
    DrillState.STARTING,
    DrillState.CHECKING,
    DrillState.CLEARING,
)
CHANGES: dict[tuple[DrillState, DrillState], tuple[str, ...]] = {
    **dict.fromkeys(pairwise(_WAY), ("done",)),
    **{(old, DrillState.CLEARING): ("failed", "stopped") for old in _WAY[1:4]},
    (DrillState.CHECKING, DrillState.CLEARING): ("done", "failed", "stopped"),
    (DrillState.CLEARING, DrillState.PASSED): ("cleared",),
    (DrillState.CLEARING, DrillState.FAILED): ("cleared", "left_behind"),
}
"""Every allowed change, and the reasons that bring it about."""


class Drill:
    """One drill from begin to end. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.state = DrillState.WAITING
        self.why = ""
        """Why it failed; empty as long as it has not."""
        self.seconds: dict[str, float] = {}
        """How long each step took."""
        self._entered = 0.0
        self._began: float | None = None
        self.rto: float | None = None
        """Seconds from the begin until the last check had held; None before, and when it failed."""

    def done(self, now: float) -> Transition[DrillState]:
        """The present step went well: on to the next."""
        following = dict(pairwise(_WAY)).get(self.state, self.state)
        return self._go(following, "done", now)

    def failed(self, now: float, why: str, *, stopped: bool = False) -> Transition[DrillState]:
        """The present step, or a check, did not go well; or somebody stopped the drill."""
        self.why = self.why or why
        return self._go(DrillState.CLEARING, "stopped" if stopped else "failed", now)

    def cleared(self, now: float, left: str = "") -> Transition[DrillState]:
        """Nothing of it is there any more; or something is `left`, and that alone makes it fail."""
        self.why = self.why or left
        return self._go(
            DrillState.FAILED if self.why else DrillState.PASSED, "left_behind" if left else "cleared", now, self.why
        )

    def _go(self, new: DrillState, reason: str, now: float, detail: str = "") -> Transition[DrillState]:
        if reason not in CHANGES.get((self.state, new), ()):
            raise ValueError(f"a drill cannot go from {self.state} to {new} ({reason})")
        if self._began is None:
            self._began = now
        else:
            self.seconds[self.state.value] = now - self._entered
        if new is DrillState.CLEARING and reason == "done":
            self.rto = now - self._began
        change = Transition(self.state, new, reason, now, detail or self.why)
        self.state, self._entered = new, now
        return change


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a restore of `bytes` would take, in seconds, and whether that is within the RTO."""

    bytes: int
    seconds: float
    within: bool


def extrapolate(rto: float, moving: float, moved: int, size: int, target: float) -> Forecast:
    """From a drill of `rto` seconds, `moving` of them spent on `moved` bytes, to `size` bytes; `target`: the RTO."""
    moving = min(max(moving, 0.0), rto)
    seconds = rto if moved <= 0 else rto - moving + moving * max(1.0, size / moved)
    return Forecast(size, seconds, seconds <= target)


def pick(points: Sequence[str], random_share: float, uniform: Uniform) -> str | None:
    """The point to restore: mostly the newest, now and then (`random_share`) any. `points`: ids, newest first."""
    if not points:
        return None
    if len(points) > 1 and uniform() < random_share:
        return points[min(int(uniform() * len(points)), len(points) - 1)]
    return points[0]


class Due:
    """When the next drill is due. A machine that slept through ten of them makes up for one."""

    def __init__(self, every: float, now: float, last: float | None = None) -> None:
        """`last`: seconds since the last one ended; None: there was none, so the first comes soon."""
        self._every = every
        self.due_at = now if last is None else max(now, now + every - max(0.0, last))

    def due(self, now: float) -> bool:
        return now >= self.due_at

    def done(self, now: float) -> None:
        self.due_at = now + self._every
