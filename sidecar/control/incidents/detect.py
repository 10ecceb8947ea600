"""From what happened to what is wrong: each happening may say that a condition holds, or that it does not any more.

An upstream has one incident, whatever shows that it fails: its breaker, its endpoints' checks, a recovery that gave
up. A condition told by one of several workers is that worker's: it ends with it. What a happening says is taken as it
comes; nothing is asked for, except of which endpoints an upstream has now.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from sidecar.machines.incidents.incident import Condition, Incident, Severity
from sidecar.runtime.observer import Happening, Kind, Level

SHARED_STATE_SECONDS = 60.0
"""So long replicas may be on their own before it is an incident."""
AGENT_SECONDS = 900.0
"""What the agent reported counts as gone so long after its last report."""
TOLD_SECONDS = 900.0
"""What happened once and is over stays an open incident for so long."""
CRASH_SECONDS, CRASHES = 600.0, 3
"""So many deaths within so long are a crash loop."""
CERTIFICATE_SECONDS = 3 * 3600.0
"""What is wrong with a certificate is told each hour; untold for so long, it is over."""

UPSTREAM, DEPENDENCY, PROCESS, CONFIG = "upstream_failing", "dependency_down", "process_died", "config_rejected"
SHARED_STATE, STORE, CERTIFICATE = "shared_state_lost", "incident_store", "certificate"

HealthView = Callable[[], list[dict[str, Any]]]


class Gone(NamedTuple):
    """A condition does not hold any more."""

    failure: str
    subject: str
    key: str


Sign = Condition | Gone


class Names(NamedTuple):
    """What the configuration knows at the moment."""

    upstreams: Callable[[], Collection[str]]
    dependencies: Callable[[], Collection[str]]


class Detector:
    """What is wrong, as happenings say it. `health`: `HealthChecks.view`; `enforced`: whether a breaker refuses."""

    def __init__(self, health: HealthView, enforced: Callable[[str], bool], names: Names) -> None:
        self._health = health
        self._enforced = enforced
        self._names = names
        self._workers: dict[int, set[Gone]] = {}  # what each process said
        self._unwell: dict[str, set[str]] = {}  # upstream -> its endpoints that were told as unhealthy
        self._deaths: dict[str, list[float]] = {}
        self._alone_since: float | None = None

    def hear(self, one: Happening) -> Iterator[Sign]:
        """What it says."""
        match one.kind:
            case Kind.BREAKER_CHANGED:
                yield from self._breaker(one)
            case Kind.ENDPOINT_EJECTED | Kind.ENDPOINT_READMITTED:
                yield from self._ejected(one)
            case Kind.ENDPOINT_HEALTH_CHANGED | Kind.ENDPOINTS_CHANGED:
                yield from self._endpoints(one.subject)
            case Kind.DEPENDENCY_HEALTH_CHANGED:
                yield from self._dependency(one)
            case Kind.CHILD_DIED | Kind.CHILD_START_FAILED:
                yield self._died(one)
            case Kind.CHILD_STARTED:
                yield Gone(PROCESS, one.subject, "dead")
            case Kind.CONFIG_RELOAD_FAILED:
                text = f"The configuration file was refused: {one.reason or one.detail}"
                yield Condition(CONFIG, one.subject, "refused", Severity.WARNING, text)
            case Kind.CONFIG_RELOADED:
                yield Gone(CONFIG, one.subject, "refused")
                for upstream in list(self._unwell):
                    yield from self._endpoints(upstream)
            case Kind.SHARED_STATE_LOST | Kind.SHARED_STATE_UNREACHABLE:
                yield from self._alone(one)
            case Kind.SHARED_STATE_CONNECTED:
                self._alone_since = None
                yield Gone(SHARED_STATE, one.subject, "lost")
            case Kind.CERTIFICATE_EXPIRES:
                severity = Severity.WARNING if one.reason == "expires_soon" else Severity.CRITICAL
                expires = one.at + CERTIFICATE_SECONDS
                yield Condition(
                    CERTIFICATE, one.subject, "expires", severity, f"Certificate {one.detail}", expires=expires
                )
            case Kind.CERTIFICATE_REFUSED:
                text = f"New certificate files of {one.subject} cannot be used: {one.detail}"
                expires = one.at + CERTIFICATE_SECONDS
                yield Condition(CERTIFICATE, one.subject, "refused", Severity.ERROR, text, expires=expires)
            case Kind.CERTIFICATE_WELL:
                yield Gone(CERTIFICATE, one.subject, one.reason)
            case Kind.WORKER_DIED:
                yield from self._workers.pop(int(one.fields.get("pid") or 0), ())
            case Kind.AGENT_CONDITION:
                yield self._agent(one)
            case Kind.INCIDENT_STORE_FAILED:
                text = f"Incidents cannot be written down: {one.reason}"
                yield Condition(STORE, one.subject, "failing", Severity.WARNING, text)
            case Kind.INCIDENT_STORE_SET_ASIDE:
                text = f"The file of incidents was damaged and a new one begun: {one.detail}"
                yield Condition(STORE, one.subject, "damaged", Severity.WARNING, text, expires=one.at + TOLD_SECONDS)
            case Kind.INCIDENT_STORE_RECOVERED:
                yield Gone(STORE, one.subject, "failing")
            case _:
                yield from self._recovery(one)

    def vanished(self, incidents: Iterable[Incident]) -> Iterator[Gone]:
        """What cannot hold any more because a reload took away what it was about."""
        for incident in incidents:
            known = self._known(incident.failure, incident.subject)
            for key in list(incident.conditions):
                word, _, rest = key.partition(":")
                refuses = word != "breaker" or self._enforced(rest.rpartition(":")[0])
                if not (known and refuses):
                    yield Gone(incident.failure, incident.subject, key)

    def _known(self, failure: str, subject: str) -> bool:
        names = {UPSTREAM: self._names.upstreams, DEPENDENCY: self._names.dependencies}.get(failure)
        return names is None or subject in names()

    def _breaker(self, one: Happening) -> Iterator[Sign]:
        new = one.fields.get("new")
        upstream = one.subject.partition("/")[0]
        sign = Gone(UPSTREAM, upstream, f"breaker:{one.subject}:{one.pid}")
        if new == "open" and self._enforced(one.subject):
            why = f": {one.detail}" if one.detail else ""
            text = f"The breaker of {one.subject} is open{why}"
            self._workers.setdefault(one.pid, set()).add(sign)
            yield Condition(*sign, Severity.CRITICAL, text, outage=True)
        elif new != "half_open":  # trials are no proof yet
            self._workers.get(one.pid, set()).discard(sign)
            yield sign

    def _ejected(self, one: Happening) -> Iterator[Sign]:
        endpoint = one.fields.get("endpoint")
        sign = Gone(UPSTREAM, one.subject, f"ejected:{endpoint}:{one.pid}")
        if one.kind is Kind.ENDPOINT_READMITTED:
            yield sign
        elif one.fields.get("enforced"):
            self._workers.setdefault(one.pid, set()).add(sign)
            expires = one.at + float(one.fields.get("seconds") or 300.0) + 60.0  # should its return go untold
            text = f"Endpoint {endpoint} of {one.subject} was ejected: {one.detail or one.reason}"
            yield Condition(*sign, Severity.WARNING, text, expires=expires)

    def _endpoints(self, upstream: str) -> Iterator[Sign]:
        found = [one for one in self._health() if one["kind"] == "endpoint" and one["upstream"] == upstream]
        unwell = {one["endpoint"]: one["detail"] for one in found if one["state"] == "unhealthy"}
        well = {one["endpoint"] for one in found if one["state"] in {"healthy", "degraded"}}
        for endpoint in (self._unwell.pop(upstream, set()) | well) - unwell.keys():
            yield Gone(UPSTREAM, upstream, f"unhealthy:{endpoint}")  # told by an earlier run, perhaps
        if unwell:
            self._unwell[upstream] = set(unwell)
        if unwell and len(unwell) == len(found):
            why = next(iter(unwell.values()))
            text = f"No endpoint of {upstream} passes its checks: {why}"
            yield Condition(UPSTREAM, upstream, "no_endpoint", Severity.CRITICAL, text, outage=True)
        for endpoint, why in unwell.items():
            text = f"Endpoint {endpoint} of {upstream} fails its checks: {why}"
            yield Condition(UPSTREAM, upstream, f"unhealthy:{endpoint}", Severity.WARNING, text)
        if len(unwell) < len(found) or not found:
            yield Gone(UPSTREAM, upstream, "no_endpoint")

    def _dependency(self, one: Happening) -> Iterator[Sign]:
        now, detail = one.fields.get("now"), one.detail
        if now in {"unhealthy", "degraded"}:
            severity = Severity.ERROR if now == "unhealthy" else Severity.WARNING
            text = f"Dependency {one.subject} is {now}: {detail}" if detail else f"Dependency {one.subject} is {now}"
            yield Condition(DEPENDENCY, one.subject, "check", severity, text)
        else:
            yield Gone(DEPENDENCY, one.subject, "check")

    def _died(self, one: Happening) -> Sign:
        deaths = [*(at for at in self._deaths.get(one.subject, ()) if one.at - at < CRASH_SECONDS), one.at]
        self._deaths[one.subject] = deaths[-CRASHES:]
        looping = len(deaths) >= CRASHES
        how = one.fields.get("exit") or one.reason or "it could not be started"
        text = f"The service's process {'keeps dying' if looping else 'died'} ({how})"
        severity = Severity.CRITICAL if looping else Severity.ERROR
        return Condition(PROCESS, one.subject, "dead", severity, text, outage=True)

    def _alone(self, one: Happening) -> Iterator[Sign]:
        self._alone_since = one.at if self._alone_since is None else self._alone_since
        if one.at - self._alone_since >= SHARED_STATE_SECONDS:
            text = f"The shared state has been away for a minute or longer: {one.reason}"
            yield Condition(SHARED_STATE, one.subject, "lost", Severity.WARNING, text, since=self._alone_since)

    def _agent(self, one: Happening) -> Sign:
        if not one.fields.get("holds", True):
            return Gone(one.reason, one.subject, "agent")
        said = one.fields.get("severity")
        severity = Severity.ERROR if one.level is Level.ERROR else Severity.WARNING
        severity = Severity(said) if isinstance(said, str) and said in {*Severity} else severity
        expires = one.at + float(one.fields.get("expires_seconds") or AGENT_SECONDS)
        text = f"{one.subject}: {one.detail or one.reason.replace('_', ' ')}"
        return Condition(one.reason, one.subject, "agent", severity, text, expires=expires)

    def _recovery(self, one: Happening) -> Iterator[Sign]:
        failure, subject = place(one)
        key = f"recovery:{one.fields.get('rule') or one.subject}"
        if one.kind == "recovery_detected":
            text = f"{subject}: {one.detail or one.reason or 'unwell'}"
            yield Condition(failure, subject, f"found:{one.subject}", Severity.WARNING, text)
        elif one.kind == "recovery_escalated":
            text = f"Recovery of {subject} gave up: {one.detail or one.reason}"
            yield Condition(failure, subject, key, Severity.CRITICAL, text)
        elif one.kind in {"recovery_verified", "recovery_ended"}:
            yield Gone(failure, subject, key)
            yield Gone(failure, subject, f"found:{one.subject}")


def place(one: Happening) -> tuple[str, str]:
    """The failure class and the subject that a happening is about."""
    for field, failure in (("upstream", UPSTREAM), ("dependency", DEPENDENCY), ("program", PROCESS)):
        if isinstance(one.fields.get(field), str) and one.fields[field]:
            return failure, str(one.fields[field]).partition("/")[0]
    return "recovery_gave_up", one.subject


_EVERYWHERE = frozenset(
    {Kind.CONFIG_RELOADED, Kind.CONFIG_RELOAD_FAILED, Kind.PHASE_CHANGED, Kind.AGENT_EVENT, Kind.WORKER_DIED,
     Kind.SHARED_STATE_LOST, Kind.SHARED_STATE_CONNECTED, Kind.CHILD_DIED, Kind.CHILD_STARTED, Kind.TAKEN_OVER,
     "recovery_paused", "recovery_resumed"}
)  # fmt: skip


def concerns(one: Happening, subject: str) -> bool:
    """Whether it belongs to the story of an incident about `subject`."""
    # compared, not hashed: a report's fields hold whatever was reported
    named = (one.subject, one.subject.partition("/")[0], *(one.fields.get(key) for key in ("upstream", "dependency")))
    return one.kind in _EVERYWHERE or place(one)[1] == subject or subject in named
