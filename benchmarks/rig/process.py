"""A process tree on one core: start it, ask what it has cost, end it.

CPU time is the scheduler's own account in nanoseconds (`/proc/PID/task/*/schedstat`), summed over every thread of every
process of the tree, because a peer's helper process costs the machine as much as its worker does. Where the kernel
keeps no such account, user and system ticks of `/proc/PID/stat` stand in (10 ms steps). Each tree is a session of its
own, so that ending it ends all of it and nothing else.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


class StartFailed(RuntimeError):
    """The process ended or did not answer in time; the message ends with its last words."""


class Process:
    """A started command and its children, pinned to `core`."""

    def __init__(self, name: str, argv: list[str], core: int, log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as sink:
            self.popen = subprocess.Popen(
                ["taskset", "-c", str(core), *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )

    def tree(self) -> list[int]:
        """Process ids of the tree, the root first."""
        found = [self.popen.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    found.extend(int(child) for child in (task / "children").read_text().split())
                except OSError:  # it ended between the listing and the reading
                    continue
        return found

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree so far."""
        return sum(_cpu_of(pid) for pid in self.tree())

    def rss_kib(self) -> int:
        """Resident memory, summed over the tree."""
        return sum(_status_kib(pid, "VmRSS") for pid in self.tree())

    def peak_kib(self) -> int:
        """Highest resident memory since `reset_peak`, summed over the tree."""
        return sum(_status_kib(pid, "VmHWM") for pid in self.tree())

    def reset_peak(self) -> None:
        """From now on `peak_kib` counts anew."""
        for pid in self.tree():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def wait_listening(self, port: int, seconds: float = 30.0) -> None:
        """Until something accepts connections on `port`; StartFailed after `seconds` or when the process ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.002)
            else:
                return
        raise StartFailed(f"{self.name} does not listen on {port}: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM to the whole session, SIGKILL to what is left after `grace` seconds."""
        _signal_group(self.popen.pid, signal.SIGTERM)
        try:
            self.popen.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        _signal_group(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """Ends the process at the block's end, whatever happened inside."""
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, below those the kernel gives to outgoing connections: between this
    look and the listener's start, the load of another peer must not happen to take it.
    """
    for port in random.SystemRandom().sample(range(12_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartFailed("no free port between 12000 and 32000")


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def _cpu_of(pid: int) -> float:
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    if nanoseconds:
        return nanoseconds / 1e9
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _status_kib(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)
