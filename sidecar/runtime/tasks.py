"""One owner for every task that runs in the background.

Theory. A background task that dies unseen is the classic silent failure: watches that no longer watch. So nobody calls
`asyncio.create_task` for upkeep; they ask the supervisor. It starts the task, starts it again with growing pauses when
it fails (each failure is logged and counted), forgets it when it returns, and at stop cancels and awaits every one.

Rules. A task that ran for RESET_AFTER seconds has earned a fresh backoff. `CancelledError` ends a task for good. What a
task must give back (connections, leases, permits) it gives back in its own `finally`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry
from sidecar.runtime.series import TASK_CRASHES

FIRST_PAUSE, LONGEST_PAUSE, RESET_AFTER = 0.1, 30.0, 60.0
"""Seconds."""

_log = Log(__name__)


class Supervisor:
    """Starts, restarts and ends background tasks of one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Keep `work()` running until it returns or is ended. A second start under a running name is an error."""
        if name in self._tasks:
            raise ValueError(f"a task named {name} is running")
        task = asyncio.get_running_loop().create_task(self._keep(name, work), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._forget(name, done))

    def running(self) -> list[str]:
        """Names of the tasks that run or wait to be started again."""
        return list(self._tasks)

    def cancel(self, name: str) -> None:
        """Let one task end by itself; an unknown name is no error."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()

    async def end(self, name: str) -> None:
        """Cancel one task and wait for it; an unknown name is no error."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def stop(self, within: float = 5.0) -> None:
        """Cancel all tasks and wait until they ended, at most so many seconds; stragglers are logged and left."""
        tasks = set(self._tasks.values()) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                _log.warning("task_did_not_end", task=task.get_name())

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        clock = asyncio.get_running_loop().time
        pause = FIRST_PAUSE
        while True:
            started = clock()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
                if clock() - started >= RESET_AFTER:
                    pause = FIRST_PAUSE
                self._registry.cell(TASK_CRASHES, name).value += 1
                _log.error("task_failed", error=error, task=name, again_in_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return
