"""Spans to a collector: OTLP over HTTP, as JSON, in batches, by a task of its own.

What the data plane hands over waits in a queue of bounded length; what does not fit is dropped and counted
(`sidecar_spans_dropped_total{reason="queue_full"}`), for a request must not wait for a collector. A batch that the
collector does not take is tried again as OTLP asks: after 429, 502, 503 and 504, and when nobody answers, with growing
pauses, RETRIES times in all; then, and after any other refusal, it is dropped and counted. At the end what is left, a
batch that was on its way included, gets one try of a second; a collector may so see a span twice. Names of attributes
are those of OpenTelemetry's HTTP conventions.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar import __version__
from sidecar.base.backoff import full_jitter
from sidecar.runtime import series
from sidecar.runtime.logs import Log

if TYPE_CHECKING:
    from httpx import AsyncClient

    from sidecar.runtime.metrics import Registry

Span = tuple[
    bytes, bytes, bytes, float, float, bytes, bytes, bytes, bytes, int, bytes, int,
    str, str, str, str, str, int, str, bytes,
]  # fmt: skip
"""trace, span, parent (hexadecimal), began and ended (monotonic seconds), method, scheme, host, path, HTTP/1.x, user
agent, status (0: none), listener, route, upstream, endpoint, outcome, tries, client, request id."""

BATCH = 512
DELIVERY_SECONDS = 1.0
"""A batch goes out when it is full, or this old."""
RETRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
TIMEOUT_SECONDS = 5.0
LAST_SECONDS = 1.0
TOKEN_LIMIT = 4096
_AGAIN = frozenset({429, 502, 503, 504})
_SERVER, _ERROR = 2, 2
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"})

_log = Log(__name__)


class SpanQueue:
    """Spans that wait for delivery. Never blocks, never raises."""

    def __init__(self, limit: int, registry: Registry) -> None:
        self.limit = limit
        self.spans: list[Span] = []
        self._full = registry.cell(series.SPANS_DROPPED, "queue_full")
        self.wake = asyncio.Event()

    def put(self, span: Span) -> None:
        """Keep one, or count that there was no room."""
        if len(self.spans) >= self.limit:
            self._full.value += 1
            return
        self.spans.append(span)
        if len(self.spans) == BATCH:
            self.wake.set()

    def take(self, most: int = BATCH) -> list[Span]:
        """The oldest spans, out of the queue."""
        batch = self.spans[:most]
        del self.spans[:most]
        return batch


class OtlpExporter:
    """Delivers what is in a queue."""

    def __init__(
        self, queue: SpanQueue, url: str, token_file: str | None, resource: dict[str, str], registry: Registry
    ) -> None:
        """`resource`: attributes of this program, such as service.name."""
        self._queue = queue
        self._url = url
        self._token_file = token_file
        self._client: AsyncClient | None = None
        self._resource = [_attribute(key, value) for key, value in resource.items()]
        self._delivered = registry.cell(series.SPANS_EXPORTED)
        self._refused = registry.cell(series.SPANS_DROPPED, "refused")
        self._unreachable = registry.cell(series.SPANS_DROPPED, "unreachable")

    async def run(self) -> None:
        """Deliver until cancelled; what is left then gets one try more."""
        batch: list[Span] = []
        try:
            while True:
                await self._batch_is_due()
                batch = self._queue.take()
                if batch:
                    await self._deliver(batch)
                batch = []
        except asyncio.CancelledError:
            await self._deliver_last([*batch, *self._queue.take(self._queue.limit)])
            raise
        finally:
            if self._client is not None:
                await self._client.aclose()
                self._client = None

    async def _batch_is_due(self) -> None:
        queue = self._queue
        if len(queue.spans) < BATCH:
            try:
                await asyncio.wait_for(queue.wake.wait(), DELIVERY_SECONDS)
            except TimeoutError:
                pass
        queue.wake.clear()

    async def _deliver(self, batch: list[Span]) -> None:
        body = await asyncio.to_thread(encode, batch, self._resource)
        for step in range(RETRIES):
            if step:
                await asyncio.sleep(0.05 + full_jitter(step - 1, FIRST_PAUSE, LONGEST_PAUSE, random.random))
            status, reason = await self._post(body)
            if status is not None and status not in _AGAIN:
                break
        self._settle(batch, status, reason)

    async def _deliver_last(self, batch: list[Span]) -> None:
        if not batch:
            return
        status, reason = None, f"no answer within {LAST_SECONDS:g} s, and the program ends or traces otherwise now"
        body = await asyncio.to_thread(encode, batch, self._resource)
        if self._client is None:  # the second is the collector's, not that of our import
            self._client = await asyncio.to_thread(_make_client)
        try:
            async with asyncio.timeout(LAST_SECONDS):
                status, reason = await self._post(body)
        except TimeoutError:
            pass
        self._settle(batch, status, reason)

    def _settle(self, batch: list[Span], status: int | None, reason: str) -> None:
        """Count what became of `batch`, and tell it when it is lost."""
        if status is not None and status < 300:
            self._delivered.value += len(batch)
            return
        (self._unreachable if status is None else self._refused).value += len(batch)
        _log.warning("spans_dropped", every=60.0, spans=len(batch), url=self._url, reason=reason,
                     advice="look at the collector, or take tracing out of the configuration")  # fmt: skip

    async def _post(self, body: bytes) -> tuple[int | None, str]:
        """The collector's status, None when it did not answer; and what went wrong, for people."""
        if self._client is None:
            # beside the loop: the import, and the authorities that a client reads, take tens of milliseconds
            self._client = await asyncio.to_thread(_make_client)
        from httpx import HTTPError

        fields = {"content-type": "application/json", "user-agent": f"sidecar/{__version__}"}
        try:
            if self._token_file is not None:
                fields["authorization"] = "Bearer " + await asyncio.to_thread(_read, self._token_file)
            # what an answer says beyond its head is not read
            async with self._client.stream("POST", self._url, content=body, headers=fields) as answer:
                return answer.status_code, f"the collector answered {answer.status_code}"
        except (HTTPError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"[:300]


def _make_client() -> AsyncClient:
    from httpx import AsyncClient

    return AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read(TOKEN_LIMIT).strip()


def encode(batch: list[Span], resource: list[dict[str, Any]]) -> bytes:
    """One ExportTraceServiceRequest."""
    offset = time_ns() - int(monotonic() * 1e9)
    scope = {"name": "sidecar", "version": __version__}
    spans = [_span(one, offset) for one in batch]
    return msgspec.json.encode(
        {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [{"scope": scope, "spans": spans}]}]}
    )


