"""`python -m benchmarks.page`: what the status page weighs, how soon it is there, and what it costs to be looked at.

A sidecar with ten upstreams, or more, and some traffic. *Payload* is every byte that a browser fetches for it, packed
as it comes, the first events included. *First paint* is the browser's own word, median over several loads on loopback.
*Fault* is the time from the answer that opened a breaker until the page says so, without a reload. *CPU per viewer* is
what the sidecar's process spends more when several follow, divided by them; under traffic, when each look finds
something new, and at rest.
"""

import argparse
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.request import urlopen

import msgspec
import yaml

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, cores, facts
from benchmarks.rig.origin import Origin, origins
from benchmarks.rig.process import Process, free_port, running
from sidecar.control.page.words import count

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWERS = 8
"""As many as may follow at once."""
RATE = 100.0
"""Requests a second meanwhile."""
PAYLOAD_LIMIT, PAINT_LIMIT, VIEWER_LIMIT, FAULT_LIMIT = 150_000, 1.0, 0.01, 1.0


class Report(msgspec.Struct, frozen=True):
    """A result file. Seconds, bytes, and shares of one core."""

    machine: dict[str, str | int]
    upstreams: int
    payload_bytes: int
    first_paint_seconds: float
    fault_shown_seconds: float
    cpu_per_viewer: float
    cpu_per_viewer_at_rest: float
    cpu_without_viewers: float
    endpoints: int = 1
    """Of each upstream but one."""


class Stage:
    """The sidecar on its core."""

    def __init__(self, process: Process, port: int, admin: int, upstreams: int) -> None:
        self.process, self.port, self.admin, self.upstreams = process, port, admin, upstreams

    def share(self, seconds: float) -> float:
        """CPU seconds that it spends in a second."""
        before = self.process.cpu_seconds()
        time.sleep(seconds)
        return (self.process.cpu_seconds() - before) / seconds


@contextmanager
def stage(scratch: Path, origin: Origin, upstreams: int, endpoints: int) -> Iterator[Stage]:
    """One that runs, with an upstream each for `/u0/`, `/u1/` and so on, and a dead one for `/dead`."""
    port, admin = free_port(), free_port()
    names = [f"u{number}" for number in range(upstreams)]
    targets = {name: [f"127.0.0.{1 + number}:{origin.files}" for number in range(endpoints)] for name in names}
    targets["dead"] = [f"127.0.0.1:{free_port()}"]
    document = {
        "version": 1,
        "service": {"name": "bench"},
        "admin": {"bind": f"127.0.0.1:{admin}", "socket": str(scratch / "admin.sock")},
        "listeners": [
            {
                "name": "inbound",
                "bind": f"127.0.0.1:{port}",
                "routes": [{"name": name, "match": {"path_prefix": f"/{name}"}, "upstream": name} for name in targets],
            }
        ],
        "upstreams": [
            {"name": name, "endpoints": [{"address": address} for address in addresses]}
            for name, addresses in targets.items()
        ],
    }
    config = scratch / "sidecar.yaml"
    config.write_text(yaml.safe_dump(document))
    argv = [str(Path(sys.executable).with_name("sidecar")), "run", "-c", str(config)]
    with running(Process("sidecar", argv, cores()[1], scratch / "sidecar.log")) as process:
        process.wait_listening(port)
        yield Stage(process, port, admin, upstreams)


