"""What deciding costs: instructions of a request with and without it, of the deciding steps alone, and microseconds.

Between two configurations callgrind counts what a whole request takes: nothing decides; the defaults (breaker,
outlier watch); and everything on (health checks, a fallback to another upstream, the last good answer kept). A mode
that is `disabled` still asks, so the difference alone would flatter: the steps of the guard are therefore counted by
themselves as well (`micro/deciding.py`), and the share is that of whichever is larger.
"""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.failures.storm import mortals, proxy
from benchmarks.instructions import count, sender, tracer
from benchmarks.micro import machines
from benchmarks.micro.deciding import TURNS
from benchmarks.rig.machine import ROOT
from benchmarks.rig.mortal import BODY
from benchmarks.rig.routes import request

_DISABLED = {"breaker": {"mode": "disabled"}, "outlier": {"mode": "disabled"}}
_CHECKED = {"health_check": {"http": {"path": "/healthz"}}}
_STANDBY = {"fallback": [{"upstream": "standby"}, {"respond": {"status": 503}}]}
_KEPT = {"fallback": [{"upstream": "standby"}, {"cache": {"max_age": "1m"}}, {"respond": {"status": 503}}]}

DEFAULTS = "breaker, outliers (the defaults)"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing decides": (_DISABLED, {}),
    DEFAULTS: ({}, {}),
    "and health checks, fallback elsewhere": (_CHECKED, _STANDBY),
    "and the last good answer kept": (_CHECKED, _KEPT),
    "and who asks is authorized": (_CHECKED, _KEPT),
}
"""What the upstream and the route say beside the usual."""
_AUTHORIZED = "and who asks is authorized"
"""Answers to requests with Authorization are looked at, and not kept."""


class Instructions(msgspec.Struct, frozen=True):
    """Instructions a request, by variant; and those of the guard's steps alone."""

    per_request: dict[str, float]
    guard_alone: float

    def shares(self) -> dict[str, float]:
        """Of a request, what goes into deciding; by variant, from the defaults on."""
        bare, *_ = self.per_request.values()
        default = self.per_request[DEFAULTS]
        return {
            name: max(whole - bare, self.guard_alone + whole - default) / whole
            for name, whole in list(self.per_request.items())[1:]
        }


class Micro(msgspec.Struct, frozen=True):
    """Microseconds of one breaker's admit and record: the median, and single calls with the clock's own cost."""

    median_us: float
    p99_us: float
    p999_us: float


def instructions(scratch: Path, requests: int) -> Instructions:
    """About ten seconds a variant, and ten for the steps alone."""
    scratch.mkdir()
    counted = {name: _request(scratch / str(at), name, requests) for at, name in enumerate(VARIANTS)}
    return Instructions(counted, _alone(scratch / "alone"))


def _request(scratch: Path, variant: str, requests: int) -> float:
    scratch.mkdir()
    upstream, route = VARIANTS[variant]
    with mortals(scratch, "one", "two", "standby") as (one, two, standby):
        # Two endpoints, as a lone one is never watched; taking turns, so that two runs take the same steps.
        app = {
            "name": "app",
            "endpoints": [{"address": f"127.0.0.1:{mortal.port}"} for mortal in (one, two)],
            "balance": "round_robin",
            **upstream,
        }
        elsewhere = {"name": "standby", "endpoints": [{"address": f"127.0.0.1:{standby.port}"}]}
        with (
            proxy(scratch, [app, elsewhere], route, tracer(scratch)) as sidecar,
            socket.create_connection(("127.0.0.1", sidecar.port), timeout=60) as connection,
        ):
            send = sender(connection, _get(variant), BODY)
            pids = sidecar.process.tree()
            return count(pids, scratch, send, requests)


def _get(variant: str) -> bytes:
    whole = request("GET", "/orders/17")
    if variant == _AUTHORIZED:
        return whole
    return b"\r\n".join(line for line in whole.split(b"\r\n") if not line.startswith(b"Authorization:"))


def _alone(scratch: Path) -> float:
    scratch.mkdir()
    command = [*tracer(scratch), sys.executable, "-m", "benchmarks.micro.deciding"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONHASHSEED": "0"}, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, told = process.stdin, process.stdout
    try:
        told.readline()

        def do(step: str) -> None:
            given.write(f"{step}\n")
            given.flush()
            if told.readline() != "done\n":
                raise RuntimeError("benchmarks.micro.deciding ended early")

        do("decide")
        return (
            count([process.pid], scratch, lambda: do("decide"), 1, warm_up=1, batches=1)
            - count([process.pid], scratch, lambda: do("nothing"), 1, warm_up=1, batches=1)
        ) / TURNS
    finally:
        process.kill()
        process.wait()


def micro() -> Micro:
    """The breaker's decision alone, in this process."""
    median = machines.measured(machines.one_call(machines.breaker()))["microseconds"]
    tail = machines.tail(machines.one_call(machines.breaker()))
    return Micro(median, tail["p99"], tail["p99.9"])
