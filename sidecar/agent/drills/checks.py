"""What a drill asks of a restored copy, and how fast the answers come.

Each check is a fact about the copy, and says in a word what is wrong when it does not hold: a query whose first value
must be true, a path that must be there, a GET to the service that was started on the copy, a program that must end with
0. Queries and GETs are repeated for a moment: their times, beside those of earlier drills, show a copy that came back
whole but slow (an index that is missing).
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sidecar.agent.children import end, environment, run, spawn
from sidecar.agent.faults import AgentFault
from sidecar.config.backup import DrillCheck, DrillHttp, DrillStart

REPEATS, MOMENT = 20, 2.0
"""A check is asked so many times at most, and for so many seconds."""
_BODY = 1 << 20
Ask = Callable[[str, float], Any]
"""A database: (query, seconds of patience) -> the first value. Raises AgentFault."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a check."""

    name: str
    wrong: str = ""
    """Empty: it holds."""
    median_seconds: float | None = None
    """Of the repeated ones."""
    p95_seconds: float | None = None


class DoesNotHold(AgentFault):
    """What a check found."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to be asked."""

    directory: str
    """Below it each source's copy, under its name."""
    databases: Mapping[str, Ask]
    port: int
    """On which the started service listens."""


def name_of(check: DrillCheck) -> str:
    """As reports call it: the same as long as the check is."""
    if check.http:
        return f"GET {check.http.path}"
    said = check.sql or check.exists or " ".join(check.command or ())
    return f"{check.source}: {said}" if check.source else said


def carry_out(check: DrillCheck, copy: Copy) -> Checked:
    """Ask; an answer that does not come is a wrong one."""
    name, took = name_of(check), []
    began = time.monotonic()
    try:
        while True:
            started = time.monotonic()
            _once(check, copy)
            took.append(time.monotonic() - started)
            if not (check.sql or check.http) or len(took) >= REPEATS or time.monotonic() - began >= MOMENT:
                break
    except AgentFault as fault:
        return Checked(name=name, wrong=str(fault))
    took.sort()
    if not (check.sql or check.http):
        return Checked(name=name)
    return Checked(name=name, median_seconds=took[len(took) // 2], p95_seconds=took[int(len(took) * 0.95)])


def _once(check: DrillCheck, copy: Copy) -> None:
    if check.sql:
        ask = copy.databases.get(check.source or "")
        if ask is None:
            raise DoesNotHold(f"the backup has no database {check.source}")
        value = ask(check.sql, check.timeout)
        if value in {None, 0, "", "f", "0"}:
            raise DoesNotHold(f"its first value is {value!r}, not true")
    elif check.exists:
        where = os.path.join(copy.directory, check.source or "", check.exists.strip("/"))
        if not os.path.lexists(where):
            raise DoesNotHold("it is not in the copy")
    elif check.http:
        _get(check.http, copy.port, check.timeout)
    elif check.command:
        words = filled(check.command, copy.directory, copy.port)
        at = os.path.join(copy.directory, check.source or "")
        ended = run(words, _given(copy.directory, copy.port), cwd=at, patience=check.timeout)
        if ended.stopped or ended.code:
            said = ended.errors[-1][:300] if ended.errors else "it said nothing"
            raise DoesNotHold(f"{ended.stopped or f'it ended with {ended.code}'}: {said}")


def _get(http: DrillHttp, port: int, patience: float) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{http.path}")
    try:
        with _opener().open(request, timeout=patience) as answer:
            status, body = answer.status, answer.read(_BODY)
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read(_BODY)
    except (OSError, ValueError) as error:
        raise DoesNotHold(f"no answer: {error}") from None
    if status not in http.expect:
        raise DoesNotHold(f"it answered {status}")
    if http.contains and http.contains.encode() not in body:
        raise DoesNotHold(f"its body does not hold {http.contains!r}")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect is an answer like any other."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)


@contextlib.contextmanager
def started(start: DrillStart | None, directory: str, tell: Callable[[], None]) -> Iterator[int]:
    """The service on the copy, up, and its port; 0: none is wanted. Raises DoesNotHold."""
    if start is None:
        yield 0
        return
    port = _free_port()
    log = os.path.join(directory, ".started.log")
    child = spawn(filled(start.command, directory, port), _given(directory, port), directory, log)
    try:
        _wait(child, start, port, log, tell)
        yield port
    finally:
        end(child, signal.SIGTERM)


def _wait(
    child: "subprocess.Popen[bytes]", start: DrillStart, port: int, log: str, tell: Callable[[], None]
) -> None:  # fmt: skip
    until = time.monotonic() + start.timeout
    while True:
        tell()
        if child.poll() is not None:
            raise DoesNotHold(f"the service ended with {child.returncode} on the copy: {_last(log)}")
        try:
            _get(DrillHttp(path=start.ready), port, 5.0)
            return
        except DoesNotHold as fault:
            if time.monotonic() >= until:
                raise DoesNotHold(
                    f"the service was not up after {start.timeout:.0f} s: {fault}: {_last(log)}"
                ) from None
        time.sleep(0.05)


def _last(log: str) -> str:
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
        lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"
    return "it said nothing"


def filled(words: Sequence[str], directory: str, port: int) -> list[str]:
    """A command's words, with what they stand for."""
    return [word.replace("{restored}", directory).replace("{port}", str(port)) for word in words]


def _given(directory: str, port: int) -> dict[str, str]:
    return environment(SIDECAR_RESTORED=directory, PORT=str(port))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
