"""Answers that the proxy makes itself: canonical, small, and saying why.

Each carries `X-Sidecar-Decision` with the one word that metric and access log use too, and a JSON body
for people and programs. A HEAD request gets the same head without the body.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from sidecar.base.names import Decision

if TYPE_CHECKING:
    from sidecar.base.errors import RequestFault

REASONS: dict[int, bytes] = {status.value: status.phrase.encode() for status in HTTPStatus}
REASONS[413] = b"Content Too Large"

_ALLOW = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_encode = msgspec.json.encode


def own_answer(
    status: int,
    decision: Decision,
    detail: str,
    *,
    keep_alive: bool,
    method: bytes = b"GET",
    request_id: bytes | None = None,
    retry_after: float | None = None,
    allow: bytes | None = None,
) -> bytes:
    """The whole answer as bytes. `retry_after` in seconds is rounded up and never below 1; `request_id` is what the
    access log calls the request.
    """
    body = _encode({"error": decision.value, "status": status, "message": detail})
    lines = [
        b"HTTP/1.1 %d %s" % (status, REASONS.get(status, b"Unknown")),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b"X-Sidecar-Decision: " + decision.value.encode(),
    ]
    if request_id is not None:
        lines.append(b"X-Request-Id: " + request_id)
    if retry_after is not None:
        lines.append(b"Retry-After: %d" % max(1, math.ceil(retry_after)))
    if allow is not None:
        lines.append(b"Allow: " + allow)
    if not keep_alive:
        lines.append(b"Connection: close")
    lines.append(b"")
    lines.append(b"" if method == b"HEAD" else body)
    return b"\r\n".join(lines)


def fault_answer(
    fault: RequestFault, request_id: bytes | None = None, *, keep_alive: bool, method: bytes = b"GET"
) -> bytes:
    """`fault` as an answer; what a refusal knows beyond its words (Retry-After, Allow) goes along."""
    return own_answer(
        fault.status,
        fault.decision,
        fault.detail,
        keep_alive=keep_alive,
        method=method,
        request_id=request_id,
        retry_after=getattr(fault, "retry_after", None),
        allow=_ALLOW if fault.status == HTTPStatus.METHOD_NOT_ALLOWED else None,
    )
