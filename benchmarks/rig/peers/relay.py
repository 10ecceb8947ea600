"""The uvloop relay as a peer: one listener for each origin, since it cannot route."""

import sys
from pathlib import Path

from benchmarks.rig.origin import Origin
from benchmarks.rig.ports import Ports


class Relay:
    name = "relay"
    routes = False

    def command(self, _: Path, ports: Ports, origin: Origin) -> list[str]:
        pairs = [f"{ports.files}={origin.files}", f"{ports.streams}={origin.streams}", f"{ports.tcp}={origin.echo}"]
        return [sys.executable, "-m", "benchmarks.rig.relay", *pairs]
