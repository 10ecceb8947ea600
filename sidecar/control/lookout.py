"""Looks at the program for all who follow the status page: one look at a time, however many follow.

Theory. A look costs the event loop some milliseconds, more with many endpoints, and the loop is the traffic's. So all
who wait for the next look share it. It comes when something happens, else after EVERY seconds, and after a look that
was long not before SHARE of the time has gone to it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic, thread_time
from typing import Any

from sidecar.control.page import Sight

EVERY = 1.0
"""Seconds between two looks; what happens is seen at once."""
GAP = 0.1
"""Seconds between two looks at least, whatever happens."""
LONGEST_GAP = 0.5
SHARE = 0.05
"""Of the time, that looks may take when much happens."""


class Lookout:
    """What was seen last, and who waits for more."""

    def __init__(self, status: Callable[[], Awaitable[dict[str, Any]]], news: Callable[[int], Awaitable[int]]) -> None:
        """`status`: what the page shows; `news(seen)`: how much has happened, once it is more than `seen`."""
        self._status = status
        self._news = news
        self._happened = -1
        self._gap = GAP
        self._at = 0.0
        self._seen: Sight | None = None
        self._coming: asyncio.Task[Sight] | None = None

    async def after(self, last: Sight | None) -> Sight:
        """The newest sight, once there is another than `last`; the first may be EVERY seconds old."""
        if self._seen is not None and self._seen is not last and monotonic() - self._at < EVERY:
            return self._seen
        if self._coming is None:
            self._coming = asyncio.create_task(self._look(wait=last is not None))
            self._coming.add_done_callback(_heed)
        return await asyncio.shield(self._coming)

    async def _look(self, *, wait: bool) -> Sight:
        try:
            if wait:
                await asyncio.sleep(self._gap)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY - self._gap):
                        self._happened = await self._news(self._happened)
            else:
                self._happened = await self._news(-1)
            began = thread_time()
            status = await self._status()
            self._at = monotonic()
            self._seen = Sight(status, self._at)
            self._gap = min(LONGEST_GAP, max(GAP, (thread_time() - began) / SHARE))
            return self._seen
        finally:
            self._coming = None


def _heed(task: asyncio.Task[Sight]) -> None:
    """A fault is told by who waits for the sight; nobody may."""
    if not task.cancelled():
        task.exception()