@contextmanager
def traffic(on: Stage) -> Iterator[None]:
    """A trickle over all upstreams; what they answer does not matter."""
    enough = threading.Event()

    def ask() -> None:
        number = 0
        with socket.create_connection(("127.0.0.1", on.port)) as sock:
            while not enough.wait(1 / RATE):
                number += 1
                sock.sendall(f"GET /u{number % on.upstreams}/ HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
                sock.recv(65536)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@contextmanager
def viewers(admin: int, count: int) -> Iterator[None]:
    """So many that follow as the page does."""

    def read(sock: socket.socket) -> None:
        with suppress(OSError):  # closed when the measurement is over
            while sock.recv(65536):
                pass

    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", admin)))
            sock.sendall(b"GET /events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept-encoding: gzip\r\n\r\n")
            threading.Thread(target=read, args=[sock], daemon=True).start()
        time.sleep(1.0)  # what comes at first is no part of following
        yield


def until(page: "Page", expression: str) -> None:
    """Wait until it is true. Asked from here: the page's policy forbids the browser to evaluate text by itself."""
    deadline = time.monotonic() + 30
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true in 30 s: {expression}")
        page.wait_for_timeout(5)


def in_browser(browser: "Browser", on: Stage, loads: int) -> tuple[int, float, float]:
    """(payload, first paint, seconds until a fault shows)."""
    address = f"http://127.0.0.1:{on.admin}/"
    paints, payload = [], 0
    for _ in range(loads):
        context = browser.new_context()
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        sizes: list[int] = []
        session.on("Network.dataReceived", lambda event, sizes=sizes: sizes.append(int(event["encodedDataLength"])))
        session.on(
            "Network.responseReceived",
            lambda event, sizes=sizes: sizes.append(int(event["response"]["encodedDataLength"])),
        )
        page.goto(address, wait_until="load")
        until(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000)
        page.wait_for_timeout(500)
        payload = max(payload, sum(sizes))
        context.close()
    page = browser.new_page()
    with page.expect_response("**/events"):
        page.goto(address)
    page.wait_for_timeout(300)
    seen = "document.getElementById('breaker-dead').dataset.state"
    page.evaluate(f"""() => {{ window.opened = null;
      new MutationObserver(() => {{ if (!window.opened && {seen} === 'open') window.opened = Date.now(); }})
        .observe(document.body, {{ subtree: true, attributes: true, childList: true }}); }}""")
    for _ in range(5):
        try:
            urlopen(f"http://127.0.0.1:{on.port}/dead", timeout=5).close()
        except OSError:
            struck = time.time()
    until(page, "window.opened")
    shown = page.evaluate("window.opened") / 1000 - struck
    page.close()
    return payload, median(paints), shown


def measure(seconds: float, loads: int, upstreams: int = 10, endpoints: int = 1) -> Report:
    """The whole."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not there: make test-tools")
    from playwright.sync_api import sync_playwright

    with origins() as (scratch, origin), stage(scratch, origin, upstreams, endpoints) as on:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium)
            payload, paint, shown = in_browser(browser, on, loads)
            browser.close()
        nobody_at_rest = on.share(seconds)
        with viewers(on.admin, VIEWERS):
            all_at_rest = on.share(seconds)
        with traffic(on):
            nobody = on.share(seconds)
            with viewers(on.admin, VIEWERS):
                everybody = on.share(seconds)
    return Report(
        machine=facts(),
        upstreams=upstreams + 1,
        endpoints=endpoints,
        payload_bytes=payload,
        first_paint_seconds=paint,
        fault_shown_seconds=shown,
        cpu_per_viewer=(everybody - nobody) / VIEWERS,
        cpu_per_viewer_at_rest=(all_at_rest - nobody_at_rest) / VIEWERS,
        cpu_without_viewers=nobody,
    )


def table(report: Report) -> str:
    """The figures as Markdown."""
    rows = (
        (
            f"payload, {report.upstreams} upstreams, {count(report.endpoints, 'endpoint')} each",
            f"{report.payload_bytes / 1000:.0f} kB",
            f"{PAYLOAD_LIMIT // 1000} kB",
        ),
        ("first paint", f"{report.first_paint_seconds:.2f} s", f"{PAINT_LIMIT:.0f} s"),
        ("a fault shows after", f"{report.fault_shown_seconds:.2f} s", f"{FAULT_LIMIT:.0f} s"),
        ("CPU per viewer, under traffic", f"{100 * report.cpu_per_viewer:.2f} %", f"{100 * VIEWER_LIMIT:.0f} %"),
        ("CPU per viewer, at rest", f"{100 * report.cpu_per_viewer_at_rest:.2f} %", f"{100 * VIEWER_LIMIT:.0f} %"),
    )
    return "\n".join(["| what | measured | at most |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def met(report: Report) -> bool:
    """Whether all is within its limit."""
    return (
        report.payload_bytes <= PAYLOAD_LIMIT
        and report.first_paint_seconds <= PAINT_LIMIT
        and report.fault_shown_seconds <= FAULT_LIMIT
        and report.cpu_per_viewer <= VIEWER_LIMIT
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of CPU")
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--upstreams", type=int, default=10)
    parser.add_argument("--endpoints", type=int, default=1, help="of each upstream")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/page.json")
    asked = parser.parse_args()
    report = measure(asked.seconds, asked.loads, asked.upstreams, asked.endpoints)
    results.write(report, asked.json)
    print(report)
    return 0 if met(report) else 1


if __name__ == "__main__":
    sys.exit(main())
