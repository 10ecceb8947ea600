"""Where one proxy listens: the same word for every peer."""

from dataclasses import dataclass
from typing import Self

from benchmarks.rig.process import free_port


@dataclass(frozen=True)
class Ports:
    """Ports of 127.0.0.1. `files` and `streams` are one listener for a proxy that routes, two for the bare relay."""

    files: int
    streams: int
    tcp: int
    tls: int
    """`files` and `streams` by TLS 1.3; 0 for the bare relay, which has none."""

    @classmethod
    def free(cls, routes: bool) -> Self:
        """Unused ports; one for both kinds of HTTP when the proxy `routes`."""
        files = free_port()
        return cls(files, files if routes else free_port(), free_port(), free_port() if routes else 0)

    def all(self) -> list[int]:
        """Each that there is, once."""
        return sorted({self.files, self.streams, self.tcp, self.tls} - {0})
