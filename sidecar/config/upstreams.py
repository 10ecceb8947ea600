"""What the proxy calls: endpoints and how they are found, balanced, limited and checked."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from sidecar.config.breaker import Breaker, Outlier
from sidecar.config.kinds import (
    Address,
    Authority,
    Count,
    DnsName,
    Doc,
    FieldValue,
    Flag,
    HttpUrl,
    Multiplier,
    Name,
    Path,
    Port,
    Positive,
    PositiveDuration,
    Ratio,
    Section,
    ServicePort,
    Size,
    Statuses,
    Text,
    Token,
    UrlPath,
    whole,
    words,
)
from sidecar.config.tls import UpstreamTls

SUCCESSES = frozenset(range(200, 300))


class Endpoint(Section, frozen=True, kw_only=True):
    """One address of an upstream."""

    address: Annotated[Address, Doc("Where it answers.")]
    priority: Annotated[
        Annotated[int, whole(0, 127)], Doc("Lower is tried first; higher as far as too few are left.", "Envoy")
    ] = 0
    weight: Annotated[
        Annotated[int, whole(1, 1000)], Doc("Its share of the calls among equals.", "Envoy, HAProxy: 1")
    ] = 1


class KubernetesDiscovery(Section, frozen=True, kw_only=True):
    """Endpoints from the EndpointSlices of a Kubernetes service. Needs get, list and watch on endpointslices."""

    service: Annotated[Name, Doc("The service's name.")]
    namespace: Annotated[Name | None, Doc("Its namespace. null: the pod's own.")] = None
    port: Annotated[ServicePort, Doc("The port: its name in the service, or the number at which the pods listen.")]
    api: Annotated[HttpUrl | None, Doc("The API server. null: the one that the pod's environment names.")] = None
    token_file: Annotated[
        Path | None, Doc("A file with the bearer token, read at each connection. null: the one mounted into the pod.")
    ] = None
    ca_file: Annotated[
        Path | None, Doc("Authorities to trust for the API server, PEM. null: those mounted into the pod.")
    ] = None


class Discovery(Section, frozen=True, kw_only=True):
    """Where endpoints come from beside those written down. An error keeps the last good answer."""

    one_of = ("dns", "srv", "file", "registry", "kubernetes")

    dns: Annotated[
        Address | None, Doc("host:port; every A and AAAA record is an endpoint. A name without any: no endpoint.")
    ] = None
    srv: Annotated[
        DnsName | None, Doc("A name with SRV records, like _http._tcp.shop.example: hosts, ports, order and weights.")
    ] = None
    server: Annotated[
        Address | None, Doc("The DNS server asked for dns and srv, by its IP address. null: the system's.")
    ] = None
    file: Annotated[Path | None, Doc("A YAML or JSON file with a list of endpoints, watched.")] = None
    registry: Annotated[
        Name | None, Doc("The service's name in the registry that sidecars share (shared_state.registry).")
    ] = None
    kubernetes: Annotated[KubernetesDiscovery | None, Doc("A Kubernetes service.")] = None
    refresh: Annotated[
        PositiveDuration,
        Doc("How often it is asked, jittered; Kubernetes tells by itself.", "Envoy dns_refresh_rate: 5 s"),
    ] = 5.0


class HashKey(Section, frozen=True, kw_only=True):
    """What `balance: ring_hash` hashes."""

    header: Annotated[Token, Doc("The value of this request header; a request without it hashes its client's address.")]


class Limits(Section, frozen=True, kw_only=True):
    """How much may run against one upstream at once. Beyond it the answer is `overflow`, 503."""

    max_connections: Annotated[Positive, Doc("Open connections, all endpoints together.", "Envoy: 1024")] = 1024
    max_pending: Annotated[Count, Doc("Requests that wait for a connection. 0: none waits.", "Envoy: 1024")] = 1024
    max_requests: Annotated[Positive, Doc("Requests under way, the waiting ones included.", "Envoy: 1024")] = 1024
    pending_timeout: Annotated[
        PositiveDuration,
        Doc("A request waits at most this long for a connection.", "a third of the route's default timeout"),
    ] = 5.0


class RetryBudget(Section, frozen=True, kw_only=True):
    """How many retries an upstream is spared: a share of its requests, and a floor for quiet times."""

    ratio: Annotated[Ratio, Doc("Retries as a share of the requests of the last 10 s.", "Linkerd: 20 % over 10 s")] = (
        0.2
    )
    min_per_second: Annotated[Count, Doc("So many retries are always allowed.", "Envoy min_retry_concurrency: 3")] = 3


class HttpProbe(Section, frozen=True, kw_only=True):
    """A GET that must answer with an expected status. Redirects are an answer like any other: not followed."""

    path: Annotated[UrlPath, Doc("The path asked for.", "Envoy and HAProxy ask for /")] = "/"
    expect: Annotated[Statuses, Doc("Statuses that count as healthy.", "Kubernetes takes 200 to 399; we, 2xx")] = (
        SUCCESSES
    )
    contains: Annotated[
        Text | None, Doc("Text that must stand in the body's first 60 KiB. null: the body is not read.")
    ] = None
    headers: Annotated[Mapping[Token, FieldValue], Doc("Header fields to send.")] = msgspec.field(default_factory=dict)
    host: Annotated[Authority | None, Doc("The Host sent. null: the endpoint's address.")] = None
    port: Annotated[Port | None, Doc("Another port than the endpoint's.")] = None


class TcpProbe(Section, frozen=True, kw_only=True):
    """A connection that must open, TLS included where the upstream speaks it."""

    port: Annotated[Port | None, Doc("Another port than the endpoint's.")] = None


class GrpcProbe(Section, frozen=True, kw_only=True):
    """grpc.health.v1.Health/Check over HTTP/2, which must answer SERVING."""

    service: Annotated[
        Text | None, Doc("The service asked about. null: the server as a whole.", "the gRPC health checking protocol")
    ] = None
    host: Annotated[Authority | None, Doc("The :authority sent. null: the endpoint's address.")] = None
    port: Annotated[Port | None, Doc("Another port than the endpoint's.")] = None


class HealthCheck(Section, frozen=True, kw_only=True):
    """Asks every endpoint of the upstream: more often while its state changes, half as often without traffic."""

    one_of = ("http", "tcp", "grpc")

    http: Annotated[HttpProbe | None, Doc("Healthy when a GET answers as expected.")] = None
    tcp: Annotated[TcpProbe | None, Doc("Healthy when a connection opens.")] = None
    grpc: Annotated[GrpcProbe | None, Doc("Healthy when its gRPC health service says SERVING.")] = None
    interval: Annotated[PositiveDuration, Doc("How often, jittered.", "the requirement: 30 s")] = 30.0
    timeout: Annotated[
        PositiveDuration,
        Doc("No answer after this is a failure. Left at its default it ends with interval.", "the requirement: 10 s"),
    ] = 10.0
    unhealthy_after: Annotated[Positive, Doc("So many failures in a row make it unhealthy.", "HAProxy fall: 3")] = 3
    healthy_after: Annotated[Positive, Doc("So many successes in a row make it healthy.", "HAProxy rise: 2")] = 2
    tls: Annotated[
        Flag | None,
        Doc("Whether the check speaks TLS, with the upstream's certificates. null: as the upstream's requests do."),
    ] = None

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        return min(self.timeout, self.interval)


class Upstream(Section, frozen=True, kw_only=True):
    """Something that the proxy calls."""

    name: Annotated[Name, Doc("Names the upstream in routes, metrics, logs and commands; unique.")]
    endpoints: Annotated[tuple[Endpoint, ...], Doc("Its addresses, written down.")] = ()
    discovery: Annotated[Discovery | None, Doc("Where more addresses come from. Absent: none.")] = None
    balance: Annotated[
        Annotated[str, words("least_request", "round_robin", "ring_hash")],
        Doc(
            "least_request takes the less busy of two drawn at random; round_robin takes turns; ring_hash keeps equal "
            "keys at the same endpoint.",
            "Linkerd and Envoy recommend the power of two choices",
        ),
    ] = "least_request"
    hash_key: Annotated[HashKey | None, Doc("What ring_hash hashes. null: the client's address.", "HAProxy source")] = (
        None
    )
    connect_timeout: Annotated[PositiveDuration, Doc("Until a connection is open, TLS included.", "Linkerd: 1 s")] = 1.0
    idle_timeout: Annotated[
        PositiveDuration,
        Doc("An unused connection is closed after this; also the longest silence within an answer.", "nginx: 60 s"),
    ] = 60.0
    tunnel_timeout: Annotated[
        PositiveDuration,
        Doc("A tunnel (WebSocket, tcp listener) in which nothing moves for so long is closed.", "Envoy, HAProxy: 1 h"),
    ] = 3600.0
    limits: Annotated[Limits, Doc("How much may run at once.")] = Limits()
    retry_budget: Annotated[RetryBudget, Doc("How many retries are allowed, whatever the routes say.")] = RetryBudget()
    breaker: Annotated[Breaker, Doc("When it may not be called.")] = Breaker()
    outlier: Annotated[Outlier, Doc("Which endpoints are passed over.")] = Outlier()
    panic_threshold: Annotated[
        Ratio,
        Doc("With fewer healthy endpoints than this share, all are tried again. 0: never.", "Envoy: 50 %"),
    ] = 0.5
    overprovisioning: Annotated[
        Multiplier,
        Doc(
            "A priority level takes its healthy share times this of the requests, at most all; the rest spills over to "
            "the next level.",
            "Envoy overprovisioning_factor: 140 %",
        ),
    ] = 1.4
    health_check: Annotated[HealthCheck | None, Doc("Active checks of its endpoints. Absent: none.")] = None
    max_response_head: Annotated[Size, Doc("The longest head of an answer; longer: 502.", "Envoy: 60 KiB")] = 64 * 1024
    tls: Annotated[UpstreamTls | None, Doc("TLS towards it. Absent: plain.")] = None
