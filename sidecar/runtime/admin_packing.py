"""Answers of the admin interface, packed with gzip for whoever takes that: the status page, its files and its stream.

Theory. The page of a large estate repeats itself so much that it packs to a sixteenth. What machines scrape is left as
it is: packing is our CPU, and they are near. Nothing here is secret, so that lengths tell nothing (BREACH).
"""

import contextlib
import gzip
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.runtime.admin_http import Request, Response

PACKED = {"text/html", "text/css", "text/javascript", "text/event-stream"}
_LEVEL = 1
_GZIP = 31
"""zlib's word for a window of 32 KiB in gzip's frame."""
_TAKES = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?:,|\s|$))")


def packed(request: "Request", response: "Response") -> "Response":
    """The same answer, packed when it is of a kind that is, and the client takes it."""
    kind = response.content_type.partition(";")[0]
    if response.status != 200 or kind not in PACKED or not _TAKES.search(request.fields.get("accept-encoding", "")):
        return response
    body = response.body
    return replace(
        response,
        body=gzip.compress(body, _LEVEL, mtime=0) if isinstance(body, bytes) else _stream(body),
        fields=(*response.fields, ("content-encoding", "gzip")),
    )


async def _stream(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece such that it can be read at once; an empty one stays empty."""
    squeeze = zlib.compressobj(_LEVEL, wbits=_GZIP)
    async with contextlib.aclosing(pieces):  # type: ignore[type-var]  # a generator, in fact
        async for piece in pieces:
            yield squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH) if piece else b""
