"""When the next backup begins, of which kind it is, and whether what was promised (the RPO) is kept.

Theory. A point holds the state of the moment when its run began, and counts only once it is verified. Just before the
next one is verified, the newest verified point is therefore one period and one run old; a failed run adds another
period. With P the period and D95 what 95 of 100 runs, verification included, take at most,

    P = min(5 min, RPO/3, RPO − 3·D95 − min(3 min, RPO/5))

leaves room for a run that fails and one that is slow. For the 15 minutes of the requirements this is
min(5 min, RPO − 3·D95 − 3 min).

Rules. Periods are counted from begin to begin, on a monotonic clock that goes on while the machine sleeps. Whatever was
missed, asleep or down, is made up for by one run, at once. After a failure the next try comes sooner than a period,
and later each time. When runs take so long that P would be shorter than one of them, the promise cannot be kept: then
runs follow each other with a breath between, and `unreachable` says so.

It never looks at a clock, and never asks for a run while one is under way.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.base.backoff import exponential
from sidecar.base.units import show_duration
from sidecar.machines.transition import Transition

LONGEST_PERIOD, MARGIN = 300.0, 180.0
"""Seconds."""
REMEMBERED = 100
"""Runs from which D95 is taken."""
BREATH = 0.25
"""Share of a run's time that the machine gets for itself when runs follow each other."""


def d95(seconds: Sequence[float]) -> float:
    """The 95th percentile by nearest rank: a time that was really taken; 0 when nothing is known."""
    ordered = sorted(seconds)
    return ordered[-(-len(ordered) * 95 // 100) - 1] if ordered else 0.0


def period(rpo: float, typical: float) -> float:
    """Seconds between the begins of two runs that take `typical` (D95); may be 0 or less: it cannot be done."""
    return min(LONGEST_PERIOD, rpo / 3, _longest(rpo, typical))


def _longest(rpo: float, typical: float) -> float:
    return rpo - 3 * typical - min(MARGIN, rpo / 5)


class Schedule:
    """The schedule of one agent. Times are monotonic seconds."""

    def __init__(self, rpo: float, now: float, took: Sequence[float] = (), last_began: float | None = None) -> None:
        """`took`: seconds of earlier good runs, oldest first; `last_began`: seconds ago that the last one began."""
        self._rpo = rpo
        self._took = deque(took, maxlen=REMEMBERED)
        self._began: float | None = None  # of the run under way
        self._failures = 0
        self.next_at = now if last_began is None else max(now, now - max(0.0, last_began) + self._pause())
        """When the next run is due."""

    @property
    def running(self) -> bool:
        return self._began is not None

    @property
    def typical(self) -> float:
        """D95, seconds."""
        return d95(self._took)

    @property
    def unreachable(self) -> str | None:
        """Why the RPO cannot be kept, in a sentence; None when it can."""
        typical = self.typical
        wanted = period(self._rpo, typical)
        if wanted > 0.0 and wanted >= typical:
            return None
        shown = show_duration(round(typical, 1))
        return (
            f"an RPO of {show_duration(self._rpo)} cannot be kept: backup and verification take {shown}, and three of "
            "them and a margin must fit; make backup.rpo longer, back up less, or give the repository a faster place"
        )

    def due(self, now: float) -> bool:
        """Whether a run should begin now."""
        return self._began is None and now >= self.next_at

    def urgent(self, now: float) -> bool:
        """Whether a run that is due can wait no longer: P is shorter than the RPO alone would ask for."""
        return self.due(now) and now >= self.next_at + _longest(self._rpo, self.typical) - self._pause()

    def began(self, now: float) -> None:
        """A run begins, due or ordered: what was missed before it is made up for by it."""
        self._began = now

    def ended(self, now: float, *, verified: bool, took: float | None = None) -> None:
        """It ended, with a verified point or without. `took`: seconds of work, when the machine slept meanwhile."""
        began = now if self._began is None else self._began
        took = now - began if took is None else took
        self._began = None
        if verified:
            self._took.append(took)
            self._failures = 0
            self.next_at = max(began + self._pause(), now + BREATH * took if self.unreachable else now)
        else:
            retry = exponential(self._failures, self._rpo / 60, self._pause())
            self._failures += 1
            self.next_at = now + retry

    def _pause(self) -> float:
        return max(period(self._rpo, self.typical), min(1.0, self._rpo / 60))


# The kind -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """An earlier good point, as the choice of a kind sees it."""

    kind: str
    """Requested: full, incremental or differential."""
    age: float
    """Seconds."""
    bytes_added: int


def choose(made: Sequence[Made], full_every: float, differential_every: float) -> str:
    """The kind of the next scheduled run, from the earlier ones, newest first.

    Full when there is none yet, when the last is older than `full_every`, or when what was added since weighs more
    than it: then the chain costs more than it saves. Differential when neither a full nor a differential one is
    younger than `differential_every`, so that a restore leans on few points. Otherwise incremental.
    """
    since: list[Made] = []
    for one in made:
        if one.kind == "full":
            heavy = sum(later.bytes_added for later in since) > max(one.bytes_added, 1 << 20)
            if one.age >= full_every or heavy:
                return "full"
            anchors = [one.age, *(later.age for later in since if later.kind == "differential")]
            return "differential" if min(anchors) >= differential_every else "incremental"
        since.append(one)
    return "full"


# The promise ----------------------------------------------------------------------------------------------------------


class Promise(StrEnum):
    """Whether the newest verified point is young enough."""

    KEPT = "kept"
    MISSED = "missed"


CHANGES: dict[tuple[Promise, Promise], tuple[str, ...]] = {
    (Promise.KEPT, Promise.MISSED): ("too_old", "never"),
    (Promise.MISSED, Promise.KEPT): ("verified",),
}
"""Every allowed change, and the reasons that bring it about."""


class PromiseKeeper:
    """Watches the age of the newest verified point. A new agent has one RPO's time for its first."""

    def __init__(self, rpo: float, now: float) -> None:
        self._rpo = rpo
        self._since = now
        self.state = Promise.KEPT

    def judge(self, age: float | None, now: float) -> Transition[Promise] | None:
        """`age`: seconds since the state that the newest verified point brings back; None: there is none."""
        missed = now - self._since > self._rpo if age is None else age > self._rpo
        state = Promise.MISSED if missed else Promise.KEPT
        if state is self.state:
            return None
        allowed = show_duration(self._rpo)
        if age is None:
            reason, detail = "never", f"no backup has been verified since the start; {allowed} are allowed"
        elif missed:
            reason = "too_old"
            detail = f"the newest verified backup is {show_duration(round(age))} old; {allowed} are allowed"
        else:
            reason, detail = "verified", f"the newest verified backup is {show_duration(round(max(0.0, age)))} old"
        change = Transition(self.state, state, reason, now, detail)
        self.state = state
        return change
