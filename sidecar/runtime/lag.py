"""How late the event loop runs what is due: the first figure to look at when everything is a little slow."""

import asyncio

from sidecar.runtime.series import Histogram

INTERVAL = 0.5
"""Seconds between two probes."""


async def probe(lag: Histogram, interval: float = INTERVAL) -> None:
    """Observe the loop's lag for ever. Run by the supervisor."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + interval
        await asyncio.sleep(interval)
        lag.observe(max(0.0, clock() - due))
