"""The service process as its parent sees it: when it is started, when again, and when no more.

    starting ──started──▶ running ──died──▶ starting (at once) or backing_off ──wait_over──▶ starting
                             ├──finished (exit 0)──▶ ended             └── any ──stop──▶ stopping ──▶ ended
                             └──ordered──▶ restarting ──▶ starting

* The first death is answered at once: most are accidents. Whoever dies again waits 1 s, 2 s, 4 s … up to 60 s, so that
  a service which cannot live costs little and its log stays readable. A start that fails counts as a death.
* What ran for ten minutes, or was proved to work, was well: its next death is a first one again.
* Somebody may order a restart: whatever it then ends with, it is started again, and that is no death.
* Whoever has a say in when it may be started (a budget) can hold it back.
* Exit 0 is no death: the service has done its work, and there is nothing left to stand in front of.
* Nothing is started after stop. There is no giving up here: a service that comes back after an hour is welcome.
"""

from enum import StrEnum

from sidecar.base.backoff import exponential
from sidecar.machines.transition import Transition

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second restart in a row, and before any."""
WELL_AFTER = 600.0
"""Seconds of life after which earlier deaths are forgotten."""
KILL_AFTER = 2.0
"""Seconds from SIGTERM to SIGKILL."""


class ChildState(StrEnum):
    """Where the service process is."""

    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    ENDED = "ended"


CHANGES: dict[tuple[ChildState, ChildState], tuple[str, ...]] = {
    (ChildState.STARTING, ChildState.RUNNING): ("started",),
    (ChildState.STARTING, ChildState.BACKING_OFF): ("start_failed", "held"),
    (ChildState.RUNNING, ChildState.STARTING): ("died",),
    (ChildState.RUNNING, ChildState.BACKING_OFF): ("died",),
    (ChildState.RUNNING, ChildState.ENDED): ("finished",),
    (ChildState.RUNNING, ChildState.RESTARTING): ("ordered",),
    (ChildState.RESTARTING, ChildState.STARTING): ("ended",),
    (ChildState.BACKING_OFF, ChildState.STARTING): ("wait_over", "ordered"),
    (ChildState.STARTING, ChildState.ENDED): ("stop",),
    (ChildState.BACKING_OFF, ChildState.ENDED): ("stop",),
    (ChildState.RUNNING, ChildState.STOPPING): ("stop",),
    (ChildState.RESTARTING, ChildState.STOPPING): ("stop",),
    (ChildState.STOPPING, ChildState.ENDED): ("stopped",),
}
"""Every allowed change, and the reasons that bring it about."""


class Supervision:
    """One supervised process, over all its lives. `due`: when `tick` must come, while it backs off; else None."""

    __slots__ = ("_began", "_deaths", "due", "restarts", "state")

    def __init__(self) -> None:
        self.state = ChildState.STARTING
        self.due: float | None = None
        self.restarts = 0
        """Starts after the first."""
        self._began: float | None = None  # when the present or the last life began
        self._deaths = 0  # in a row: without ten good minutes between

    def started(self, now: float) -> Transition[ChildState] | None:
        """The process runs."""
        if self.state is not ChildState.STARTING:
            return None
        if self._began is not None:
            self.restarts += 1
        self._began = now
        return self._go(ChildState.RUNNING, "started", now)

    def start_failed(self, now: float) -> Transition[ChildState] | None:
        """It could not be started: the program is gone, or there is no memory."""
        if self.state is not ChildState.STARTING:
            return None
        self._deaths += 1
        return self._back_off("start_failed", now)

    def exited(self, now: float, code: int) -> Transition[ChildState] | None:
        """It is gone. `code` as subprocess has it: negative for a signal."""
        if self.state is ChildState.STOPPING:
            return self._go(ChildState.ENDED, "stopped", now)
        if self.state is ChildState.RESTARTING:
            return self._go(ChildState.STARTING, "ended", now)
        if self.state is not ChildState.RUNNING:
            return None
        if code == 0:
            return self._go(ChildState.ENDED, "finished", now)
        self._deaths = 1 if self._was_well(now) else self._deaths + 1
        return self._go(ChildState.STARTING, "died", now) if self._deaths == 1 else self._back_off("died", now)

    def proved(self) -> None:
        """The present life was seen to be good: earlier deaths are forgotten."""
        if self.state is ChildState.RUNNING:
            self._deaths = 0

    def held(self, now: float, until: float) -> Transition[ChildState] | None:
        """It may not be started before `until`."""
        if self.state is not ChildState.STARTING:
            return None
        return self._go(ChildState.BACKING_OFF, "held", now, due=until)

    def order(self, now: float) -> Transition[ChildState] | None:
        """Start it anew: restarting means that it runs and is to be ended first. None: it starts anyway, or never."""
        match self.state:
            case ChildState.RUNNING:
                if self._was_well(now):
                    self._deaths = 0
                return self._go(ChildState.RESTARTING, "ordered", now)
            case ChildState.BACKING_OFF:
                return self._go(ChildState.STARTING, "ordered", now)
        return None

    def tick(self, now: float) -> Transition[ChildState] | None:
        """Time went on."""
        if self.due is None or now < self.due:
            return None
        return self._go(ChildState.STARTING, "wait_over", now)

    def stop(self, now: float) -> Transition[ChildState] | None:
        """Let it go: stopping means that it runs and must be told. Again, or after the end, it changes nothing."""
        match self.state:
            case ChildState.RUNNING | ChildState.RESTARTING:
                return self._go(ChildState.STOPPING, "stop", now)
            case ChildState.STARTING | ChildState.BACKING_OFF:
                return self._go(ChildState.ENDED, "stop", now)
        return None

    def _was_well(self, now: float) -> bool:
        assert self._began is not None, "it ran"
        return now - self._began >= WELL_AFTER

    def _back_off(self, reason: str, now: float) -> Transition[ChildState]:
        wait = exponential(max(0, self._deaths - 2), FIRST_WAIT, LONGEST_WAIT)
        return self._go(ChildState.BACKING_OFF, reason, now, due=now + wait)

    def _go(self, new: ChildState, reason: str, now: float, due: float | None = None) -> Transition[ChildState]:
        change = Transition(self.state, new, reason, now)
        self.state = new
        self.due = due
        return change
