"""One bounded POST: nothing but the answer's head is read, no redirect is followed, and all of it ends in time.

A client is made once for all who trust the same authorities, beside the loop: reading them takes tens of milliseconds.
It keeps no connection and has no limit of its own, so that nobody ever queues in it.
"""

import asyncio
from typing import TYPE_CHECKING, Protocol

from sidecar import __version__
from sidecar.control.incidents.senders.sender import NotSent

if TYPE_CHECKING:
    from httpx import AsyncClient

ATTEMPT_SECONDS = 10.0
CONNECT_SECONDS = 5.0
_UNWANTED = frozenset({400, 413, 422})
"""What is refused so will be refused again."""
_MAX_WAIT = 3600.0


class Poster(Protocol):
    """Sends `body` to `url`."""

    async def __call__(
        self, url: str, body: bytes, content_type: str, *, token: str | None = None, ca_file: str | None = None
    ) -> None:
        """Raises NotSent."""


class Post:
    """The clients of all senders."""

    def __init__(self) -> None:
        self._clients: dict[str | None, AsyncClient] = {}  # by the file of the authorities
        self._making = asyncio.Lock()

    async def __call__(
        self, url: str, body: bytes, content_type: str, *, token: str | None = None, ca_file: str | None = None
    ) -> None:
        """POST it. Raises NotSent."""
        client = await self._client(ca_file)
        from httpx import HTTPError, InvalidURL

        fields = {"content-type": content_type, "user-agent": f"sidecar/{__version__}", "connection": "close"}
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        try:
            async with (
                asyncio.timeout(ATTEMPT_SECONDS),
                client.stream("POST", url, content=body, headers=fields) as answer,
            ):
                status, wait = answer.status_code, answer.headers.get("retry-after", "")
        except TimeoutError:
            raise NotSent(f"no answer within {ATTEMPT_SECONDS:g} s") from None
        except InvalidURL:
            raise NotSent("the URL is not one") from None
        except (HTTPError, OSError, ValueError) as error:  # their texts may hold the URL
            raise NotSent(f"cannot be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:
            redirect = ", a redirect, which is not followed" if 300 <= status < 400 else ""
            seconds = min(float(wait), _MAX_WAIT) if wait.isascii() and wait.isdigit() else None
            raise NotSent(f"answered {status}{redirect}", seconds, final=status in _UNWANTED)

    async def _client(self, ca_file: str | None) -> "AsyncClient":
        async with self._making:
            if ca_file not in self._clients:
                try:
                    self._clients[ca_file] = await asyncio.to_thread(_make_client, ca_file)
                except (OSError, ValueError) as error:  # ssl.SSLError is one
                    raise NotSent(f"{ca_file} cannot be used: {type(error).__name__}") from None
            return self._clients[ca_file]

    async def close(self) -> None:
        """Close the clients."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


def _make_client(ca_file: str | None) -> "AsyncClient":
    import ssl

    from httpx import AsyncClient, Limits, Timeout

    unlimited = Limits(max_connections=None, max_keepalive_connections=0)
    timeout = Timeout(ATTEMPT_SECONDS, connect=CONNECT_SECONDS, pool=None)
    verify: ssl.SSLContext | bool = True if ca_file is None else ssl.create_default_context(cafile=ca_file)
    return AsyncClient(timeout=timeout, limits=unlimited, trust_env=False, verify=verify)
