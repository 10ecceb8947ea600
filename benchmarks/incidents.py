"""`python -m benchmarks.incidents`: how soon a fault is an incident that somebody hears of; what flapping makes.

Each trial strikes a real service behind a real sidecar that checks it at 1 s / 1 s / 2 failures and keeps its incidents
in a file; a webhook's receiver notes when it is told. `killed` and `wedged` happen under 20 requests a second, `sick`
(500 to everything) without any, so that only the checks can find out. Seconds count from the first request or probe
that failed. Then one service goes and comes back fifty times within `--minutes`.
"""

import argparse
import asyncio
import contextlib
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.process import free_port

RATE = 20.0
"""Requests a second, open loop."""
PATIENCE = 60.0
FLAPS = 50
SERVICE = [sys.executable, "-S", str(ROOT / "benchmarks/rig/service.py")]
CHECK = {"http": {"path": "/health"}, "interval": "1s", "timeout": "1s", "unhealthy_after": 2, "healthy_after": 1}
FAULTS = {
    "killed": "service killed (SIGKILL), requests",
    "wedged": "service wedged (SIGSTOP), requests",
    "sick": "service answers 500, no requests",
}
DETECTED, TOLD, MOST_NOTICES = 1.0, 5.0, 5
"""What is asked for; seconds, seconds, notices of fifty flaps."""


class Trial(msgspec.Struct, frozen=True):
    """Seconds from the first failure; `PATIENCE`: it never came to that."""

    detected: float
    told: float


class Row(msgspec.Struct, frozen=True):
    """All trials of one fault."""

    fault: str
    trials: int
    detected_median: float
    detected_p95: float
    detected_max: float
    told_median: float
    told_p95: float
    told_max: float


class Flapping(msgspec.Struct, frozen=True):
    """What fifty flaps made of themselves."""

    flaps: int
    minutes: float
    incidents: int
    relapses: int
    notices: list[str]


class Report(msgspec.Struct, frozen=True):
    """A result file."""

    machine: dict[str, str | int]
    parallel: int
    rows: list[Row]
    flapping: Flapping | None


# ---------------------------------------------------------------------------------------------------- the stage
class Receiver:
    """Hears by webhook: (when, what it was told)."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, dict[str, Any]]] = []
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            body = await reader.readexactly(length)
            self.heard.append((time.time(), json.loads(body)))
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    def told(self, what: str, since: float) -> tuple[float, dict[str, Any]] | None:
        return next((one for one in self.heard if one[0] >= since and one[1]["what"] == what), None)

    async def close(self) -> None:
        self._server.close()


class Patient:
    """A service in this process that can fall sick: notes its first bad answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sick = False
        self.first_failure: float | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            status = "500 Internal Server Error" if self.sick else "200 OK"
            if self.sick and self.first_failure is None:
                self.first_failure = time.time()
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async def strike(self) -> None:
        self.first_failure, self.sick = None, True

    async def mend(self) -> None:
        self.sick = False

    async def stop(self) -> None:
        self._server.close()


class Process:
    """A service of its own, under requests through the sidecar."""

    def __init__(self, port: int, entrance: int, *, wedge: bool) -> None:
        self._command = [*SERVICE, str(port)]
        self._entrance = entrance
        self._wedge = wedge
        self._struck = math.inf
        self.first_failure: float | None = None

    async def start(self) -> None:
        self._service = subprocess.Popen(self._command)
        self._load = asyncio.ensure_future(self._requests())

    async def _requests(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._one())
                await asyncio.sleep(1 / RATE)

    async def _one(self) -> None:
        try:
            await _get("127.0.0.1", self._entrance, "/")
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
            if time.time() >= self._struck and self.first_failure is None:
                self.first_failure = time.time()

    async def strike(self) -> None:
        self.first_failure, self._struck = None, time.time()
        self._service.send_signal(signal.SIGSTOP if self._wedge else signal.SIGKILL)

    async def mend(self) -> None:
        self._struck = math.inf
        if self._wedge:
            self._service.send_signal(signal.SIGCONT)
        else:
            self._service.wait()
            self._service = subprocess.Popen(self._command)

    async def stop(self) -> None:
        self._load.cancel()
        await asyncio.gather(self._load, return_exceptions=True)
        self._service.kill()
        self._service.wait()


class Sidecar:
    """One sidecar whose incidents end soon, so that the next trial's is another; `**kept`: of `incidents`."""

    def __init__(self, scratch: Path, app: int, receiver: int, **kept: str) -> None:
        scratch.mkdir()
        self.entrance, self.admin = free_port(), free_port()
        self._log = (scratch / "log").open("wb")
        notify = [{"name": "ops", "webhook": {"url": f"http://127.0.0.1:{receiver}/"}}]
        breaker = {"open_for": "1s", "half_open_successes": 1}
        routes = [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "app", "timeout": "1s"}]
        tree = {
            "version": 1,
            "service": {"name": "benchmark"},
            "admin": {"bind": f"127.0.0.1:{self.admin}", "socket": str(scratch / "admin.sock")},
            "listeners": [{"name": "in", "bind": f"127.0.0.1:{self.entrance}", "routes": routes}],
            "upstreams": [
                {
                    "name": "app",
                    "endpoints": [{"address": f"127.0.0.1:{app}"}],
                    "health_check": CHECK,
                    "breaker": breaker,
                }
            ],
            "incidents": {"store": str(scratch / "incidents.db"), "notify": notify, "objective": None, **kept},
        }
        (scratch / "sidecar.yaml").write_text(json.dumps(tree))
        command = [sys.executable, "-m", "sidecar", "run", "-c", str(scratch / "sidecar.yaml")]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=ROOT)

    async def incidents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await _get("127.0.0.1", self.admin, "/api/v1/incidents"))
        return found

    async def well(self) -> None:
        """Wait until its service is healthy and every incident is closed."""

        async def so() -> bool:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                status = json.loads(await _get("127.0.0.1", self.admin, "/api/v1/status"))
                healthy = all(one["state"] == "healthy" for one in status["upstreams"][0]["endpoints"])
                closed = all(one["status"] == "closed" for one in await self.incidents())
                return healthy and closed and status["breakers"][0]["machine"] == "closed"
            return False

        async with asyncio.timeout(PATIENCE):
            while not await so():
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


