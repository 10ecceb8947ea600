"""Signal the service's process by its name, in a shared PID namespace (`shareProcessNamespace: true`).

A name is what `ps -o comm` shows, or the file name of the program. All processes of that name get the signal, never we
ourselves, our workers or our agent. After SIGTERM, SIGINT or SIGQUIT a stopped process is continued, so that it hears
them, and who is still there two seconds later is killed. Whether somebody is another process is told by its number and
its start time.
"""

import asyncio
import contextlib
import os
import signal
from time import monotonic

from sidecar.control.recovery.actions.base import Plain
from sidecar.control.recovery.ports import ActionFailed
from sidecar.machines.supervision import KILL_AFTER

_POLITE = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
_ENDING = _POLITE | {signal.SIGKILL, signal.SIGABRT}
_COMM = 15
"""The kernel keeps so many characters of a name."""
_POLL_SECONDS = 0.05


class SignalProcess(Plain):
    """Sends `number` to every process of that name."""

    strategy = "signal"

    def __init__(self, process: str, name: str) -> None:
        self._process = process
        self._name = name
        self._signal = getattr(signal, name, None)
        self._told: set[tuple[int, str]] = set()
        self.restarts = self._signal in _ENDING

    async def run(self) -> str:
        if not isinstance(self._signal, signal.Signals):
            raise ActionFailed(f"this system knows no {self._name}")
        self._told = found = await asyncio.to_thread(find, self._process)
        if not found:
            raise ActionFailed(
                f"no process named {self._process} is to be seen; does the pod say shareProcessNamespace: true?"
            )
        for pid, _ in found:
            _send(pid, self._signal)
        if self._signal in _POLITE:
            for pid, _ in found:
                _send(pid, signal.SIGCONT)
            await self._insist()
        return f"{self._name} to {', '.join(str(pid) for pid, _ in sorted(found))}"

    async def _insist(self) -> None:
        deadline = monotonic() + KILL_AFTER
        while left := await asyncio.to_thread(find, self._process) & self._told:
            if monotonic() >= deadline:
                for pid, _ in left:
                    _send(pid, signal.SIGKILL)
                return
            await asyncio.sleep(_POLL_SECONDS)

    def renewed(self) -> bool:
        if not self.restarts:
            return True
        present = find(self._process)
        return bool(present) and not present & self._told


def find(name: str) -> set[tuple[int, str]]:
    """The processes of that name: number and start time. Ours are left out, and so are the dead."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                comm, start = _stat(entry)
                words = _read(f"/proc/{entry}/cmdline").split("\0")
                named = comm == name[:_COMM] or os.path.basename(words[0]) == name
                if named and start and not _ours(words):
                    found.add((int(entry), start))
    return found


def _stat(pid: str) -> tuple[str, str]:
    """Name and start time; an empty start time for a dead one."""
    head, _, tail = _read(f"/proc/{pid}/stat").rpartition(")")
    words = tail.split()
    return head.partition("(")[2], "" if words[0] in {"Z", "X"} else words[19]


def _ours(words: list[str]) -> bool:
    return "sidecar" in {os.path.basename(word) for word in words[:3]} or "sidecar.app.process" in words


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(65536)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ActionFailed(f"process {pid} may not be signalled: it runs as another user") from None
