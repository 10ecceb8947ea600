"""`python -m benchmarks.recovery`: how soon a sick service serves again, and whether the sidecar can prove it.

Each trial is a sidecar of its own with a real service, under 20 requests a second, health checks at 1 s / 1 s / 2
failures and a rule that acts after 1 s. A fault strikes; what clients see is noted here, what the sidecar did is read
from its log and status. Trials run side by side (`--parallel`), so their figures include each other's load. Last, a
database that ten services depend on goes: nobody may be restarted.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
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
SERVICE = [sys.executable, "-S", str(ROOT / "benchmarks/rig/service.py")]
CHECK = {"http": {"path": "/health"}, "interval": "1s", "timeout": "1s", "unhealthy_after": 2, "healthy_after": 1}
FAULTS = {
    "killed": "service killed (SIGKILL)",
    "wedged": "service wedged (SIGSTOP)",
    "hung": "service hung (takes no request, deaf to SIGTERM)",
    "gone": "endpoint gone, an alternative there",
}


class Trial(msgspec.Struct, frozen=True):
    """One fault; seconds since it struck, None: it never came to that. `failed`: requests without a good answer."""

    first_failure: float | None
    detected: float | None
    serving: float | None
    verified: float | None
    failed: int


class Row(msgspec.Struct, frozen=True):
    """All trials of one fault. `detected_*`: after the first failed request; 0 when it was known before."""

    fault: str
    trials: int
    detected_median: float
    detected_max: float
    serving_median: float
    serving_p95: float
    verified_median: float
    verified_within_30: float
    failed_median: float


class Report(msgspec.Struct, frozen=True):
    """A result file; `restarts_with_the_database_down` is over `sidecars` of them."""

    machine: dict[str, str | int]
    parallel: int
    rows: list[Row]
    sidecars: int
    restarts_with_the_database_down: int


class NotReady(RuntimeError):
    """The sidecar ended or did not serve in time; the message is the end of its log."""


# ------------------------------------------------------------------------------------------------ one sidecar
class Proxy:
    """A sidecar with its service, and who asks it."""

    def __init__(self, scratch: Path, *, reroute: bool = False, database: int = 0) -> None:
        self.port, self.app, spare = free_port(), free_port(), free_port()
        self.socket = str(scratch / "admin.sock")
        self.log = scratch / "log"
        self.outcomes: list[tuple[float, float, bool]] = []  # sent, ended, good
        rule = {
            "name": "heal",
            "when": {"upstream": "app", "unhealthy_for": "1s"},
            "do": {"reroute": {"upstream": "app", "to": "spare"}} if reroute else {"restart": "process"},
            "budget": {"runs": 100, "per": "10m"},
        }
        ports = {"app": self.app, "spare": spare}
        upstreams = [
            {"name": name, "endpoints": [{"address": f"127.0.0.1:{port}"}], "health_check": CHECK}
            for name, port in ports.items()
            if reroute or name == "app"
        ]
        routes = [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "app", "timeout": "1s"}]
        tree: dict[str, Any] = {
            "version": 1,
            "service": {"name": "benchmark"},
            "admin": {"bind": f"127.0.0.1:{free_port()}", "socket": self.socket},
            "listeners": [{"name": "in", "bind": f"127.0.0.1:{self.port}", "routes": routes}],
            "upstreams": upstreams,
            "recovery": [rule],
        }
        if database:
            check = {"redis": {"url": f"redis://127.0.0.1:{database}/0"}}
            tree["dependencies"] = [{"name": "database", "check": check, "interval": "1s", "timeout": "1s"}]
        (scratch / "sidecar.yaml").write_text(json.dumps(tree))
        others = [subprocess.Popen([*SERVICE, str(port)]) for port in ports.values()] if reroute else []
        command = [] if reroute else ["--", *SERVICE, str(self.app), *([str(database)] if database else [])]
        with self.log.open("wb") as log:
            sidecar = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "run", "-c", str(scratch / "sidecar.yaml"), *command],
                stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self.processes = [*others, sidecar]

    async def ask(self, path: str = "/") -> bytes:
        """The body of a 200; raises OSError otherwise."""
        return await _get(lambda: asyncio.open_connection("127.0.0.1", self.port), path)

    async def status(self) -> Any:
        return json.loads(await _get(lambda: asyncio.open_unix_connection(self.socket), "/api/v1/status"))

    async def ready(self) -> int:
        """Wait until the service answers and its checks say so; its process id."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.processes[-1].poll() is None:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
                endpoints = (await self.status())["upstreams"][0]["endpoints"]
                if all(one["state"] == "healthy" for one in endpoints):
                    return int(await self.ask())
            await asyncio.sleep(0.1)
        raise NotReady(self.log.read_text()[-2000:])

    async def load(self) -> None:
        """Requests at RATE, for ever."""
        async with asyncio.TaskGroup() as group:
            due = time.time()
            while True:
                group.create_task(self._one())
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.time()))

    async def _one(self) -> None:
        sent, good = time.time(), True
        try:
            await self.ask()
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
            good = False
        self.outcomes.append((sent, time.time(), good))

    def said(self, event: str) -> tuple[float, dict[str, Any]] | None:
        """When the log first told of `event` (Unix time), and what."""
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") == event:
                    return datetime.fromisoformat(told["time"]).timestamp(), told
        return None

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _get(connect: Callable[[], Any], path: str) -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await connect()
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head[:100])
    return bytes(body)


# ------------------------------------------------------------------------------------------------- the faults
async def ready(scratch: Path, **how: Any) -> tuple[Proxy, int]:
    """A sidecar that serves, and its service's process id; begun anew when somebody took one of its ports."""
    for last in (False, False, True):
        proxy = Proxy(scratch, **how)
        try:
            return proxy, await proxy.ready()
        except BaseException as error:
            proxy.stop()
            if last or not isinstance(error, NotReady):
                raise
    raise AssertionError("unreachable")


