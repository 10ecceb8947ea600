"""`python -m benchmarks.first_look`: from `git clone` to the first open breaker on the status page, in two commands.

What a stranger does: clone, `make demo`, open the page. Nothing is prepared: the environment is built and the locked
packages are installed as on a fresh machine, but for the download cache that pip may have (`--no-cache` leaves
it out). The clock runs from the clone until the page, as a browser would be sent it, shows an open breaker.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import msgspec

from benchmarks.rig import results
from benchmarks.rig.machine import ROOT, facts
from benchmarks.rig.process import free_port

LIMIT = 120.0
_OPEN = re.compile(r'class="breaker"[^>]*data-state="(?:open|half_open)"')


class Report(msgspec.Struct, frozen=True):
    """A result file: seconds since the clone began."""

    machine: dict[str, str | int]
    cloned: float
    page: float
    """The page answers: everything is installed and runs."""
    open_breaker: float


def measure(source: str, *, cache: bool) -> Report:
    """One run; raises RuntimeError when no breaker opens within four times the limit."""
    with tempfile.TemporaryDirectory(prefix="first-look-") as scratch:
        port, admin = free_port(), free_port()
        began = time.monotonic()
        subprocess.run(["git", "clone", "-q", source, f"{scratch}/sidecar"], check=True)
        cloned = time.monotonic() - began
        environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        if not cache:
            environment["PIP_NO_CACHE_DIR"] = "1"
        demo = subprocess.Popen(
            ["make", "demo", f"ARGS=--port {port} --admin-port {admin}"],
            cwd=f"{scratch}/sidecar",
            env=environment,
            stdout=sys.stderr,
            start_new_session=True,
        )
        try:
            page = _until(demo, admin, began, "<h1>")
            return Report(facts(), cloned, page, _until(demo, admin, began, _OPEN))
        finally:
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(60)


def _until(demo: "subprocess.Popen[bytes]", admin: int, began: float, wanted: str | re.Pattern[str]) -> float:
    while time.monotonic() - began < 4 * LIMIT:
        if demo.poll() is not None:
            raise RuntimeError(f"make demo ended with {demo.returncode}")
        try:
            with urlopen(f"http://127.0.0.1:{admin}/", timeout=5) as answer:
                if re.search(wanted, answer.read().decode()):
                    return time.monotonic() - began
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the page never showed it")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_look", description=__doc__)
    parser.add_argument("--source", default=str(ROOT), help="what to clone: a path or an address")
    parser.add_argument("--no-cache", action="store_true", help="download every package")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/first_look.json")
    asked = parser.parse_args()
    report = measure(asked.source, cache=not asked.no_cache)
    results.write(report, asked.json)
    print(report)
    return 0 if report.open_breaker <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
