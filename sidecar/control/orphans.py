"""Processes that lost their parent: they become ours, and somebody has to bury them.

The kernel hands an orphan to process 1 of the container, or to the nearest ancestor that asked for it. Whoever runs a
service asks: else zombies fill the process table, and what a dead service left behind is out of reach.

Telling orphans from children that the event loop waits for is by time: the loop buries its own as soon as it turns, so
who is dead in two looks a second apart is nobody else's.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from pathlib import Path
from time import monotonic

LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.01
_PR_SET_CHILD_SUBREAPER = 36
_DEAD = os.WEXITED | os.WNOHANG | os.WNOWAIT


def adopt() -> None:
    """Ask the kernel for the orphans among our descendants."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def bury() -> None:
    """Reap orphans for ever. Run by the supervisor."""
    seen: set[int] = set()
    while True:
        seen = _look(seen)
        await asyncio.sleep(LOOK_SECONDS)


def _look(seen: set[int]) -> set[int]:
    """Reap who was dead the last time already; returns who is dead now for the first time."""
    with contextlib.suppress(ChildProcessError):
        first = os.waitid(os.P_ALL, 0, _DEAD)
        if first is not None:
            dead = {first.si_pid, *(pid for pid in children() if _is_dead(pid))}
            for pid in dead & seen:
                _reap(pid)
            return dead - seen
    return set()


async def end_all(within: float) -> None:
    """End every process that is still our child, orphans that come meanwhile too: SIGTERM, after `within` s SIGKILL."""
    kill_at = monotonic() + within
    told: set[int] = set()
    while left := children():
        late = monotonic() >= kill_at
        for pid in left:
            if _is_dead(pid):
                _reap(pid)
            elif late or pid not in told:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        if monotonic() >= kill_at + within:
            return  # not even SIGKILL ends what waits for a dead disk
        await asyncio.sleep(_POLL_SECONDS)


def children() -> set[int]:
    """Our children, dead ones too; empty where the kernel does not list them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.update(int(word) for word in (task / "children").read_text().split())
    return found


def _is_dead(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, _DEAD) is not None
    except ChildProcessError:
        return False  # somebody reaped it


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
