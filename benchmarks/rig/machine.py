"""The machine's facts, and which core carries what.

A figure without its machine means nothing, so every result file carries these facts. Two cores are used: the proxy
under test alone on one, the load generator and the origins together on the other, so that what the proxy costs is
neither shared with nor shifted to what drives it.
"""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VENV = ROOT / ".cache/bench-venv"
PY_SPY = _VENV / "bin/py-spy"
ENVOY = next(_VENV.glob("lib/python3*/site-packages/envoy/_bin/envoy"), _VENV / "bin/envoy")
"""The binary itself where the package lies open: its Python wrapper would count against Envoy's start."""


def cores() -> tuple[int, int]:
    """(core of load and origins, core of the proxy): the first and the last that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def facts() -> dict[str, str | int]:
    """Processor, kernel, versions and the day, flat, for a result file."""
    found: dict[str, str | int] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _first_match([r"nginx/(\S+)"], ["nginx", "-v"]),
        "haproxy": _first_match([r"version (\S+)"], ["haproxy", "-v"]),
        "envoy": _first_match([r"/(\d+\.\d+\.\d+)/"], [str(ENVOY), "--version"]),
        "commit": _first_match([r"(\w+)"], ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
    }
    for package in ("sidecar", "uvloop"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def build_facts() -> dict[str, str]:
    """What an instruction count depends on: the interpreter's build and the event loop's."""
    return {"python": sys.version.split("[")[0].strip(), "uvloop": version("uvloop"), "machine": platform.machine()}


def _cpu_model() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return match.group(1) if match else platform.processor()


def _first_match(patterns: list[str], command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "absent"
    for pattern in patterns:
        match = re.search(pattern, done.stdout + done.stderr)
        if match:
            return match.group(1)
    return "unknown"
