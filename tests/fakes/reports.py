"""Runs a source of endpoints and remembers what it reports."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sidecar.control.resolvers import Source
from sidecar.machines.membership import Answer

PATIENCE = 30.0


class Reports:
    """Whom the source tells."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._changed = asyncio.Event()

    async def found(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._changed.set()

    def failed(self, reason: str) -> None:
        self.failures.append(reason)
        self._changed.set()

    @property
    def last(self) -> list[str]:
        """The addresses of the last answer."""
        return sorted(one.address for one in self.answers[-1].members) if self.answers else []

    async def until(self, true) -> None:
        """Wait until `true()`, which is asked at each report."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def see(self, *addresses: str) -> None:
        """Wait until these are the answer."""
        await self.until(lambda: self.answers and self.last == sorted(addresses))

    async def fail(self) -> str:
        """Wait for another failure; returns its reason."""
        count = len(self.failures)
        await self.until(lambda: len(self.failures) > count)
        return self.failures[-1]


@contextlib.asynccontextmanager
async def watching(source: Source) -> AsyncIterator[Reports]:
    """The source runs inside; whatever it raises fails the test."""
    reports = Reports()
    task = asyncio.ensure_future(source.run(reports))
    try:
        yield reports
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
