"""Who hears of an incident next when nobody says that they look at it.

Steps in the order of their waits, each counted from the moment when people were first told (`Incident.alerted`). A step
is taken once. Nothing escalates once somebody acknowledged, nor while nothing is wrong; what comes back unacknowledged
goes on where it was, with the waits that passed meanwhile counted in. A reopened incident begins anew.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sidecar.machines.incidents.incident import Incident, Status


class Step(NamedTuple):
    """After so many seconds without an acknowledgement, tell this receiver."""

    after: float
    to: str


def take(steps: Sequence[Step], incident: Incident, now: float) -> list[str]:
    """Whom to tell now; counts the steps as taken."""
    ordered = sorted(steps)
    if incident.status is not Status.DETECTED:
        return []
    told = [step.to for step in ordered[incident.escalated :] if now - incident.alerted >= step.after]
    incident.escalated += len(told)
    return told


def due(steps: Sequence[Step], incident: Incident) -> float | None:
    """When the next step is to be taken; None: not as things stand."""
    left = sorted(steps)[incident.escalated :]
    return incident.alerted + left[0].after if left and incident.status is Status.DETECTED else None
