"""HAProxy: one thread, connections to the origins reused whenever they are safe to, one retry of a failed connect.

It stands here twice. `haproxy` is lean: it adds no field and keeps no request for another try; this is what the aims
speak of. `haproxy-full` adds the fields that sidecar adds and retries what sidecar retries, for a quarter more CPU.

Two descriptors a connection must fit into the usual hard limit of 20,000, hence its `maxconn`.
"""

from pathlib import Path

from benchmarks.rig.certificate import certificate
from benchmarks.rig.origin import Origin
from benchmarks.rig.ports import Ports
from benchmarks.rig.routes import ROUTES, STREAMS_ROUTE

_CONFIG = """
global
  nbthread 1
  maxconn 9900
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 15s
  timeout http-request 10s
  timeout http-keep-alive 75s
  timeout queue 1s
  timeout tunnel 1h
  retries 1
{retry}
  http-reuse always
frontend inbound
  bind 127.0.0.1:{listen} backlog 4096
  bind 127.0.0.1:{tls} backlog 4096 ssl crt {pem} alpn http/1.1 ssl-min-ver TLSv1.3
{fields}
{rules}
backend files
  server origin 127.0.0.1:{files} maxconn 1024 pool-max-conn 256
backend streams
  server origin 127.0.0.1:{streams} maxconn 1024 pool-max-conn 256
frontend tcp
  mode tcp
  bind 127.0.0.1:{tcp} backlog 4096
  default_backend echo
backend echo
  mode tcp
  retry-on conn-failure
  server origin 127.0.0.1:{echo}
"""


_RETRY = "  retry-on conn-failure empty-response 502 503 504"
_FIELDS = """
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Request-Id %[uuid()] unless { req.hdr(X-Request-Id) -m found }
"""


class HAProxy:
    """`full`: with the fields and the retries that the other peers have."""

    routes = True

    def __init__(self, full: bool = False) -> None:
        self.name = "haproxy-full" if full else "haproxy"
        self.full = full

    def command(self, directory: Path, ports: Ports, origin: Origin) -> list[str]:
        rules = "\n".join(
            f"  use_backend {'streams' if route == STREAMS_ROUTE else 'files'} if {{ path_beg {route}/ }}"
            for route in ROUTES
        )
        config = directory / "haproxy.cfg"
        config.write_text(
            _CONFIG.format(
                listen=ports.files,
                tls=ports.tls,
                pem=certificate(directory),
                tcp=ports.tcp,
                files=origin.files,
                streams=origin.streams,
                echo=origin.echo,
                rules=rules,
                retry=_RETRY if self.full else "",
                fields=_FIELDS if self.full else "",
            )
        )
        return ["haproxy", "-db", "-f", str(config)]
