"""The pieces of work, and how one turn of each is measured.

Every turn has the same shape: warm up, read the proxy's CPU clock, load, read it again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import routes, wrk
from benchmarks.rig.client import drive
from benchmarks.rig.origin import GIB
from benchmarks.rig.peers import Running
from benchmarks.rig.process import Process
from benchmarks.rig.sample import Sample

CONNECTIONS = 64


@dataclass(frozen=True)
class Work:
    """`measure(peer, scratch directory, seconds)` runs one turn; `unit` is what CPU is divided by."""

    name: str
    unit: str
    measure: Callable[[Running, Path, float], Sample]
    secure: bool = False
    """Only for peers that speak TLS."""


def _requests(name: str, streams: bool = False, unit: str = "request") -> Work:
    secure = name.endswith("-tls")

    def measure(peer: Running, scratch: Path, seconds: float) -> Sample:
        script = wrk.write_script(scratch / f"{name}.lua", routes.REQUESTS[name])
        port = peer.ports.tls if secure else peer.ports.streams if streams else peer.ports.files
        scheme = "https" if secure else "http"
        wrk.run(port, script, 1, CONNECTIONS, scheme)
        before = _process(peer).cpu_seconds()
        load = wrk.run(port, script, seconds, CONNECTIONS, scheme)
        spent = _process(peer).cpu_seconds() - before
        return Sample.of(load.requests, load.seconds, spent, load.p50_us, load.p99_us, load.errors)

    return Work(name, unit, measure, secure)


def _messages(kind: str) -> Work:
    def measure(peer: Running, _scratch: Path, seconds: float) -> Sample:
        port = peer.ports.streams if kind == "websocket" else peer.ports.tcp
        before: list[float] = []
        process = _process(peer)
        told = drive(
            *("tunnel", kind, port, CONNECTIONS, seconds),
            ready=lambda: before.append(process.cpu_seconds()),
            seconds=seconds,
        )
        spent = process.cpu_seconds() - before[0]
        return Sample.of(told["messages"], told["seconds"], spent, told["p50_us"], told["p99_us"], int(told["errors"]))

    return Work(kind, "message", measure)


def _gibibyte(name: str, kind: str, path: str, streams: bool) -> Work:
    secure = name.endswith("-tls")

    def measure(peer: Running, _scratch: Path, _seconds: float) -> Sample:
        port = peer.ports.tls if secure else peer.ports.streams if streams else peer.ports.files
        before: list[float] = []
        process = _process(peer)
        told = drive(*("bulk", kind, port, path, GIB), ready=lambda: before.append(process.cpu_seconds()), seconds=60)
        spent = process.cpu_seconds() - before[0]
        took = told["seconds"] * 1e6
        return Sample.of(1, told["seconds"], spent, took, took, int(told["errors"]))

    return Work(name, "GiB", measure, secure)


def _process(peer: Running) -> Process:
    if peer.process is None:
        raise ValueError(f"{peer.name} has no process to measure")
    return peer.process


WORKS = (
    _requests("get-1k"),
    _requests("post-1k"),
    _requests("get-64k"),
    _requests("chunked-16x1k", streams=True),
    _requests("get-1k-tls"),
    _requests("get-64k-tls"),
    _requests("handshake-tls", unit="handshake"),
    _gibibyte("get-1g", "get", routes.ONE_GIB, streams=False),
    _gibibyte("get-1g-tls", "get-tls", routes.ONE_GIB, streams=False),
    _gibibyte("put-1g", "put", routes.UPLOAD, streams=True),
    _messages("websocket"),
    _messages("tcp"),
)
