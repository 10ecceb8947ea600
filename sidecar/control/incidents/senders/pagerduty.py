"""PagerDuty, Events API v2: trigger, acknowledge, resolve; the incident's key joins them."""

import asyncio
from typing import Any

import msgspec

from sidecar.config.incidents import PagerDuty
from sidecar.control.incidents.senders.post import Poster
from sidecar.control.incidents.senders.sender import Notice, read_secret

MAX_SUMMARY = 1024
_ACTIONS = {"acknowledged": "acknowledge", "resolved": "resolve"}


class PagerDutySender:
    """Sends events."""

    refresh_seconds: float | None = None

    def __init__(self, config: PagerDuty, post: Poster) -> None:
        self._config = config
        self._post = post

    async def send(self, notice: Notice) -> None:
        key = await asyncio.to_thread(read_secret, self._config.routing_key_file)
        await self._post(self._config.url, msgspec.json.encode(event(notice, key)), "application/json")

    async def refresh(self, notices: list[Notice]) -> None:
        """Once is enough."""


def event(notice: Notice, routing_key: str) -> dict[str, Any]:
    """The event of a notice."""
    one = notice.incident
    action = _ACTIONS.get(notice.what, "trigger")
    joined: dict[str, Any] = {"routing_key": routing_key, "event_action": action, "dedup_key": notice.key}
    if action != "trigger":
        return joined
    payload = {
        "summary": notice.headline[:MAX_SUMMARY],
        "source": one["instance"],
        "severity": one["severity"],
        "timestamp": one["started"],
        "component": one["subject"],
        "group": one["service"],
        "class": one["failure"],
        "custom_details": {
            "what": notice.what,
            "text": notice.text,
            "holds": one["holds"],
            "relapses": one["relapses"],
        },
    }
    return {**joined, "payload": payload, "client": "sidecar"}
