"""Where the proxy listens, and which request goes to which upstream under which rules."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from sidecar.config.kinds import (
    Authority,
    Bind,
    Doc,
    Duration,
    FieldValue,
    Flag,
    HostPattern,
    Method,
    Name,
    Network,
    Positive,
    PositiveDuration,
    RetryConditions,
    Section,
    Size,
    Text,
    Token,
    UrlPath,
    whole,
    words,
)
from sidecar.config.tls import ListenerTls

Codec = Annotated[str, words("fast", "h11")]
KIB, MIB = 1 << 10, 1 << 20


class Match(Section, frozen=True, kw_only=True):
    """Which requests a route takes: all conditions given must hold; none given takes everything."""

    host: Annotated[
        HostPattern | None, Doc("The request's host without its port: exact, or *.example.com for any name below it.")
    ] = None
    path: Annotated[UrlPath | None, Doc("The path, exact, without the query.")] = None
    path_prefix: Annotated[
        UrlPath | None, Doc("The path begins with these whole segments: /v1 takes /v1 and /v1/x, not /v10.")
    ] = None
    methods: Annotated[tuple[Method, ...], Doc("The method is one of these. Empty: any.")] = ()
    headers: Annotated[
        Mapping[Token, FieldValue], Doc("Each named header is there with exactly this value. Names in any case.")
    ] = msgspec.field(default_factory=dict)


class Retry(Section, frozen=True, kw_only=True):
    """When a try that failed is followed by another. Never after a byte of the answer went to the client."""

    attempts: Annotated[Positive, Doc("Tries in all, the first one counted.", "Envoy: num_retries 1")] = 2
    per_try_timeout: Annotated[
        PositiveDuration | None,
        Doc("Each try until the head of its answer. null: only the route's timeout bounds it.", "Envoy"),
    ] = None
    retry_on: Annotated[
        RetryConditions,
        Doc(
            "What is worth another try: connect_failure (nothing was sent), reset (the connection broke before an "
            "answer), timeout (per_try_timeout), bad_response (not HTTP), or statuses.",
            "nginx proxy_next_upstream and Envoy gateway-error: 502, 503, 504",
        ),
    ] = frozenset({"connect_failure", "reset", 502, 503, 504})
    backoff: Annotated[
        Duration, Doc("The wait before the second try; doubles each time, with full jitter.", "Envoy: 25 ms")
    ] = 0.025
    backoff_max: Annotated[Duration, Doc("No wait grows beyond this.", "Envoy: ten times the base, 250 ms")] = 0.25
    methods: Annotated[
        tuple[Method, ...],
        Doc("Only these are tried again once a byte of the request was sent.", "the idempotent ones, RFC 9110 §9.2.2"),
    ] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")


class CacheFallback(Section, frozen=True, kw_only=True):
    """The last good answer to the same request, marked as stale."""

    max_age: Annotated[PositiveDuration, Doc("An answer older than this is not used.")]
    max_bytes: Annotated[
        Size, Doc("Memory for the kept answers of this route.", "an eighth of the usual memory limit of 128 MiB")
    ] = 16 * MIB
    across_authorization: Annotated[
        Flag,
        Doc("Also keep answers to requests that carried Authorization, for every caller.", "RFC 9111 §3.5 forbids it"),
    ] = False


class RespondFallback(Section, frozen=True, kw_only=True):
    """A fixed answer."""

    status: Annotated[Annotated[int, whole(200, 599)], Doc("The status.", "RFC 9110 §15.6.4: Service Unavailable")] = (
        503
    )
    headers: Annotated[Mapping[Token, FieldValue], Doc("The header fields.")] = msgspec.field(default_factory=dict)
    body: Annotated[Text, Doc("The body, sent as UTF-8.")] = ""


class Fallback(Section, frozen=True, kw_only=True):
    """What answers when the upstream may not or cannot: exactly one of the three."""

    one_of = ("upstream", "cache", "respond")

    upstream: Annotated[Name | None, Doc("Another upstream is asked instead.")] = None
    cache: Annotated[CacheFallback | None, Doc("The last good answer.")] = None
    respond: Annotated[RespondFallback | None, Doc("A fixed answer.")] = None


class Route(Section, frozen=True, kw_only=True):
    """One rule of a listener: which requests, to which upstream, with which patience."""

    name: Annotated[Name, Doc("Names the route in metrics and logs; unique within its listener.")]
    match: Annotated[
        Match, Doc("Which requests it takes. Routes are tried from top to bottom; the first that matches wins.")
    ] = Match()
    upstream: Annotated[Name, Doc("The upstream that answers.")]
    timeout: Annotated[
        PositiveDuration,
        Doc("Until the head of the answer, retries included; afterwards the idle limits hold.", "Envoy: 15 s"),
    ] = 15.0
    retry: Annotated[Retry | None, Doc("When to try again. Absent: never.")] = None
    fallback: Annotated[
        tuple[Fallback, ...],
        Doc(
            "Tried in order, before any byte went to the client: when the breaker is open, nothing is healthy, limits "
            "overflow, the connection fails, time runs out, or the answer is 502 to 504. Absent: none."
        ),
    ] = ()
    breaker: Annotated[
        Annotated[str, words("own")] | None,
        Doc("own: this route has a breaker of its own beside the upstream's, with the upstream's settings."),
    ] = None
    host_rewrite: Annotated[
        Authority | None,
        Doc("The Host that the upstream sees. null: the client's own, as RFC 9110 §7.2 wants it kept."),
    ] = None
    upgrades: Annotated[
        tuple[Token, ...], Doc("Protocols a request may switch to (Upgrade). Others are not passed on.", "RFC 6455")
    ] = ("websocket",)


class Listener(Section, frozen=True, kw_only=True):
    """One address that the proxy listens on."""

    name: Annotated[Name, Doc("Names the listener in metrics and logs; unique.")]
    bind: Annotated[Bind, Doc("Where it listens. Port 0: any free port.")]
    protocol: Annotated[
        Annotated[str, words("http", "tcp")],
        Doc("http routes requests; tcp passes bytes to the upstream of its only route (gRPC and HTTP/2 go this way)."),
    ] = "http"
    routes: Annotated[tuple[Route, ...], Doc("Its routes. A tcp listener has exactly one, without conditions.")] = ()
    codec: Annotated[Codec | None, Doc("The HTTP parser of this listener. null: the one named at the top.")] = None
    header_read_timeout: Annotated[
        PositiveDuration,
        Doc("From a request's first byte to the end of its head.", "nginx: 60 s; shorter against slow heads"),
    ] = 10.0
    idle_timeout: Annotated[
        PositiveDuration, Doc("How long a kept-alive connection may wait for its next request.", "nginx: 75 s")
    ] = 75.0
    body_timeout: Annotated[
        PositiveDuration,
        Doc("Between two pieces of a request's body.", "nginx client_body_timeout: 60 s; we take half"),
    ] = 30.0
    write_timeout: Annotated[
        PositiveDuration,
        Doc("A client that takes nothing of its answer for so long is dropped.", "nginx send_timeout: 60 s"),
    ] = 60.0
    half_close_timeout: Annotated[
        PositiveDuration,
        Doc(
            "A client that closed its side after its request gets the answer if it begins within this; else it counts "
            "as gone, and the upstream is spared the rest.",
            "nginx and Go cancel at once; HAProxy waits for ever",
        ),
    ] = 1.0
    max_head: Annotated[Size, Doc("The longest head of a request; longer: 431.", "Envoy: 60 KiB")] = 64 * KIB
    max_target: Annotated[
        Size, Doc("The longest request target; longer: 414.", "nginx: 8 KiB; RFC 9112 §3 asks for 8,000 bytes or more")
    ] = 8 * KIB
    max_fields: Annotated[Positive, Doc("The most header fields of a request; more: 431.", "Envoy, Apache: 100")] = 100
    max_body: Annotated[Size | None, Doc("The longest body of a request; longer: 413. null: no limit.")] = None
    max_connections: Annotated[
        Positive, Doc("At most so many clients at once; more wait in the kernel's queue.", "bounds memory to ≈ 120 MiB")
    ] = 10_000
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Doc(
            "Clients whose X-Forwarded-* are believed and extended, and whose Forwarded passes; others' X-Forwarded-* "
            "are replaced, and their Forwarded is cut out.",
            "Caddy's private_ranges",
        ),
    ] = (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
    )
    tls: Annotated[ListenerTls | None, Doc("TLS towards the clients. Absent: plain.")] = None
