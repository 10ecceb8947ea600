"""sidecar: metrics, time-outs, breaker, retry and retry budget on; the access log off, as for its peers."""

import sys
from pathlib import Path

import yaml

from benchmarks.rig.certificate import certificate
from benchmarks.rig.origin import Origin
from benchmarks.rig.ports import Ports
from benchmarks.rig.process import free_port
from benchmarks.rig.routes import ROUTES, STREAMS_ROUTE


class Sidecar:
    """`executable` is the `sidecar` command of the build to measure; by default the one beside this interpreter."""

    routes = True

    def __init__(self, name: str, executable: str | None = None, codec: str = "fast") -> None:
        self.name = name
        self.executable = executable or str(Path(sys.executable).with_name("sidecar"))
        self.codec = codec

    def command(self, directory: Path, ports: Ports, origin: Origin) -> list[str]:
        config = directory / "sidecar.yaml"
        pem = str(certificate(directory))
        routes = [
            {
                "name": route.strip("/"),
                "match": {"path_prefix": route},
                "upstream": "streams" if route == STREAMS_ROUTE else "files",
                "timeout": "15s",
                "retry": {"attempts": 2, "per_try_timeout": "5s"},
            }
            for route in ROUTES
        ]
        document = {
            "version": 1,
            "service": {"name": "bench"},
            "admin": {"bind": f"127.0.0.1:{free_port()}", "socket": str(directory / "admin.sock")},
            "workers": 1,
            "codec": self.codec,
            "listeners": [
                {"name": "inbound", "bind": f"127.0.0.1:{ports.files}", "max_connections": 20000, "routes": routes},
                {
                    "name": "secure",
                    "bind": f"127.0.0.1:{ports.tls}",
                    "tls": {"cert_file": pem, "key_file": pem, "min_version": "1.3"},
                    "max_connections": 20000,
                    "routes": routes,
                },
                {
                    "name": "tcp",
                    "bind": f"127.0.0.1:{ports.tcp}",
                    "protocol": "tcp",
                    "routes": [{"name": "echo", "upstream": "echo"}],
                },
            ],
            "upstreams": [
                {
                    "name": name,
                    "endpoints": [{"address": f"127.0.0.1:{port}"}],
                    "retry_budget": {"ratio": 0.2, "min_per_second": 3},
                }
                for name, port in (("files", origin.files), ("streams", origin.streams), ("echo", origin.echo))
            ],
        }
        config.write_text(yaml.safe_dump(document, sort_keys=False))
        return [self.executable, "run", "-c", str(config)]
