"""Slack: an incoming webhook. What others said is escaped, so that nobody far away mentions a channel."""

import asyncio
from typing import Any

import msgspec

from sidecar.config.incidents import Slack
from sidecar.control.incidents.senders.post import Poster
from sidecar.control.incidents.senders.sender import Notice, read_secret

MAX_TEXT = 2900
_SIGNS = {"opened": "🔴", "reopened": "🔴", "worsened": "🔴", "escalated": "🚨", "acknowledged": "👀", "resolved": "✅"}


class SlackSender:
    """Sends messages."""

    refresh_seconds: float | None = None

    def __init__(self, config: Slack, post: Poster) -> None:
        self._config = config
        self._post = post

    async def send(self, notice: Notice) -> None:
        url = await asyncio.to_thread(read_secret, self._config.url_file)
        await self._post(url, msgspec.json.encode(message(notice)), "application/json")

    async def refresh(self, notices: list[Notice]) -> None:
        """Once is enough."""


def message(notice: Notice) -> dict[str, Any]:
    """The message of a notice: its text for notifications, and the same as a block."""
    one = notice.incident
    head = f"{_SIGNS.get(notice.what, '')} *{_escape(notice.headline)}*".strip()
    lines = [head, _escape(notice.text), f"`{one['id']}` on {_escape(one['instance'])}, {one['status']}"]
    text = "\n".join(lines)[:MAX_TEXT]
    return {
        "text": _escape(notice.headline)[:MAX_TEXT],
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}],
    }


def _escape(text: object) -> str:
    """As Slack asks for it: &, < and >."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
