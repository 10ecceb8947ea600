"""What happened in this process, told once: to the log, and to whoever subscribed.

Theory. A shell that acts on a machine's `Transition` tells it here, with one call. The observer writes the log line,
whose event is the kind's word, and hands the same `Happening` to the subscribers: incidents, recovery, the status page.
So the log and an incident can never tell different stories, and the shells know nobody who listens. Numbers stay
where they are counted: in cells that the shells hold.

Rules. `tell` never waits and never fails: a subscriber that raises is logged and asked again next time. It may run on a
request's way, so a subscriber only notes what it heard and works elsewhere. A worker process logs its own happenings
and forwards them (`app/processes.py`); the program passes them to its subscribers by `hear`, without logging them
again. What subscribers get is what happened, every time; `every` limits the log alone.
"""

import os
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from sidecar.runtime.logs import Log

_log = Log(__name__)


class Kind(StrEnum):
    """What may happen: the log's event. Behind each: its subject; the fields beside reason and detail."""

    BREAKER_CHANGED = "breaker_changed"
    """The breaker's name; upstream (the same name), old, new: states of `machines/breaker_states.py`."""
    ENDPOINT_EJECTED = "endpoint_ejected"
    """The upstream; upstream, endpoint, enforced (false: only observed), ejections, seconds."""
    ENDPOINT_READMITTED = "endpoint_readmitted"
    """The upstream; upstream, endpoint."""
    ENDPOINT_HEALTH_CHANGED = "endpoint_health_changed"
    """The upstream; upstream, endpoint, before, now: words of `machines/health.py`."""
    DEPENDENCY_HEALTH_CHANGED = "dependency_health_changed"
    """The dependency; dependency, before, now."""
    DEPENDENCY_PART_CHANGED = "dependency_part_changed"
    """The dependency; dependency, part (one of its several targets), before, now."""
    CHILD_STARTED = "child_started"
    """The program; pid, program, restarts (0: the first start)."""
    CHILD_DIED = "child_died"
    """The program; pid, exit (`code 3`, `SIGKILL`), again_in_seconds."""
    CHILD_START_FAILED = "child_start_failed"
    """The program; again_in_seconds."""
    CHILD_FINISHED = "child_finished"
    """The program; pid. It ended with 0, and the sidecar ends."""
    CONFIG_RELOADED = "config_reloaded"
    """The file; config_hash, changed, restart_needed (lists of paths and sentences)."""
    CONFIG_RELOAD_FAILED = "config_reload_failed"
    """The file; path, advice."""
    CERTIFICATE_LOADED = "certificate_loaded"
    """The owner (`listener/NAME`, `upstream/NAME`); owner, until. Its files changed, and the new ones serve."""
    CERTIFICATE_REFUSED = "certificate_refused"
    """The owner; owner, advice. Told each hour while it lasts."""
    CERTIFICATE_EXPIRES = "certificate_expires"
    """The owner; owner, file, until, advice; reason: expires_soon, expired or not_yet_valid. Again each hour."""
    CERTIFICATE_WELL = "certificate_well"
    """The owner; owner; reason: which of the two is over, `refused` or `expires`."""
    PHASE_CHANGED = "phase_changed"
    """The service; before, now: phases of `machines/drain.py`."""
    HANDED_OVER = "handed_over"
    """The service; successor (its pid). It serves; we drain."""
    HAND_OVER_FAILED = "hand_over_failed"
    """The service; successor (its pid). We go on as if nothing had been."""
    TAKEN_OVER = "taken_over"
    """The service; predecessor (its pid), version (the predecessor's), listeners (their names), breakers (the names of
    those that are not closed)."""
    WORKER_STARTED = "worker_started"
    """The worker's place; worker, pid."""
    WORKER_DIED = "worker_died"
    """The worker's place; worker, pid, status."""
    WORKER_START_FAILED = "worker_start_failed"
    """The worker's place; worker."""
    ENDPOINTS_CHANGED = "endpoints_changed"
    """The upstream; upstream, count, came, went (up to 20 addresses each)."""
    DISCOVERY_FAILED = "discovery_failed"
    """The upstream; upstream, advice. Each new reason once."""
    DISCOVERY_RECOVERED = "discovery_recovered"
    """The upstream; upstream."""
    SHARED_STATE_CONNECTED = "shared_state_connected"
    """`shared_state`; none."""
    SHARED_STATE_LOST = "shared_state_lost"
    """`shared_state`; advice. It was there."""
    SHARED_STATE_UNREACHABLE = "shared_state_unreachable"
    """`shared_state`; advice. At every try to connect that failed."""
    SHARED_STATE_DEAF = "shared_state_deaf"
    """`shared_state`; advice. The user may not hear the channel."""
    RECOVERY_DETECTED = "recovery_detected"
    """The rule; rule, strategy, detector (the key of its `when`), and upstream, dependency or program. It lasts."""
    RECOVERY_STARTED = "recovery_started"
    """The rule; rule, strategy, attempt, and what it is about: upstream, dependency or program. An attempt begins."""
    RECOVERY_FAILED = "recovery_failed"
    """The rule; the same. The attempt did not help."""
    RECOVERY_VERIFIED = "recovery_verified"
    """The rule; the same, and seconds since the fault was seen. Proved."""
    RECOVERY_RELAPSED = "recovery_relapsed"
    """The rule; the same. Sick again within five minutes of the proof, which therefore was none."""
    RECOVERY_ESCALATED = "recovery_escalated"
    """The rule; the same. Attempts or budget are used up: people take over. Once per fault."""
    RECOVERY_HELD = "recovery_held"
    """The rule; the same, hold: a word of `machines/recovery/stages.py`. It would act and may not."""
    RECOVERY_ENDED = "recovery_ended"
    """The rule; the same. The fault went away without proof, or stayed away for ten minutes."""
    RECOVERY_PAUSED = "recovery_paused"
    """`recovery`; by, why. Nothing is done until it is resumed."""
    RECOVERY_RESUMED = "recovery_resumed"
    """`recovery`; by, why."""
    AGENT_CONDITION = "agent_condition"
    """What the agent says it is about; holds, expires_seconds, severity. Its reason is the condition's word."""
    AGENT_EVENT = "agent_event"
    """What the agent did something with; whatever it tells beside."""
    INCIDENT_CHANGED = "incident_changed"
    """The incident's id; incident (the same), status, severity, failure, on (what it is about). Its reason says what
    became of it: opened, worsened, acknowledged, mitigated, relapsed, resolved, reopened or closed."""
    INCIDENT_STORE_FAILED = "incident_store_failed"
    """The file; path. What it did not take is kept in memory and brought again."""
    INCIDENT_STORE_RECOVERED = "incident_store_recovered"
    """The file; path."""
    INCIDENT_STORE_SET_ASIDE = "incident_store_set_aside"
    """The file; path, kept_as. It was damaged; a new one is begun."""
    BACKUP_FINISHED = "backup_finished"
    """The point; point, asked (who: schedule, operator, …), bytes, bytes_added, seconds, verified."""
    BACKUP_FAILED = "backup_failed"
    """The source, or `repository`; source (the same)."""
    BACKUP_DAMAGED = "backup_damaged"
    """The point; point (the same), offered (the next older good one, or None)."""
    BACKUP_PROMISE_CHANGED = "backup_promise_changed"
    """The service; before, now: kept or missed, of the RPO."""
    BACKUPS_FORGOTTEN = "backups_forgotten"
    """The repository; points (their number), bytes_freed (None: the data stays until the next prune)."""
    DRILL_ENDED = "drill_ended"
    """The point; point (the same), passed, rto_seconds, rpo_seconds, seconds. Its reason is passed or failed."""
    AGENT_STARTED = "agent_started"
    """The service; version, repository, rpo_seconds."""
    AGENT_STOPPED = "agent_stopped"
    """The service; none."""

    FLEET_NOTICED = "fleet_noticed"
    """A breaker, `configs`, `messages` or `redis`; none. What keeps replicas from agreeing; no detail: no more."""


