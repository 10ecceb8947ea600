"""What systemd wants to hear of a service of `Type=notify`: that it is ready, reloads, stops, and still turns.

The protocol is datagrams of `NAME=value` lines to the socket that `$NOTIFY_SOCKET` names (sd_notify(3)); a name that
begins with `@` is in the abstract namespace. With `WatchdogSec=` systemd names a period in `$WATCHDOG_USEC`: we say
WATCHDOG=1 twice in it, from the event loop itself, so that a loop that no longer turns is noticed and ended.

The variables are taken out of the environment: what we start must not speak in our name. Without them nothing happens,
and a socket that does not take our word costs nothing but that word.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping
from time import monotonic_ns

_FOR_A_SUCCESSOR = ("NOTIFY_SOCKET", "WATCHDOG_USEC")
"""Without WATCHDOG_PID: the process that is meant changes."""


class Systemd:
    """The line to the service manager, if there is one."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        given = {name: environment[name] for name in _FOR_A_SUCCESSOR if name in environment}
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        for_pid = environment.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        meant = for_pid in {"", str(os.getpid())}
        self.watchdog_seconds = int(period) / 1e6 if self._address and meant and period.isdecimal() else 0.0
        """The period in which a sign of life is expected; 0: none is."""
        self.for_a_successor = given
        """The variables that a program needs which is to take our place."""

    def ready(self, status: str) -> None:
        """The start, or a reload, is over; `status` is one line for `systemctl status`."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._tell("STOPPING=1", "STATUS=stopping: what runs may finish")

    def succeeded_by(self, pid: int) -> None:
        """Another process is the service from now on: systemd watches that one, and hears it."""
        self._tell(f"MAINPID={pid}")

    async def pat(self) -> None:
        """Give signs of life until cancelled; returns at once when nobody waits for them."""
        while self.watchdog_seconds > 0.0:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto("\n".join(lines).encode(), self._address)
