"""A client for one call, made beside the event loop.

The library and the certificate authorities take a tenth of a second of CPU, and several rules may act at once, while
requests go through this process.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from httpx import AsyncClient

CONNECT_SECONDS = 5.0


async def client_for(url: str, timeout: float, ca_file: str | None = None) -> AsyncClient:  # noqa: ASYNC109
    """A client for `url` that trusts `ca_file`, else the system's authorities, and follows no redirect. Each step of a
    call may take `timeout` seconds. Raises OSError.
    """
    return await asyncio.to_thread(_make, url, timeout, ca_file)


def _make(url: str, timeout: float, ca_file: str | None) -> AsyncClient:
    from httpx import AsyncClient, Timeout

    # without TLS a context that trusts nobody: it costs nothing
    secure = url.lower().startswith("https:")
    verify = ssl.create_default_context(cafile=ca_file) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limits = Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
    return AsyncClient(verify=verify, timeout=limits, trust_env=False)
