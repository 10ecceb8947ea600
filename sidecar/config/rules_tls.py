"""TLS: what makes sense only together, and what contradicts itself. `runtime/tls.py` looks into the files."""

from collections.abc import Iterator

from sidecar.config.document import Config
from sidecar.config.faults import Path
from sidecar.config.listeners import Listener
from sidecar.config.problem import Problem
from sidecar.config.tls import ListenerTls, UpstreamTls
from sidecar.config.upstreams import Upstream


def problems(config: Config) -> Iterator[Problem]:
    """Yield what contradicts itself in the `tls` sections."""
    for i, listener in enumerate(config.listeners):
        if listener.tls:
            yield from _listener(listener, listener.tls, ("listeners", i, "tls"))
    for i, upstream in enumerate(config.upstreams):
        if upstream.tls:
            yield from _upstream(upstream, upstream.tls, ("upstreams", i, "tls"), config)
        yield from _health_check(upstream, ("upstreams", i))


def _listener(listener: Listener, tls: ListenerTls, path: Path) -> Iterator[Problem]:
    if not tls.client_ca_file:
        needs = {
            "client_certificate": tls.client_certificate == "optional",
            "client_crl_file": tls.client_crl_file,
            "allowed_clients": tls.allowed_clients,
            "forward_client_cert": tls.forward_client_cert,
        }
        for key, given in needs.items():
            if given:
                yield Problem(
                    (*path, key), f"{key} counts only with client_ca_file: without it nobody is asked for a certificate"
                )
    elif tls.allowed_clients and tls.client_certificate == "optional":
        yield Problem(
            (*path, "allowed_clients"),
            "allowed_clients contradicts client_certificate: optional, which lets in who shows no certificate at all",
        )
    if listener.protocol == "http" and tls.alpn:
        yield Problem((*path, "alpn"), "alpn counts only with protocol: tcp; an http listener speaks http/1.1 alone")
    if listener.protocol == "tcp" and tls.forward_client_cert:
        yield Problem(
            (*path, "forward_client_cert"),
            "forward_client_cert contradicts protocol: tcp, which passes bytes as they are",
        )


def _upstream(upstream: Upstream, tls: UpstreamTls, path: Path, config: Config) -> Iterator[Problem]:
    if bool(tls.cert_file) != bool(tls.key_file):
        yield Problem(path, "cert_file and key_file go together: give both or none")
    if not tls.verify:
        yield Problem((*path, "verify"), "anyone can pretend to be this upstream", warning=True)
        for key in ("ca_file", "allowed_servers"):
            if getattr(tls, key):
                yield Problem((*path, key), f"{key} contradicts verify: false, which trusts everybody")
    elif not (tls.server_name or tls.allowed_servers):
        for endpoint in upstream.endpoints:
            if endpoint.address.startswith("unix:"):
                yield Problem(
                    (*path, "server_name"),
                    f"{endpoint.address} has no name to verify: give server_name or allowed_servers",
                )
    if tls.alpn and reached_by_http(config, upstream.name):
        yield Problem(
            (*path, "alpn"), "alpn counts only where tcp listeners alone lead here; an http listener speaks http/1.1"
        )


def _health_check(upstream: Upstream, path: Path) -> Iterator[Problem]:
    if upstream.health_check and upstream.health_check.tls and not upstream.tls:
        yield Problem((*path, "health_check", "tls"), "health_check.tls needs the upstream's tls: an empty one is {}")


def reached_by_http(config: Config, upstream: str) -> bool:
    """Whether an http listener's requests may go to this upstream: by a route, a fallback or a recovery's rerouting."""
    reroutes = [rule.do.reroute for rule in config.recovery if rule.do.reroute and rule.do.reroute.to == upstream]
    names = {upstream, *(one.upstream for one in reroutes)}
    return any(
        not names.isdisjoint({route.upstream, *(one.upstream for one in route.fallback)})
        for listener in config.listeners
        if listener.protocol == "http"
        for route in listener.routes
    )
