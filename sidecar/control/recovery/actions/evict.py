"""Evict our own pod through the Kubernetes API: the last resort, which asks disruption budgets first (policy/v1).

With the pod's mounted token, which may `create` on `pods/eviction`. A budget that forbids it answers 429: that is a
failed attempt. What comes after is another pod; this one is told to end like any other.
"""

import asyncio
import os
import socket
from typing import Any

from sidecar.config.recovery import Eviction
from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.actions.web import client_for
from sidecar.control.recovery.ports import ActionFailed, Surroundings
from sidecar.control.resolvers.kubernetes import MOUNTED, ApiFault, api_of_the_cluster

MAX_ANSWER = 64 * 1024


class EvictPod(Plain):
    """Asks for the eviction of one pod."""

    strategy = "evict"
    restarts = True

    def __init__(self, config: Eviction, around: Surroundings, timeout: float) -> None:
        self._config = config
        self._around = around
        self._timeout = timeout

    async def run(self) -> str:
        pod = self._config.pod or self._around.config().service.instance or socket.gethostname()
        try:
            async with asyncio.timeout(self._timeout):
                return await self._evict(pod)
        except TimeoutError:
            raise ActionFailed("the API server did not answer in time") from None
        except (ApiFault, OSError) as error:
            named = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
            raise ActionFailed(str(named)) from None

    async def _evict(self, pod: str) -> str:
        config = self._config
        api = (config.api or api_of_the_cluster()).rstrip("/")
        namespace = config.namespace or await asyncio.to_thread(_read, f"{MOUNTED}/namespace")
        token = await asyncio.to_thread(_read, config.token_file or f"{MOUNTED}/token")
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        url = f"{api}/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        client = await client_for(url, self._timeout, config.ca_file or f"{MOUNTED}/ca.crt")
        from httpx import HTTPError

        try:
            async with client, client.stream("POST", url, json=body, headers=headers) as response:
                if response.is_success:
                    return f"pod {pod} is being evicted"
                raise ActionFailed(f"the API server says {response.status_code}: {await _said(response)}")
        except HTTPError as error:
            raise ActionFailed(f"the API server cannot be asked: {type(error).__name__}") from None


async def _said(response: Any) -> str:
    """The reason in a refusal, from what comes first of it."""
    import msgspec

    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_ANSWER:
            break
    try:
        return str(msgspec.json.decode(body)["message"])[:200]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return str(response.reason_phrase)


def _read(path: str) -> str:
    with open(os.fspath(path), encoding="utf-8") as stream:
        return stream.read(1 << 16).strip()
