"""Endpoints from Kubernetes: the EndpointSlices of a service, listed once and then watched.

Straight from the API server with the pod's own token: a list gives the state and its resourceVersion, a watch from
there gives every change. A watch that ends is resumed from the last version seen (bookmarks keep that young); a
version that is too old (410 Gone) means listing anew. A watch may not be silent for ever: the server is asked to end it
after `watch_seconds`, and a connection on which nothing came for that and `GRACE_SECONDS` more is dead and left. So a
change is known at once, or after about a minute at worst.

The token is read at each request, since the kubelet replaces it. Lists, lines and their numbers are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.base.backoff import full_jitter, spread
from sidecar.control.resolvers.slices import Event, Metadata, Slice, SliceList, Status, endpoints_at, ports_of
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    import httpx

    from sidecar.config.upstreams import KubernetesDiscovery
    from sidecar.control.resolvers import Report

MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
WATCH_SECONDS = 60.0
GRACE_SECONDS = 10.0
CONNECT_SECONDS = 5.0
LIST_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
MAX_LINE, MAX_LIST, MAX_SLICES = 4 << 20, 16 << 20, 500
_PAGE = 100
_SHORT = 1.0
"""After a watch that the server ends sooner than this comes a pause."""
_LONG = 10.0
"""A watch that lasted so long has earned a fresh backoff."""

_log = Log(__name__)


class ApiFault(Exception):
    """The API server refused, or said what makes no sense; one line."""


class _Expired(Exception):
    """The version is too old: list anew."""


class KubernetesSource:
    """One service's endpoints at one port."""

    kind = "kubernetes"

    def __init__(self, config: KubernetesDiscovery, watch_seconds: float = WATCH_SECONDS) -> None:
        self.target = f"{config.namespace or 'own namespace'}/{config.service}:{config.port}"
        self._config = config
        self._watch_seconds = watch_seconds
        self._url = ""
        self._slices: dict[str, Slice] = {}
        self._version = ""  # empty: list first

    async def run(self, report: Report) -> None:
        import httpx

        step = 0
        while True:
            began = monotonic()
            try:
                async with self._client() as client:
                    while True:
                        if not self._version:
                            await self._list(client, report)
                        began = monotonic()
                        await self._watch(client, report)
                        if monotonic() - began < _SHORT:
                            await asyncio.sleep(spread(_SHORT, 0.5, random.random))
            except _Expired as gone:
                self._version = ""
                _log.info(
                    "kubernetes_watch_expired", every=60.0, about=self.target, target=self.target, reason=str(gone)
                )
            except (ApiFault, OSError, ValueError, httpx.HTTPError) as error:
                report.failed(_one_line(error))
            step = 0 if monotonic() - began >= _LONG else step
            await asyncio.sleep(full_jitter(step, FIRST_PAUSE, LONGEST_PAUSE, random.random))
            step += 1

    def _client(self) -> httpx.AsyncClient:
        import httpx

        config = self._config
        api = (config.api or api_of_the_cluster()).rstrip("/")
        namespace = config.namespace or _read(f"{MOUNTED}/namespace")
        self._url = f"{api}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        verify: ssl.SSLContext | bool = True
        if api.startswith("https:"):
            verify = ssl.create_default_context(cafile=config.ca_file or f"{MOUNTED}/ca.crt")
        timeout = httpx.Timeout(CONNECT_SECONDS, read=self._watch_seconds + GRACE_SECONDS)
        return httpx.AsyncClient(verify=verify, timeout=timeout, trust_env=False)

    # List ---------------------------------------------------------------------------------------------------------

    async def _list(self, client: httpx.AsyncClient, report: Report) -> None:
        slices: dict[str, Slice] = {}
        page = ""
        while True:
            parameters = {"limit": str(_PAGE)} | ({"continue": page} if page else {})
            found = _decode(await self._read_list(client, parameters), SliceList)
            slices |= {one.metadata.name: one for one in found.items or ()}
            page = found.metadata.next_page
            if len(slices) > MAX_SLICES:
                raise ApiFault(f"more than {MAX_SLICES} EndpointSlices")
            if not page:
                break
        self._slices, self._version = slices, found.metadata.resource_version
        await self._tell(report)

    async def _read_list(self, client: httpx.AsyncClient, parameters: dict[str, str]) -> bytes:
        body = bytearray()
        async with self._ask(client, parameters) as response, asyncio.timeout(LIST_SECONDS):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_LIST:
                    raise ApiFault(f"a list beyond {MAX_LIST >> 20} MiB")
        return bytes(body)

    # Watch --------------------------------------------------------------------------------------------------------

    async def _watch(self, client: httpx.AsyncClient, report: Report) -> None:
        """Follow changes until the server ends the watch. Raises _Expired when the version is too old."""
        parameters = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(spread(self._watch_seconds, 0.1, random.random)))),
        }
        rest = b""
        async with self._ask(client, parameters) as response:
            await self._tell(report)  # it goes on from where we are: what is known holds
            async for piece in response.aiter_bytes():
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise ApiFault(f"a watch event beyond {MAX_LINE >> 20} MiB")
                for line in lines:
                    self._take(_decode(line, Event))
                if lines:
                    await self._tell(report)

    def _take(self, event: Event) -> None:
        if event.type == "ERROR":
            status = _decode(event.object, Status)
            if status.code == 410:
                raise _Expired(status.message[:200])
            self._version = ""  # whatever it was, what we know may be wrong from here on
            raise ApiFault(f"the watch ended with {status.code}: {status.message[:200]}")
        if event.type == "BOOKMARK":
            self._version = _decode(event.object, _Bare).metadata.resource_version
            return
        found = _decode(event.object, Slice)
        if event.type == "DELETED":
            self._slices.pop(found.metadata.name, None)
        elif len(self._slices) < MAX_SLICES or found.metadata.name in self._slices:
            self._slices[found.metadata.name] = found
        self._version = found.metadata.resource_version

    async def _tell(self, report: Report) -> None:
        answer = endpoints_at(self._slices.values(), self._config.port)
        await report.found(answer)
        if not answer.members and not answer.withdrawn and (ports := ports_of(self._slices.values())):
            report.failed(f"the service has no port {self._config.port}; its endpoints have {', '.join(ports[:10])}")

    # Asking -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _ask(self, client: httpx.AsyncClient, parameters: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """An answer whose body is to be read; raises _Expired for 410 and ApiFault for all but 200."""
        query = {"labelSelector": f"kubernetes.io/service-name={self._config.service}"} | parameters
        token = await asyncio.to_thread(_read, self._config.token_file or f"{MOUNTED}/token")
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        async with client.stream("GET", self._url, params=query, headers=headers) as response:
            if response.status_code == 410:
                raise _Expired("410 Gone")
            if response.status_code != 200:
                raise ApiFault(f"the API server says {response.status_code} {await _said(response)}".strip())
            yield response


class _Bare(msgspec.Struct):
    metadata: Metadata


def _decode(data: bytes | msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ApiFault(f"not what an API server says: {error}") from None


async def _said(response: httpx.Response) -> str:
    """The reason in a refusal, from its first bytes."""
    async for piece in response.aiter_bytes(4096):
        try:
            return msgspec.json.decode(piece, type=Status).message[:200]
        except msgspec.MsgspecError:
            break
    return response.reason_phrase


def api_of_the_cluster() -> str:
    """The API server that the pod's environment names. Raises ApiFault."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT_HTTPS", "443")
    if not host:
        raise ApiFault("not in a cluster: KUBERNETES_SERVICE_HOST is not set; name the API server in `api`")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read(1 << 16).strip()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    return text[:300] if isinstance(error, ApiFault) else f"{type(error).__name__}: {text}"[:300]
