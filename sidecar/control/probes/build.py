"""From what the configuration says to the probes that ask it. Each kind is imported when the first of it is built."""

import functools
import ssl
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from sidecar.config.address import Address, parse_address
from sidecar.config.dependencies import Dependency, HttpCheck
from sidecar.config.upstreams import HealthCheck
from sidecar.control.probes.probe import Probe
from sidecar.runtime.calling import Calling


def endpoint_probe(check: HealthCheck, address: str, tls: Callable[[], Calling | None] | None = None) -> Probe:
    """The probe of one endpoint of an upstream; `tls`: how it is called at the time of asking, None for plain."""
    if check.tls is False:
        tls = None
    endpoint = parse_address(address)
    if check.http is not None:
        from sidecar.control.probes.http import HttpProbe

        http = check.http
        target = _elsewhere(endpoint, http.port)
        return HttpProbe(
            target,
            authority=http.host or _authority(target),
            path=http.path,
            expect=http.expect,
            contains=http.contains,
            headers=http.headers,
            tls=tls,
        )
    if check.grpc is not None:
        from sidecar.control.probes.grpc import GrpcProbe

        target = _elsewhere(endpoint, check.grpc.port)
        authority = check.grpc.host or _authority(target)
        return GrpcProbe(target, authority=authority, service=check.grpc.service or "", tls=tls)
    assert check.tcp is not None, "the configuration has exactly one kind"
    from sidecar.control.probes.tcp import TcpProbe

    return TcpProbe(_elsewhere(endpoint, check.tcp.port), tls)


def tcp_probe(address: str) -> Probe:
    """Whether an endpoint takes a connection."""
    from sidecar.control.probes.tcp import TcpProbe

    return TcpProbe(parse_address(address))


def dependency_probes(dependency: Dependency) -> dict[str, Probe]:
    """What is asked -> its probe. Several only where several services stand for each other."""
    check = dependency.check
    if check.http is not None:
        urls = check.http.urls or (check.http.url or "",)
        return {_shown(url): _url_probe(url, check.http) for url in urls}
    if check.postgres is not None:
        from sidecar.control.probes.postgres import PostgresProbe

        return {"postgres": PostgresProbe(check.postgres.dsn_file, check.postgres.query)}
    if check.redis is not None:
        from sidecar.control.probes.redis import RedisProbe

        return {"redis": RedisProbe(check.redis, functools.partial(_trusting, check.redis.ca_file))}
    if check.command is not None:
        from sidecar.control.probes.command import CommandProbe

        return {check.command.argv[0]: CommandProbe(check.command.argv)}
    assert check.tcp is not None, "the configuration has exactly one kind"
    from sidecar.control.probes.tcp import TcpProbe

    return {check.tcp.address: TcpProbe(parse_address(check.tcp.address))}


def _url_probe(url: str, check: HttpCheck) -> Probe:
    from sidecar.control.probes.http import HttpProbe

    parts = urlsplit(url)
    encrypted = parts.scheme == "https"
    target = Address(host=parts.hostname or "", port=parts.port or (443 if encrypted else 80))
    path = quote(parts.path or "/", safe="!$%&'()*+,/:;=@~") + (
        f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
    )
    return HttpProbe(
        target,
        authority=parts.netloc.rpartition("@")[2],
        path=path,
        expect=check.expect,
        contains=check.contains,
        headers=check.headers,
        token_file=check.token_file,
        tls=functools.partial(_trusting, check.ca_file) if encrypted else None,
    )


_QUERY = "!$%&'()*+,/:;=?@~"


def _shown(url: str) -> str:
    """The URL without what may be a secret: login and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _elsewhere(endpoint: Address, port: int | None) -> Address:
    return endpoint if port is None else endpoint._replace(port=port)


def _authority(target: Address) -> str:
    return "localhost" if target.is_unix else str(target)


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    """A file of one's own is read at each check, so that it may be replaced; the system's authorities once for all.

    Takes up to 80 ms of CPU: call it in a thread.
    """
    return _system() if ca_file is None else ssl.create_default_context(cafile=ca_file)


@functools.cache
def _system() -> ssl.SSLContext:
    return ssl.create_default_context()
