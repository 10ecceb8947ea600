"""Starts a load generator of our own on the load's core and reads its one line of JSON."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.rig.machine import ROOT, cores


def drive(module: str, *arguments: object, ready: Callable[[], None], seconds: float) -> dict[str, Any]:
    """Runs `python -m benchmarks.rig.MODULE ARGUMENTS`.

    The generator connects and warms up, prints a line, and waits for one: `ready` is called in between, so that what is
    read there marks the start of the measured part. RuntimeError when it fails or takes longer than `seconds` + 30.
    """
    process = subprocess.Popen(
        ["taskset", "-c", str(cores()[0]), sys.executable, "-m", f"benchmarks.rig.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise RuntimeError(f"{module} ended before its load began")
        ready()
        told, _ = process.communicate("go\n", timeout=seconds + 30)
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"{module} did not end in time") from late
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{module} failed with {process.returncode}")
    answer: dict[str, Any] = json.loads(told)
    return answer


def await_go() -> None:
    """The generator's half of `drive`: says that it is ready, waits for the word."""
    print("ready", flush=True)
    sys.stdin.readline()


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the ascending list lies; 0 for an empty list."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
