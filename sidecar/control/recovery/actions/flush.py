"""Forget what may be stale of an upstream: its idle connections, or the answers kept for its fallbacks."""

from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import Surroundings


class FlushPool(Plain):
    """Closes the idle connections, in every worker; the next request opens a new one and resolves the name anew."""

    strategy = "flush_pool"

    def __init__(self, upstream: str, around: Surroundings) -> None:
        self._upstream = upstream
        self._around = around

    async def run(self) -> str:
        await self._around.serve("flush_pool", self._upstream)
        return f"idle connections to {self._upstream} closed"


class ClearCache(Plain):
    """Forgets kept answers, in every worker."""

    strategy = "clear_cache"

    def __init__(self, upstream: str, around: Surroundings) -> None:
        self._upstream = upstream
        self._around = around

    async def run(self) -> str:
        await self._around.serve("clear_cache", self._upstream)
        return f"answers kept for {self._upstream} forgotten"
