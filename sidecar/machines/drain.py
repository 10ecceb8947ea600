"""How the proxy goes away without losing a request.

    serving ──drain──▶ draining ──stop──▶ stopping ──all done, too late, or forced──▶ stopped

* serving: ready, accepting, connections kept alive.
* draining: no longer ready, but still accepting: load balancers need a while to notice. Answers carry
  `Connection: close`. It lasts until someone says stop.
* stopping: no new connections; what runs may finish until `drain_timeout` is over.
* stopped: what still runs is cut off, the process exits.

`leave`: a successor has taken the listening sockets. Nobody new comes to us, so stopping begins at once.

`stop` while serving passes through draining for `shutdown.delay`, so that a bare SIGTERM is as gentle as a
preStop hook. A second stop means now. There is no way back: a pod that drains is going.
"""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.machines.transition import Transition


class Phase(StrEnum):
    """Where the process is on its way out."""

    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a phase implies for the data plane and the probes."""

    ready: bool
    """`/readyz` answers 200."""
    accepting: bool
    """New connections are taken."""
    keep_alive: bool
    """Connections may stay open after an answer."""


CONDUCT = {
    Phase.SERVING: Conduct(ready=True, accepting=True, keep_alive=True),
    Phase.DRAINING: Conduct(ready=False, accepting=True, keep_alive=False),
    Phase.STOPPING: Conduct(ready=False, accepting=False, keep_alive=False),
    Phase.STOPPED: Conduct(ready=False, accepting=False, keep_alive=False),
}

ALLOWED = {
    (Phase.SERVING, Phase.DRAINING): "drain, stop",
    (Phase.SERVING, Phase.STOPPING): "stop, handed_over",
    (Phase.SERVING, Phase.STOPPED): "forced",
    (Phase.DRAINING, Phase.STOPPING): "stop, delay_over, handed_over",
    (Phase.DRAINING, Phase.STOPPED): "forced",
    (Phase.STOPPING, Phase.STOPPED): "finished, timeout, forced",
}
"""Every allowed change, and the reasons that bring it about."""


class Drain:
    """The process's way out. `deadline` is when `tick` must come again; None when nothing is timed."""

    __slots__ = ("_delay", "_drain_timeout", "_stop_asked", "deadline", "phase")

    def __init__(self, delay: float, drain_timeout: float) -> None:
        """Seconds: `shutdown.delay` and `shutdown.drain_timeout`."""
        self._delay = delay
        self._drain_timeout = drain_timeout
        self._stop_asked = False
        self.phase = Phase.SERVING
        self.deadline: float | None = None

    @property
    def conduct(self) -> Conduct:
        return CONDUCT[self.phase]

    def drain(self, now: float) -> Transition[Phase] | None:
        """`sidecar drain`, the preStop hook. Again, or later than stop, it changes nothing."""
        return self._go(Phase.DRAINING, "drain", now) if self.phase is Phase.SERVING else None

    def stop(self, now: float) -> Transition[Phase] | None:
        """SIGTERM. The second one forces."""
        if self._stop_asked:
            return self._go(Phase.STOPPED, "forced", now)
        self._stop_asked = True
        if self.phase is Phase.SERVING and self._delay > 0.0:
            return self._go(Phase.DRAINING, "stop", now, until=now + self._delay)
        return self._go(Phase.STOPPING, "stop", now, until=now + self._drain_timeout)

    def leave(self, now: float) -> Transition[Phase] | None:
        """A successor serves from now on. A stop that comes later changes nothing; the one after it forces."""
        return self._go(Phase.STOPPING, "handed_over", now, until=now + self._drain_timeout)

    def retime(self, delay: float, drain_timeout: float) -> None:
        """Other seconds for what has not begun yet; a deadline that runs stays."""
        self._delay = delay
        self._drain_timeout = drain_timeout

    def tick(self, now: float, running: int) -> Transition[Phase] | None:
        """Time went on, or a request ended; `running` requests and tunnels are still under way."""
        if self.phase is Phase.STOPPING and running == 0:
            return self._go(Phase.STOPPED, "finished", now)
        if self.deadline is None or now < self.deadline:
            return None
        if self.phase is Phase.DRAINING:
            return self._go(Phase.STOPPING, "delay_over", now, until=now + self._drain_timeout)
        return self._go(Phase.STOPPED, "timeout", now)

    def _go(self, new: Phase, reason: str, now: float, until: float | None = None) -> Transition[Phase] | None:
        if (self.phase, new) not in ALLOWED:
            return None
        change = Transition(self.phase, new, reason, now)
        self.phase = new
        self.deadline = until
        return change
