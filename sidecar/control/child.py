"""The supervised service process: started, watched, started again, ended with all that it started.

When is `machines/supervision.py`'s decision; this does it.

* It runs in a session, and so a process group, of its own: a terminal's Ctrl-C reaches us alone, and we end it after
  its last request. It has our environment and our stdin, stdout and stderr as they are; nothing of its output passes
  through us. It has none of our descriptors, blocks and ignores no signals, and gets SIGTERM when we are killed.
* A dead process may leave others of its group behind, who hold its port: they are ended before it is started again.
* Started by `subprocess`, not by the event loop: uvloop's copies of stdio leak into the child. A thread waits for
  its end without reaping it: until we have seen that end, no other process can get its number.
"""

import asyncio
import contextlib
import ctypes
import errno
import math
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from sidecar.base.errors import ConfigError
from sidecar.machines.supervision import KILL_AFTER, ChildState, Supervision
from sidecar.machines.transition import Transition
from sidecar.runtime import series
from sidecar.runtime.logs import Log
from sidecar.runtime.metrics import Registry
from sidecar.runtime.observer import Kind, Level, Observer
from sidecar.runtime.tasks import Supervisor

_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = Log(__name__)


class Child:
    """One command and its process."""

    def __init__(
        self,
        command: Sequence[str],
        registry: Registry,
        tasks: Supervisor,
        observer: Observer,
        finished: Callable[[], None],
    ) -> None:
        """`finished` is called when the process ended with 0."""
        self._command = tuple(command)
        self._tasks = tasks
        self._observer = observer
        self._finished = finished
        self._machine = Supervision()
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None  # forgotten when it is empty: its number may then become somebody else's
        self._gone = asyncio.Event()  # the process died and is not reaped yet
        self._kill_at = 0.0
        self._forced = False
        self._held = False  # somebody wants it to stand still
        self._ordered = asyncio.Event()  # somebody wants it started anew
        self._born = asyncio.Event()  # set, and replaced, at every start and every start that failed
        self.may_start_at: Callable[[float], float] = lambda now: now
        """Asked before each start but the first and those that were ordered: when it may be."""
        self._since = datetime.now(UTC)
        self._last_exit: str | None = None
        self._restarted, self._failed = (
            registry.cell(series.RECOVERY_ATTEMPTS, "process", result) for result in ("started", "failed")
        )

    def start(self, *, held: bool = False) -> None:
        """Start it and watch over it; raises ConfigError when there is nothing that could be started.

        `held`: not before `release`.
        """
        self._held = held
        if not held:
            try:
                self._spawn()
            except (OSError, subprocess.SubprocessError) as error:
                raise ConfigError(f"cannot run {self._command[0]!r}: {_advice(error)}") from None
        self._tasks.start("child", self._keep)

    async def stop(self) -> None:
        """End it and its group: SIGTERM, 2 s later SIGKILL. Returns when they are gone."""
        if self._process is None:
            return
        self._took(self._machine.stop(monotonic()))
        await self._tasks.end("child")
        told = self._machine.state is ChildState.STOPPING
        if told:
            _log.info("child_stopping", pid=self._process.pid)
        await self._end_group()
        code = self._process.poll()
        if told and code is not None:
            self._last_exit = _exit(code)
            self._took(self._machine.exited(monotonic(), code))
            _log.info("child_stopped", pid=self._process.pid, exit=self._last_exit)

    async def restart(self) -> bool:
        """End it and its group and start it anew, or start it now when it waits for its turn. False: it cannot be.

        Goes on when the caller is cancelled.
        """
        change = self._machine.order(monotonic())
        if change is None and self._machine.state is not ChildState.STARTING:
            return False
        self._took(change)
        born = self._born
        self._ordered.set()
        await born.wait()
        return self._machine.state is ChildState.RUNNING

    async def hold(self) -> bool:
        """End it and its group, and start it no more until `release`. False: it ended for good.

        Goes on when the caller is cancelled.
        """
        self._held = True
        if self._machine.state is ChildState.RUNNING:
            self._took(self._machine.order(monotonic()))
            self._ordered.set()
        while self._machine.state in {ChildState.RUNNING, ChildState.RESTARTING, ChildState.STARTING}:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        return self._machine.state is ChildState.BACKING_OFF

    async def release(self) -> bool:
        """Start what was held. False: it did not start, or will not any more."""
        self._held = False
        return self._machine.state is ChildState.RUNNING or await self.restart()

    def proved(self) -> None:
        """It was seen to work: earlier deaths are forgotten."""
        self._machine.proved()

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        running = self._machine.state is ChildState.RUNNING and self._process is not None
        return self._process.pid if running and self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether it is there; what is being started anew is not."""
        return self._machine.state is ChildState.RUNNING

    def stopped(self) -> bool:
        """Whether the kernel keeps it from running: SIGSTOP, a debugger."""
        if not self.running:
            return False
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as stream:
                return stream.read().rpartition(")")[2].split()[0] in {"T", "t"}
        except (OSError, IndexError):
            return False

    def force(self) -> None:
        """No more patience: SIGKILL now, or as soon as it is to be ended."""
        self._forced = True
        self._kill_at = 0.0
        self._signal(signal.SIGKILL)

    @property
    def patience(self) -> float:
        """Seconds between SIGTERM and SIGKILL for whoever outlives it."""
        return 0.0 if self._forced else KILL_AFTER

    def view(self) -> dict[str, Any]:
        """For the status: pid (null while there is none), state, restarts, since (UTC), last_exit (null: none yet)."""
        still = self._held and self._machine.state is ChildState.BACKING_OFF
        alive = self._machine.state in {ChildState.RUNNING, ChildState.RESTARTING, ChildState.STOPPING}
        return {
            "pid": self._process.pid if alive and self._process is not None else None,
            "state": "held" if still else self._machine.state.value,
            "restarts": self._machine.restarts,
            "since": self._since.isoformat(timespec="milliseconds"),
            "last_exit": self._last_exit,
        }

    # The watch ----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """From state to state until it has ended."""
        while True:
            match self._machine.state:
                case ChildState.RUNNING:
                    await _either(self._gone, self._ordered)
                    if self._machine.state is ChildState.RUNNING:
                        self._ordered.clear()  # it was ordered while it started
                        if self._gone.is_set():
                            await self._mourn()
                case ChildState.RESTARTING:
                    await self._end_for_another()
                case ChildState.BACKING_OFF:
                    wait = max(0.0, (self._machine.due or 0.0) - monotonic())
                    await _either(self._ordered, within=None if math.isinf(wait) else wait)
                    self._took(self._machine.tick(monotonic()))
                case ChildState.STARTING:
                    self._start_again()
                case ChildState.STOPPING | ChildState.ENDED:
                    return

    async def _end_for_another(self) -> None:
        """Somebody wants another process in its place."""
        process = self._process
        assert process is not None, "it ran"
        _log.info("child_restarting", pid=process.pid)
        await self._end_group()
        code = process.poll()
        while code is None:  # not even SIGKILL ended it; another beside it would find its port taken
            await asyncio.sleep(_POLL_SECONDS * 10)
            code = process.poll()
        self._last_exit = _exit(code)
        self._took(self._machine.exited(monotonic(), code))

    async def _mourn(self) -> None:
        """It ended: say so, and see that nothing of its group stays."""
        process = self._process
        assert process is not None, "it ran"
        code = process.wait()
        now = monotonic()
        self._last_exit = _exit(code)
        self._took(self._machine.exited(now, code))
        if self._machine.state is ChildState.ENDED:
            self._tell(Kind.CHILD_FINISHED, pid=process.pid)
            self._finished()
            return
        wait = 0.0 if self._machine.due is None else self._machine.due - now
        self._tell(Kind.CHILD_DIED, Level.ERROR, pid=process.pid, exit=self._last_exit, again_in_seconds=wait)
        await self._end_group()

    def _start_again(self) -> None:
        now = monotonic()
        ordered = self._ordered.is_set()
        self._ordered.clear()
        if self._held:
            self._took(self._machine.held(now, math.inf))
            _log.warning("child_held_stopped", advice="somebody asked for it: POST /api/v1/service/release")
            self._born.set()
            self._born = asyncio.Event()
            return
        until = now if ordered else self.may_start_at(now)
        if until > now:
            self._took(self._machine.held(now, until))
            _log.error("child_held", again_in_seconds=round(until - now, 1), advice="it dies again and again")
            return
        try:
            self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            self._failed.value += 1
            now = monotonic()
            self._took(self._machine.start_failed(now))
            wait = (self._machine.due or now) - now
            self._tell(Kind.CHILD_START_FAILED, Level.ERROR, reason=str(error), again_in_seconds=wait)
        else:
            self._restarted.value += 1
        self._born.set()
        self._born = asyncio.Event()

    def _spawn(self) -> None:
        self._process = process = _spawn(self._command)
        self._group = process.pid
        self._gone = gone = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch() -> None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(gone.set)

        try:
            threading.Thread(target=watch, name="child-watch", daemon=True).start()
        except RuntimeError as error:  # the limit of processes is reached: whom nobody watches must not run
            self._signal(signal.SIGKILL)
            process.wait()
            raise OSError(str(error)) from None
        self._took(self._machine.started(monotonic()))
        # the arguments stay out of the log: they may hold what is nobody's business
        self._tell(Kind.CHILD_STARTED, pid=process.pid, program=self._command[0], restarts=self._machine.restarts)

    def _tell(self, kind: Kind, level: Level = Level.INFO, *, reason: str | None = None, **fields: Any) -> None:
        self._observer.tell(kind, self._command[0], level=level, reason=reason, **fields)

    def _took(self, change: Transition[ChildState] | None) -> None:
        if change is not None:
            self._since = datetime.now(UTC)

    # Its end ------------------------------------------------------------------------------------------------------

    async def _end_group(self) -> None:
        """End whoever is left of the group; returns at once when it is empty."""
        if not self._reap():
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a stopped process hears nothing else; systemd does the same
        began = monotonic()
        self._kill_at = began + self.patience
        killed = False
        while self._reap():
            now = monotonic()
            if now >= began + 2 * KILL_AFTER:
                _log.error("child_survives", group=self._group, advice="it waits in the kernel, likely for a disk")
                return
            if now >= self._kill_at:
                if not killed:
                    _log.warning("child_killed", group=self._group)
                killed = True
                self._signal(signal.SIGKILL)
            await asyncio.sleep(_POLL_SECONDS)

    def _reap(self) -> bool:
        """Bury the dead of the group, orphans that became ours too; whether somebody of it still lives."""
        if self._group is None:
            return False
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitid(os.P_PGID, self._group, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if self._process is not None and dead.si_pid == self._process.pid:
                    self._process.wait()  # which keeps its exit code
                else:
                    os.waitpid(dead.si_pid, 0)
        self._signal(0)
        return self._group is not None

    def _signal(self, number: int) -> None:
        """Signal the group; forget it when nobody is in it."""
        if self._group is not None:
            try:
                os.killpg(self._group, number)
            except ProcessLookupError:
                self._group = None
            except PermissionError:  # somebody in it changed its user: alive, and out of our reach
                pass


async def _either(*events: asyncio.Event, within: float | None = None) -> None:
    """Wait until one of them is set, or for `within` seconds."""
    waits = [asyncio.ensure_future(one.wait()) for one in events]
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


def _spawn(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def prepare() -> None:
        """In the child. Our handlers must not run here: they would write to the wake-up socket of our loop."""
        for one in _HANDLED:
            signal.signal(one, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # we died before the child could ask to be told

    held = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        # to start a program is what was asked for; fork and exec take a few milliseconds
        return subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)  # noqa: PLW1509
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _exit(code: int) -> str:
    """`code 3`, or `SIGKILL`."""
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _advice(error: OSError | subprocess.SubprocessError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such program, or not the interpreter that its first line names; PATH was searched"
        case PermissionError():
            return "permission denied; is the file executable, and its directory open to this user?"
        case OSError(errno=errno.ENOEXEC):
            return "it is no program for this machine; a script needs its interpreter in the first line (#!)"
    return str(error)