async def trial(fault: str, scratch: Path) -> Trial:
    """One sidecar, one fault."""
    proxy, pid = await ready(scratch, reroute=fault == "gone")
    try:
        load = asyncio.ensure_future(proxy.load())
        await asyncio.sleep(1)
        struck = time.time()
        if fault == "gone":
            proxy.processes[0].kill()
        else:
            number = {"killed": signal.SIGKILL, "wedged": signal.SIGSTOP, "hung": signal.SIGUSR1}[fault]
            os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while proxy.said("recovery_verified") is None and time.monotonic() < deadline:
            await asyncio.sleep(0.25)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        return _judge(proxy, struck)
    finally:
        proxy.stop()


def _judge(proxy: Proxy, struck: float) -> Trial:
    after = [one for one in proxy.outcomes if one[1] >= struck]
    failures = [ended for _, ended, good in after if not good]
    last = max(failures, default=struck)
    again = min((ended for sent, ended, good in after if good and sent >= struck and ended > last), default=None)
    verified = proxy.said("recovery_verified")
    return Trial(
        first_failure=min(failures) - struck if failures else None,
        detected=None if verified is None else verified[0] - verified[1]["seconds"] - struck,
        serving=None if again is None else again - struck,
        verified=None if verified is None else verified[0] - struck,
        failed=len(failures),
    )


def row(fault: str, trials: list[Trial]) -> Row:
    """The figures of one fault; what never came counts as `PATIENCE`."""
    late = sorted(
        max(0.0, (PATIENCE if one.detected is None else one.detected) - (one.first_failure or 0.0)) for one in trials
    )
    serving = sorted(PATIENCE if one.serving is None else one.serving for one in trials)
    verified = sorted(PATIENCE if one.verified is None else one.verified for one in trials)
    return Row(
        fault=fault,
        trials=len(trials),
        detected_median=median(late),
        detected_max=late[-1],
        serving_median=median(serving),
        serving_p95=serving[math.ceil(0.95 * len(serving)) - 1],
        verified_median=median(verified),
        verified_within_30=sum(one < 30.0 for one in verified) / len(verified),
        failed_median=median(one.failed for one in trials),
    )


async def measure(fault: str, trials: int, parallel: int, scratch: Path) -> Row:
    """All trials of a fault, `parallel` at a time."""
    places = asyncio.Semaphore(parallel)

    async def one(number: int) -> Trial:
        async with places:
            directory = scratch / f"{fault}-{number}"
            directory.mkdir()
            return await trial(fault, directory)

    return row(fault, await asyncio.gather(*(one(number) for number in range(trials))))


async def database_down(sidecars: int, seconds: float, scratch: Path) -> int:
    """Restarts of all services while the database that they need is away for `seconds`; -1: they were never sick."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as database:
        proxies = []
        try:
            for number in range(sidecars):
                directory = scratch / f"database-{number}"
                directory.mkdir()
                proxies.append((await ready(directory, database=port))[0])
            database.kill()
            await asyncio.sleep(seconds)
            found = [await one.status() for one in proxies]
            held = all(one["recovery"]["rules"][0]["hold"] == "dependency_down" for one in found)
            return sum(one["child"]["restarts"] for one in found) if held else -1
        finally:
            database.kill()
            for one in proxies:
                one.stop()


# -------------------------------------------------------------------------------------------------- the table
def table(report: Report) -> str:
    """What is required, and what came out."""
    heads = (
        "fault",
        "trials",
        "detected after the first failure, < 1 s: median (max)",
        "serving again, < 5 s: median (p95)",
        "recovered and verified: median",
        "< 30 s, > 95 %",
        "requests lost",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {FAULTS[one.fault]} | {one.trials} | {one.detected_median:.2f} s ({one.detected_max:.2f}) "
        f"| {one.serving_median:.2f} s ({one.serving_p95:.2f}) | {one.verified_median:.1f} s "
        f"| {one.verified_within_30:.0%} | {one.failed_median:.0f} |"
        for one in report.rows
    ]
    if report.sidecars:
        lines += [
            "",
            f"Database down under {report.sidecars} sidecars: {report.restarts_with_the_database_down} restarts",
        ]
    return "\n".join(lines)


def met(report: Report) -> bool:
    """Whether all that is required came out. Of what is hung it is not asked to serve again so soon: its check's time
    is over twice, and then it has two seconds to end by itself.
    """
    return not report.restarts_with_the_database_down and all(
        one.detected_median < 1 and one.verified_within_30 > 0.95 and (one.serving_median < 5 or one.fault == "hung")
        for one in report.rows
    )


async def run(asked: argparse.Namespace, scratch: Path) -> Report:
    rows = [await measure(fault, asked.trials, asked.parallel, scratch) for fault in asked.faults.split(",") if fault]
    restarts = await database_down(asked.sidecars, asked.seconds, scratch) if asked.sidecars else 0
    return Report(facts(), asked.parallel, rows, asked.sidecars, restarts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="of each fault")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"comma-separated, of {','.join(FAULTS)}")
    parser.add_argument("--sidecars", type=int, default=10, help="with the database down; 0: leave that out")
    parser.add_argument("--seconds", type=float, default=20.0, help="so long the database is down")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/recovery.json")
    asked = parser.parse_args()
    with results.scratch() as scratch:
        report = asyncio.run(run(asked, scratch))
    results.write(report, asked.json)
    print(table(report))
    return 0 if met(report) else 1


if __name__ == "__main__":
    sys.exit(main())
