"""The proxies under test, each started by the same call and configured for the same job.

The job: twenty routes told apart by prefix, one worker on one core, keep-alive to the origins, time-outs on, no access
log, one retry of what failed, `X-Forwarded-For`, `X-Forwarded-Proto` and a request id added, WebSocket passed, the same
once more behind TLS 1.3 with a certificate on P-256, one bare TCP listener. Each peer's file says it in that peer's own
words, and what of it a peer is spared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.rig.machine import cores
from benchmarks.rig.origin import Origin
from benchmarks.rig.peers.envoy import Envoy
from benchmarks.rig.peers.haproxy import HAProxy
from benchmarks.rig.peers.nginx import Nginx
from benchmarks.rig.peers.relay import Relay
from benchmarks.rig.peers.sidecar import Sidecar
from benchmarks.rig.ports import Ports
from benchmarks.rig.process import Process, running


class Peer(Protocol):
    """A proxy that can be started."""

    name: str
    routes: bool
    """It reads HTTP and can tell the origins apart."""

    def command(self, directory: Path, /, ports: Ports, origin: Origin) -> list[str]:
        """Writes the configuration into `directory` and says the command that serves it on `ports`."""
        ...


@dataclass(frozen=True)
class Running:
    """A started peer: where its listeners are, and its process; `process` is None for the origins themselves."""

    name: str
    ports: Ports
    process: Process | None


def peer_named(name: str) -> Peer:
    """The peer for a word of the command line. `NAME=PATH` is the `sidecar` executable at PATH under another name, to
    set two builds side by side; ValueError names what is known.
    """
    label, equals, path = name.partition("=")
    if equals:
        return Sidecar(label, executable=path)
    known: dict[str, Peer] = {
        "nginx": Nginx(),
        "haproxy": HAProxy(),
        "haproxy-full": HAProxy(full=True),
        "envoy": Envoy(),
        "relay": Relay(),
        "sidecar": Sidecar("sidecar"),
        "sidecar-h11": Sidecar("sidecar-h11", codec="h11"),
    }
    if name not in known:
        raise ValueError(f"unknown peer {name!r}; known: {', '.join(known)}, or NAME=PATH")
    return known[name]


@contextmanager
def started(
    peer: Peer, directory: Path, origin: Origin, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Runs the peer on the proxy's core until the block ends. `prefix` goes before its command (a tracer's)."""
    home = directory / peer.name
    home.mkdir()
    home.chmod(0o755)
    ports = Ports.free(peer.routes)
    argv = [*prefix, *peer.command(home, ports, origin)]
    with running(Process(peer.name, argv, cores()[1], home / "output.log", env)) as process:
        for port in ports.all():
            process.wait_listening(port, seconds=120 if prefix else 30)
        yield Running(peer.name, ports, process)
