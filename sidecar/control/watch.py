"""Watch: tell when the mounted configuration changed.

Kubernetes swaps a ConfigMap by pointing the symlink `..data` elsewhere; editors write a new file and rename it;
others write in place. All of these show in the content, so the content is what we look at, every two seconds, through
the path as it was given. What was seen once is not told twice, good or bad.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

INTERVAL = 2.0
"""Seconds between two looks."""
_MAX_BYTES = 1 << 20


def digest(path: str) -> str | None:
    """What identifies the file's present content; None while it cannot be read, as in the middle of a swap."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.sha256(stream.read(_MAX_BYTES + 1)).hexdigest()
    except OSError:
        return None


async def watch(path: str, changed: Callable[[], Awaitable[object]], interval: float = INTERVAL) -> None:
    """Call `changed` whenever the content at `path` is another one than at the last look. Runs until cancelled."""
    seen = digest(path)
    while True:
        await asyncio.sleep(interval)
        found = await asyncio.to_thread(digest, path)
        if found is not None and found != seen:
            seen = found
            await changed()