class Level(StrEnum):
    """How bad: the log's level."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Happening(msgspec.Struct, frozen=True):
    """Something that happened, as plain data: it crosses process borders and may be stored."""

    kind: Kind
    subject: str
    """What it happened to."""
    at: float
    """Unix seconds."""
    level: Level
    reason: str = ""
    """One word, or what a library said."""
    detail: str = ""
    """For people: the figures behind the reason."""
    fields: dict[str, Any] = {}
    """What `Kind` tells of each: strings, numbers, truth values, None, or lists of strings."""
    pid: int = 0
    """The process that saw it: with several workers, each sees its own."""


Subscriber = Callable[[Happening], None]


class Observer:
    """One of a process."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, hear: Subscriber) -> Callable[[], None]:
        """Call `hear` with everything that happens from now on; returns what ends that."""
        self._subscribers.append(hear)

        def end() -> None:
            if hear in self._subscribers:
                self._subscribers.remove(hear)

        return end

    def tell(
        self,
        kind: Kind,
        subject: str,
        *,
        level: Level = Level.INFO,
        reason: str | None = None,
        detail: str | None = None,
        every: float = 0.0,
        about: str = "",
        **fields: Any,
    ) -> None:
        """It happened now. `reason` and `detail` stand in the line when they are given, empty ones too: whoever reads
        a kind's lines finds the same fields in each. `every`, `about`: as the log has them.
        """
        given = (("reason", reason), ("detail", detail))
        words: dict[str, Any] = {name: value for name, value in given if value is not None}
        say = {Level.INFO: _log.info, Level.WARNING: _log.warning, Level.ERROR: _log.error}[level]
        say(kind, every=every, about=about, **fields, **words)
        if self._subscribers:
            self.hear(Happening(kind, subject, time.time(), level, reason or "", detail or "", fields, os.getpid()))

    def hear(self, happening: Happening) -> None:
        """Hand on what was logged already."""
        for subscriber in list(self._subscribers):
            try:
                subscriber(happening)
            except Exception as error:  # noqa: BLE001 - one who cannot bear it must not spoil it for the others
                _log.error("subscriber_failed", error=error, every=60.0, about=happening.kind, kind=happening.kind)
