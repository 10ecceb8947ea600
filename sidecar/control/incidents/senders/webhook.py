"""A webhook: a JSON description, or whatever a template makes of it.

A template is text with `{{name}}` for the incident's fields. In a JSON body the values are escaped as inside a string,
in any other they stand as they are, on one line. `check` refuses names that are not there.
"""

import asyncio
import re
from typing import Any

import msgspec

from sidecar.config.incidents import PLACEHOLDER, Webhook
from sidecar.control.incidents.senders.post import Poster
from sidecar.control.incidents.senders.sender import Notice, read_secret

_PLACES = re.compile(PLACEHOLDER)


class WebhookSender:
    """Sends to a URL that may be a secret."""

    refresh_seconds: float | None = None

    def __init__(self, config: Webhook, post: Poster) -> None:
        self._config = config
        self._post = post

    async def send(self, notice: Notice) -> None:
        config = self._config
        url = config.url
        if url is None:
            assert config.url_file is not None, "one of them is given"
            url = await asyncio.to_thread(read_secret, config.url_file)
        token = None if config.token_file is None else await asyncio.to_thread(read_secret, config.token_file)
        content = body(notice, config.body, config.content_type)
        await self._post(url, content, config.content_type, token=token, ca_file=config.ca_file)

    async def refresh(self, notices: list[Notice]) -> None:
        """Once is enough."""


def body(notice: Notice, template: str | None, content_type: str) -> bytes:
    """What is sent."""
    fields = {"what": notice.what, "text": notice.text, "headline": notice.headline, **notice.incident}
    if template is None:
        return msgspec.json.encode(fields)
    as_json = "json" in content_type

    def put(found: re.Match[str]) -> str:
        value = _plain(fields.get(found[1]))
        return msgspec.json.encode(value).decode()[1:-1] if as_json else value

    return _PLACES.sub(put, template).encode()


def _plain(value: Any) -> str:
    if value is None:
        return ""
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split())
