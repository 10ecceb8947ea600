"""Prometheus Alertmanager, API v2: an incident is an alert.

Labels make an alert what it is, so they hold only what stays: alertname (the failure), service, subject, severity, and
instance unless replicas share the incident. An incident that worsens is another alert then, and the less severe one
ends. An alert that nobody renews ends by itself LASTS_SECONDS after its last sign of life, so a dead sidecar leaves
none; therefore what is open is told again every REFRESH_SECONDS, as Prometheus does.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from sidecar.config.incidents import Alertmanager
from sidecar.control.incidents.senders.post import Poster
from sidecar.control.incidents.senders.sender import Notice, read_secret
from sidecar.machines.incidents.incident import Severity

REFRESH_SECONDS = 60.0
LASTS_SECONDS = 240.0
_PATH = "/api/v2/alerts"


class AlertmanagerSender:
    """Sends alerts."""

    refresh_seconds: float | None = REFRESH_SECONDS

    def __init__(self, config: Alertmanager, post: Poster, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._url = config.url.rstrip("/") + _PATH
        self._post = post
        self._clock = clock

    async def send(self, notice: Notice) -> None:
        await self._tell([notice])

    async def refresh(self, notices: list[Notice]) -> None:
        await self._tell(notices)

    async def _tell(self, notices: list[Notice]) -> None:
        alerts = [alert for notice in notices for alert in alerts_of(notice, self._clock())]
        config = self._config
        token = None if config.token_file is None else await asyncio.to_thread(read_secret, config.token_file)
        content = msgspec.json.encode(alerts)
        await self._post(self._url, content, "application/json", token=token, ca_file=config.ca_file)


def alerts_of(notice: Notice, now: float) -> list[dict[str, Any]]:
    """The alert of an incident, and the less severe ones that it was before."""
    one = notice.incident
    ends = notice.resolved if notice.resolved is not None else now + LASTS_SECONDS
    alerts = [_alert(notice, str(one["severity"]), ends)]
    if notice.what == "worsened":
        severities = [str(severity) for severity in Severity]
        alerts += [_alert(notice, each, now) for each in severities[: severities.index(str(one["severity"]))]]
    return alerts


def _alert(notice: Notice, severity: str, ends: float) -> dict[str, Any]:
    one = notice.incident
    labels = {"alertname": one["failure"], "severity": severity}
    labels |= {key: one[key] for key in ("service", "subject")}
    if not one.get("shared_id"):
        labels["instance"] = one["instance"]
    annotations = {
        "summary": one["title"],
        "description": notice.text,
        "incident": one["id"],
        "status": one["status"],
        "acknowledged_by": one["acknowledged_by"],
    }
    return {
        "labels": labels,
        "annotations": {key: value for key, value in annotations.items() if value},
        "startsAt": _rfc3339(min(notice.started, ends)),
        "endsAt": _rfc3339(ends),
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
