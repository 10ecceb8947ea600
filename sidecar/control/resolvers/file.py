"""Endpoints from a file that somebody else writes: a list in YAML or JSON, watched by its content.

As with the configuration, what counts is what is read through the path as it was given, so that a ConfigMap's swapped
symlink, a rename and a write in place are all noticed. A file that is bad or gone is a failure, never an empty list.
"""

import asyncio
import random

from sidecar.base.backoff import spread
from sidecar.config.endpoint_file import parse_endpoints
from sidecar.config.faults import InvalidConfig
from sidecar.control.resolvers import Report
from sidecar.machines.membership import Answer, Member

MAX_BYTES = 1 << 20
_JITTER = 0.1


class FileSource:
    """One watched file."""

    kind = "file"

    def __init__(self, path: str, refresh: float) -> None:
        """`refresh`: seconds between two looks."""
        self.target = path
        self._refresh = refresh

    async def run(self, report: Report) -> None:
        seen: bytes | None = None
        result: Answer | str = ""  # what `seen` meant
        while True:
            try:
                data = await asyncio.to_thread(_read, self.target)
                if data != seen:
                    result = await asyncio.to_thread(_understand, data, self.target)
                    seen = data
                now = result
            except OSError as error:
                now = f"{self.target}: {error.strerror or error}"
            if isinstance(now, Answer):
                await report.found(now)
            else:
                report.failed(now)
            await asyncio.sleep(spread(self._refresh, _JITTER, random.random))


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _understand(data: bytes, path: str) -> Answer | str:
    if len(data) > MAX_BYTES:
        return f"{path}: larger than {MAX_BYTES >> 20} MiB"
    try:
        endpoints = parse_endpoints(data, path)
    except InvalidConfig as error:
        first, *more = error.faults
        return f"{first}; and {len(more)} more" if more else str(first)
    return Answer(tuple(Member(one.address, one.weight, one.priority) for one in endpoints))
