"""A thread for work that waits: the loop goes on turning, and the work can be told to stop.

Each piece of work gets a thread of its own that the end of the process does not wait for: what it does is safe to be
killed at any moment. While it works it tells how far it is, and there it hears that it should stop.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sidecar.agent.cycle import Stopped
from sidecar.agent.ports import Progress, Tell

Result = TypeVar("Result")
GENTLY = 3.0
"""Seconds for what was stopped to end."""


class Lane:
    """Does one piece of work after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress: Progress | None = None
        """How far the work under way is; None: there is none, or it has not said."""
        self.busy = False
        self._stopping = threading.Event()
        self._closed = False
        self._idle: asyncio.Future[Any] | None = None

    def stop(self) -> None:
        """What is under way stops when it next tells how far it is; nothing begins any more."""
        self._stopping.set()

    @property
    def resting(self) -> bool:
        """Whether nothing begins any more."""
        return self._closed

    async def rest(self, within: float) -> None:
        """Nothing begins any more; what is under way may take so many seconds, and is stopped then.

        Programs that it runs get a moment to end by themselves: a killed one leaves its lock behind.
        """
        self._closed = True
        if self._idle is not None:
            await asyncio.wait([self._idle], timeout=within)
        self.stop()
        if self._idle is not None:
            await asyncio.wait([self._idle], timeout=GENTLY)

    async def do(self, work: Callable[[Tell], Result], until: Callable[[], bool] | None = None) -> Result:
        """Run `work(tell)` in a thread; what it returns or raises. `until`: stop it once this holds."""
        if self._closed or self._stopping.is_set():
            raise Stopped("the agent is stopping")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def tell(progress: Progress) -> None:
            self.progress = progress
            if self._stopping.is_set() or (until is not None and until()):
                raise Stopped("it was told to stop")

        def run() -> None:
            try:
                result = work(tell)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                _hand_over(loop, done, None, error)
            else:
                _hand_over(loop, done, result, None)

        self.busy = True
        self._idle = done
        try:
            threading.Thread(target=run, name=self.name, daemon=True).start()
            return await done
        finally:
            self.busy = False
            self._idle = None
            self.progress = None


def _hand_over(
    loop: asyncio.AbstractEventLoop, done: "asyncio.Future[Any]", result: Any, error: BaseException | None
) -> None:
    def settle() -> None:
        if not done.done():
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