async def _get(host: str, port: int, path: str) -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head[:100])
    return bytes(body)


# --------------------------------------------------------------------------------------------------- the trials
async def some_trials(fault: str, trials: int, scratch: Path) -> list[Trial]:
    """One sidecar, one fault after the other."""
    if not trials:
        return []
    receiver, app = Receiver(), free_port()
    await receiver.open()
    sidecar = Sidecar(scratch, app, receiver.port, resolve_after="100ms", reopen_within="100ms")
    service = Patient(app) if fault == "sick" else Process(app, sidecar.entrance, wedge=fault == "wedged")
    await service.start()
    found = []
    try:
        for _ in range(trials):
            await sidecar.well()
            struck = time.time()
            await service.strike()
            deadline = time.monotonic() + PATIENCE
            while (told := receiver.told("opened", struck)) is None and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            first = service.first_failure
            found.append(_trial(first, told))
            await service.mend()
    finally:
        await service.stop()
        sidecar.stop()
        await receiver.close()
    return found


def _trial(first: float | None, told: tuple[float, dict[str, Any]] | None) -> Trial:
    if first is None or told is None:
        return Trial(PATIENCE, PATIENCE)
    detected = datetime.fromisoformat(told[1]["detected"]).timestamp()
    return Trial(max(0.0, detected - first), max(0.0, told[0] - first))


async def measure(fault: str, trials: int, parallel: int, scratch: Path) -> Row:
    """All trials of a fault, by `parallel` sidecars at a time."""
    shares = [trials // parallel + (place < trials % parallel) for place in range(parallel)]
    found = await asyncio.gather(
        *(some_trials(fault, share, scratch / f"{fault}-{place}") for place, share in enumerate(shares))
    )
    return row(fault, [one for share in found for one in share])


def row(fault: str, trials: list[Trial]) -> Row:
    """The figures of one fault."""

    def of(seconds: Callable[[Trial], float]) -> tuple[float, float, float]:
        known = sorted(map(seconds, trials))
        return median(known), known[math.ceil(0.95 * len(known)) - 1], known[-1]

    return Row(fault, len(trials), *of(lambda one: one.detected), *of(lambda one: one.told))


async def flap(flaps: int, minutes: float, scratch: Path) -> Flapping:
    """A service that goes and comes back, evenly, under the default patience."""
    receiver, app = Receiver(), free_port()
    await receiver.open()
    sidecar = Sidecar(scratch, app, receiver.port)
    service = Patient(app)
    await service.start()
    try:
        await sidecar.well()
        for _ in range(flaps):
            await service.strike()
            await asyncio.sleep(30.0 * minutes / flaps)
            await service.mend()
            await asyncio.sleep(30.0 * minutes / flaps)
        await asyncio.sleep(1.0)
        found = await sidecar.incidents()
        notices = [told["what"] for _, told in receiver.heard]
        return Flapping(flaps, minutes, len(found), sum(one["relapses"] for one in found), notices)
    finally:
        await service.stop()
        sidecar.stop()
        await receiver.close()


# ---------------------------------------------------------------------------------------------------- the table
def table(report: Report) -> str:
    """What is required, and what came out."""
    lines = [
        "| fault | trials | detected, < 1 s: median (p95, max) | somebody told, < 5 s: median (p95, max) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {FAULTS[one.fault]} | {one.trials} | {one.detected_median:.2f} s ({one.detected_p95:.2f}, "
        f"{one.detected_max:.2f}) | {one.told_median:.2f} s ({one.told_p95:.2f}, {one.told_max:.2f}) |"
        for one in report.rows
    ]
    if report.flapping is not None:
        flapping = report.flapping
        seen = f"{flapping.incidents} incident(s), {flapping.relapses} relapses, {len(flapping.notices)} notice(s)"
        lines += ["", f"{flapping.flaps} flaps in {flapping.minutes:g} min: {seen}: {', '.join(flapping.notices)}"]
    return "\n".join(lines)


def met(report: Report) -> bool:
    """Whether what is asked for came out, in 95 of 100 trials."""
    flapping = report.flapping
    calm = flapping is None or (flapping.incidents == 1 and len(flapping.notices) <= MOST_NOTICES)
    return calm and all(one.detected_p95 < DETECTED and one.told_p95 < TOLD for one in report.rows)


async def run(asked: argparse.Namespace, scratch: Path) -> Report:
    flapping = asyncio.ensure_future(flap(FLAPS, asked.minutes, scratch / "flaps")) if asked.minutes else None
    rows = [await measure(fault, asked.trials, asked.parallel, scratch) for fault in asked.faults.split(",") if fault]
    return Report(facts(), asked.parallel, rows, None if flapping is None else await flapping)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incidents", description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="of each fault")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"comma-separated, of {','.join(FAULTS)}")
    parser.add_argument("--minutes", type=float, default=10.0, help="of flapping; 0: leave it out")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/incidents.json")
    asked = parser.parse_args()
    with results.scratch() as scratch:
        report = asyncio.run(run(asked, scratch))
    results.write(report, asked.json)
    print(table(report))
    return 0 if met(report) else 1


if __name__ == "__main__":
    sys.exit(main())