def _span(one: Span, offset: int) -> dict[str, Any]:
    (
        trace, span, parent, began, ended, method, scheme, host, path, minor, agent, status,
        listener, route, upstream, endpoint, outcome, tries, client, request_id,
    ) = one  # fmt: skip
    known = method in _METHODS
    word = method.decode() if known else "_OTHER"
    address, colon, port = _text(host).rpartition(":")
    if not colon or port.endswith("]"):  # an IPv6 address alone
        address, port = address + colon + port, ""
    attributes: dict[str, str | int] = {
        "http.request.method": word,
        "http.request.method_original": "" if known else _text(method),
        "url.scheme": _text(scheme),
        "url.path": _text(path),
        "server.address": address.strip("[]"),
        "server.port": int(port or 0),
        "network.protocol.version": f"1.{minor}",
        "user_agent.original": _text(agent),
        "client.address": client,
        "http.response.status_code": status,
        "http.request.resend_count": max(0, tries - 1),
        "error.type": outcome if outcome != "ok" else str(status) if status >= 500 else "",
        "sidecar.listener": listener,
        "sidecar.route": route,
        "sidecar.upstream": upstream,
        "sidecar.endpoint": endpoint,
        "sidecar.outcome": outcome,
        "sidecar.request_id": _text(request_id),
    }
    return {
        "traceId": trace.decode(),
        "spanId": span.decode(),
        "parentSpanId": parent.decode(),
        "name": f"{word} {route}".rstrip(),
        "kind": _SERVER,
        "startTimeUnixNano": str(int(began * 1e9) + offset),
        "endTimeUnixNano": str(int(ended * 1e9) + offset),
        "attributes": [_attribute(key, value) for key, value in attributes.items() if value not in {"", 0}],
        **({"status": {"code": _ERROR}} if status >= 500 else {}),
    }


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace")


def _attribute(key: str, value: str | int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
