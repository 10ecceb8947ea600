"""Ask someone else: a JSON POST. 2xx is success; anything else, or too late, is a failed attempt.

The answer's body is not read. A redirect is an answer like any other and is not followed. The URL may be a secret: no
message repeats it.
"""

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any

from sidecar import __version__
from sidecar.config.recovery import Recovery, Webhook
from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.actions.web import client_for
from sidecar.control.recovery.ports import ActionFailed, Surroundings


class CallWebhook(Plain):
    """POSTs what is wrong."""

    strategy = "webhook"

    def __init__(self, config: Webhook, rule: Recovery, around: Surroundings, timeout: float) -> None:
        self._config = config
        self._rule = rule
        self._around = around
        self._timeout = timeout
        self.tells: dict[str, Any] = {}
        """What the rule knows of the fault: why, attempt, what it is about."""

    async def run(self) -> str:
        url = await asyncio.to_thread(self._url)
        service = self._around.config().service
        body = {
            "rule": self._rule.name,
            "service": service.name,
            "instance": service.instance or socket.gethostname(),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **self.tells,
        }
        headers = {"user-agent": f"sidecar/{__version__}"}
        try:
            async with asyncio.timeout(self._timeout):
                status, good, redirect = await self._post(url, body, headers)
        except TimeoutError:
            raise ActionFailed("the webhook did not answer in time") from None
        if not good:
            raise ActionFailed(f"the webhook answered {status}{', a redirect, which is not followed' * redirect}")
        return f"the webhook answered {status}"

    async def _post(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, bool, bool]:
        """Status, whether it is success, and whether it is a redirect; the client is this call's own, so a cancelled
        one takes no pool with it.
        """
        client = await client_for(url, self._timeout)
        from httpx import HTTPError, InvalidURL

        try:
            async with client, client.stream("POST", url, json=body, headers=headers) as response:
                return response.status_code, response.is_success, 300 <= response.status_code < 400
        except (HTTPError, InvalidURL, OSError) as error:
            raise ActionFailed(f"the webhook cannot be called: {type(error).__name__}") from None

    def _url(self) -> str:
        if self._config.url is not None:
            return self._config.url
        assert self._config.url_file is not None, "one of them is given"
        try:
            with open(self._config.url_file, encoding="utf-8") as stream:
                return stream.read(4096).strip()
        except (OSError, UnicodeDecodeError):
            raise ActionFailed(f"{self._config.url_file} cannot be read") from None
