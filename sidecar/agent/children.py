"""Programs that the agent starts: they know no secret that they do not need, are heard while they run, and never
outlive the agent.

A child gets a small environment of its own making, not ours; secrets reach it by files or by that environment, never
by its arguments. Whoever waits may raise from what it hears (`tell`): then the child is ended first. What it says is
bounded: the last lines of its errors are kept, the rest is passed on and let go.
"""

import collections
import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sidecar.agent.faults import EngineFailure

_PR_SET_PDEATHSIG = 1
_LINES, _LONGEST = 200, 2000
_GENTLE = 10.0
"""Seconds that a child has to end after SIGINT, before SIGKILL."""
_LIBC = ctypes.CDLL(None)


class Ended(NamedTuple):
    """How a child ended."""

    code: int
    """Negative: by this signal."""
    errors: tuple[str, ...]
    """The last lines of its standard error."""
    stopped: str = ""
    """Why we ended it; empty: it ended by itself."""


def environment(**more: str) -> dict[str, str]:
    """What every child gets: where programs are, a plain language and UTC. Nothing of ours beside."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC", **more}


def spawn(
    words: Sequence[str | bytes], env: Mapping[str, str], cwd: str | None = None, log: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start a child that dies with this thread; `log`: the file that it speaks to, else to pipes.

    Raises EngineFailure when there is no such program.
    """
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # we died before the child could ask to be told

    with contextlib.ExitStack() as stack:
        try:
            ear = stack.enter_context(open(log, "ab")) if log is not None else subprocess.PIPE
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=ear, stderr=ear, env=dict(env), cwd=cwd,
                start_new_session=True, preexec_fn=prepare,  # noqa: PLW1509 - prctl only
            )  # fmt: skip
        except OSError as error:
            raise EngineFailure(f"cannot start {os.fsdecode(words[0])}: {error.strerror}") from None


def run(
    words: Sequence[str | bytes],
    env: Mapping[str, str],
    *,
    cwd: str | None = None,
    hear: Callable[[bytes], None] = lambda _line: None,
    hopeless: Callable[[str], bool] = lambda _line: False,
    beat: Callable[[int], None] = lambda _pid: None,
    patience: float | None = None,
) -> Ended:
    """Run a child to its end.

    `hear` gets each line of its output; `beat` its pid, about twice a second. A line of its errors that is `hopeless`
    ends it, and so does the end of `patience` (seconds).
    """
    began = time.monotonic()
    errors: collections.deque[str] = collections.deque(maxlen=_LINES)
    stopped = ""
    with spawn(words, env, cwd) as child, selectors.DefaultSelector() as selector:
        assert child.stdout is not None, "it is a pipe"
        assert child.stderr is not None, "it is a pipe"
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stderr, selectors.EVENT_READ)
        rest = {child.stdout: b"", child.stderr: b""}
        beaten = began
        try:
            while selector.get_map():
                for key, _ in selector.select(0.5):
                    stream = child.stdout if key.fileobj is child.stdout else child.stderr
                    piece = os.read(stream.fileno(), 1 << 16)
                    *lines, rest[stream] = (rest[stream] + piece).split(b"\n")
                    if not piece:
                        selector.unregister(stream)
                        lines = [rest[stream]] if rest[stream] else []
                    for line in lines:
                        if stream is child.stdout:
                            hear(line)
                        elif line:
                            said = line[:_LONGEST].decode(errors="replace")
                            errors.append(said)
                            stopped = stopped or (said if hopeless(said) else "")
                now = time.monotonic()
                if now - beaten >= 0.5:
                    beaten = now
                    beat(child.pid)
                if patience is not None and now - began > patience:
                    stopped = stopped or f"it did not end within {patience:.0f} s"
                if stopped:
                    break
        finally:
            if selector.get_map():
                end(child)
        return Ended(child.wait(), tuple(errors), stopped)


def end(child: "subprocess.Popen[bytes]", number: int = signal.SIGINT, patience: float = _GENTLE) -> None:
    """End a child and whatever it started: gently, then not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()  # a child that is about to say something is not kept waiting
    if not _ends_within(patience, child):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ends_within(patience: float, child: "subprocess.Popen[bytes]") -> bool:
    """Whether it ends in time; known at once, where `Popen.wait` looks only now and then."""
    if child.poll() is not None:
        return True
    watched = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(watched, selectors.EVENT_READ)
            return bool(selector.select(patience))
    finally:
        os.close(watched)


def written(pid: int) -> int:
    """How much a process has written so far, in bytes."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/io", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"wchar"))
    return 0
