"""TLS: what makes sense only together, and what contradicts itself. `runtime/tls.py` looks into the files."""

from collections.abc import Iterator

from sidecar.config.document import Config
from sidecar.config.faults import Path
from sidecar.config.listeners import Listener
from sidecar.config.problem import Problem
from sidecar.config.tls import ListenerTls, UpstreamTls


def problems(config: Config) -> Iterator[Problem]:
    """Yield what contradicts itself in the `tls` sections."""
    for i, listener in enumerate(config.listeners):
        if listener.tls:
            yield from _listener(listener, listener.tls, ("listeners", i, "tls"))
    for i, upstream in enumerate(config.upstreams):
        if upstream.tls:
            yield from _upstream(upstream.tls, ("upstreams", i, "tls"))


def _listener(listener: Listener, tls: ListenerTls, path: Path) -> Iterator[Problem]:
    if not tls.client_ca_file:
        needs = {
            "client_certificate": tls.client_certificate == "optional",
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


def _upstream(tls: UpstreamTls, path: Path) -> Iterator[Problem]:
    if bool(tls.cert_file) != bool(tls.key_file):
        yield Problem(path, "cert_file and key_file go together: give both or none")
    if not tls.verify:
        yield Problem((*path, "verify"), "anyone can pretend to be this upstream", warning=True)
        if tls.ca_file:
            yield Problem((*path, "ca_file"), "ca_file contradicts verify: false, which trusts everybody")
