"""Handing over: what the running program does for its successor, and how it starts one.

The protocol stands in `control/handover.py`. One successor at a time. Until it says that it serves, we let go of
nothing: it gets copies of our sockets, we hold our accepting for the moment between its Ready and its Serving, and take
it up again when it dies, refuses or takes too long. Holding costs nobody anything: who knocks waits in the kernel's
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

from sidecar import __version__
from sidecar.control.handover import (
    MAX_AT_ONCE,
    PROTOCOL,
    Goodbye,
    Hello,
    Line,
    More,
    Offer,
    Ready,
    Refusal,
    Serving,
    TakeOverFailed,
    Yours,
    expect,
)
from sidecar.runtime.admin_doors import Refused
from sidecar.runtime.logs import Log
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from sidecar.control.handover import Place, Standing
    from sidecar.runtime.observer import Observer
    from sidecar.runtime.tasks import Supervisor

_log = Log(__name__)

START_SECONDS = 60.0
"""A successor that has not started by then is given up."""
COMMIT_SECONDS = 5.0
"""So long we hold our accepting at most."""
SPAWNED_SECONDS = 25.0
"""A successor that we started ourselves: below what the admin interface waits for an answer."""


class Estate(Protocol):
    """What there is to hand over: the program."""

    async def settled(self) -> None:
        """Wait until it has taken over itself: its own predecessor may be about to let go of the last."""

    def objection(self) -> str:
        """Why it cannot be handed over; empty: it can."""
        ...

    def places(self) -> list[tuple[Place, int]]:
        """Every listening socket."""
        ...

    async def standing(self) -> Standing:
        """What a successor should know."""
        ...

    async def hold(self) -> None:
        """Accept nobody for the moment."""

    async def release(self) -> None:
        """Accept again."""

    async def cede(self, successor: int) -> None:
        """The service is that process from now on: what only one may do, it does. It waits until this is over."""

    async def leave(self, left: Sequence[Place]) -> None:
        """Let go and end, but for the places that the successor `left`: nobody has those any more."""


class HandingOver:
    """The running program's part."""

    def __init__(self, estate: Estate, service: str, tasks: Supervisor, observer: Observer) -> None:
        self._estate = estate
        self._service = service
        self._tasks = tasks
        self._observer = observer
        self._successor = 0
        self._line: Line | None = None  # to a successor that has not committed yet
        self._failure = ""
        self._over = asyncio.Event()

    def check(self) -> None:
        """Raises Refused when a successor cannot have what is ours."""
        objection = self._estate.objection()
        if not objection and self._successor:
            objection = f"process {self._successor} is about to take over already"
        if objection:
            raise Refused(409, objection)

    def begin(self, sock: socket.socket) -> None:
        """A successor is at the other end of `sock`."""
        line = Line(sock)
        self._tasks.start(f"hand-over-{sock.fileno()}", lambda: self._serve(line))

    async def spawn(self, config: str, admin_socket: str, environment: Mapping[str, str]) -> str:
        """Start a successor and wait until it has taken over; what came of it. Raises Refused."""
        self.check()
        self._failure = ""
        # to start a program is what was asked for; fork and exec take a few milliseconds
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "sidecar", "run", "-c", config, f"--take-over={admin_socket}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        ended = asyncio.Event()
        watched = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(watched, ended.set)
        try:
            waits = [asyncio.ensure_future(one.wait()) for one in (ended, self._over)]
            await asyncio.wait(waits, timeout=SPAWNED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
            if not self._over.is_set():
                process.kill()
                process.wait()
        if self._over.is_set():
            return f"process {process.pid} serves; this one ends when its last request has"
        code = process.returncode
        why = self._failure or (f"it ended with {code}" if ended.is_set() else "it did not start in time")
        raise Refused(500, f"the successor did not take over: {why}; this process goes on as before")

    async def call_off(self, why: str) -> None:
        """Nobody shall take over any more: this program ends, and means it."""
        if self._line is not None:
            await _refuse(self._line, why)

    # One successor ----------------------------------------------------------------------------------------------------

    async def _serve(self, line: Line) -> None:
        if line.closed:
            return  # what went wrong stands in the log
        try:
            hello = await line.receive()
            if not isinstance(hello, Hello):
                return
            await self._estate.settled()
            self.check()
            if hello.protocol != PROTOCOL:
                raise TakeOverFailed(f"it speaks protocol {hello.protocol}, this one {PROTOCOL}: stop this one first")
            self._successor, self._line = hello.pid, line
        except Refused as refused:
            await _refuse(line, str(refused))
            return
        except (TimeoutError, TakeOverFailed, OSError) as error:
            await _refuse(line, str(error))
            return
        finally:
            if not self._successor:
                line.close()
        try:
            left = await self._hand_over(line)
        except (TakeOverFailed, TimeoutError, OSError) as error:
            self._failed(str(error) or "it did not answer in time")
            await _refuse(line, self._failure)
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave the successor without a word
            _log.error("hand_over_broke", error=error)
            self._failed(f"a fault in this process: {error!r}")
            await _refuse(line, self._failure)
            return
        else:
            self._over.set()
            self._observer.tell(Kind.HANDED_OVER, self._service, successor=self._successor)
            try:
                await self._estate.cede(self._successor)
            finally:
                line.close()
                await self._estate.leave(left)
        finally:
            self._successor, self._line = 0, None
            line.close()

    async def _hand_over(self, line: Line) -> list[Place]:
        """Everything up to the successor's last word; raises TakeOverFailed, TimeoutError, OSError."""
        places = self._estate.places()
        await line.send(Offer(__version__, os.getpid(), [place for place, _ in places], await self._estate.standing()))
        own = os.pidfd_open(os.getpid())
        try:
            descriptors = [own, *(number for _, number in places)]
            for begin in range(0, len(descriptors), MAX_AT_ONCE):
                await line.send(More(), descriptors[begin : begin + MAX_AT_ONCE])
        finally:
            os.close(own)
        expect(Ready, await line.receive(START_SECONDS))
        objection = self._estate.objection()
        if objection:
            raise TakeOverFailed(objection)
        await self._estate.hold()
        try:
            await line.send(Yours(await self._estate.standing()))
            serving = expect(Serving, await line.receive(COMMIT_SECONDS))
            await line.send(Goodbye())
        except BaseException:
            await self._estate.release()
            raise
        return list(serving.left)

    def _failed(self, why: str) -> None:
        self._failure = why
        self._observer.tell(
            Kind.HAND_OVER_FAILED, self._service, level=Level.WARNING, reason=why, successor=self._successor
        )


async def _refuse(line: Line, reason: str) -> None:
    with contextlib.suppress(OSError):
        await line.send(Refusal(reason))
