"""What the service needs but the proxy does not carry: how to see that it is alive."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from sidecar.config.kinds import (
    Address,
    Doc,
    Duration,
    FieldValue,
    HttpUrl,
    Name,
    Path,
    Positive,
    PositiveDuration,
    Section,
    Statuses,
    Text,
    Token,
)
from sidecar.config.redis import Redis
from sidecar.config.upstreams import SUCCESSES


class PostgresCheck(Section, frozen=True, kw_only=True):
    """Connects and asks a question that only a working database answers."""

    dsn_file: Annotated[
        Path, Doc("A file with the connection string, a URL or key=value as libpq reads them; read at each check.")
    ]
    query: Annotated[Text, Doc("What is asked; any answer is good.")] = "SELECT 1"


class HttpCheck(Section, frozen=True, kw_only=True):
    """A GET that must answer with an expected status. Redirects are an answer like any other: not followed."""

    one_of = ("url", "urls")

    url: Annotated[HttpUrl | None, Doc("What is asked for.")] = None
    urls: Annotated[
        tuple[HttpUrl, ...] | None,
        Doc("Several services that stand for each other: all answer: healthy; some: degraded; none: unhealthy."),
    ] = None
    expect: Annotated[Statuses, Doc("Statuses that count as alive.", "RFC 9110 §15.3: successful")] = SUCCESSES
    contains: Annotated[
        Text | None, Doc("Text that must stand in the body's first 60 KiB. null: the body is not read.")
    ] = None
    headers: Annotated[Mapping[Token, FieldValue], Doc("Header fields to send.")] = msgspec.field(default_factory=dict)
    token_file: Annotated[
        Path | None, Doc("A file with a bearer token to send, read at each check.", "RFC 6750 §2.1")
    ] = None
    ca_file: Annotated[Path | None, Doc("Authorities to trust with https://, PEM. null: the system's.")] = None


class TcpCheck(Section, frozen=True, kw_only=True):
    """A connection that must open."""

    address: Annotated[Address, Doc("Where to connect.")]


class CommandCheck(Section, frozen=True, kw_only=True):
    """A program that must exit with 0. On time-out it is killed with everything that it started."""

    argv: Annotated[tuple[Text, ...], Doc("The program and its arguments; no shell. Output beyond 64 KiB fails it.")]


class DependencyCheck(Section, frozen=True, kw_only=True):
    """How it is asked: exactly one of these."""

    one_of = ("postgres", "redis", "http", "tcp", "command")

    postgres: Annotated[PostgresCheck | None, Doc("A PostgreSQL database.")] = None
    redis: Annotated[Redis | None, Doc("A Redis: PING.")] = None
    http: Annotated[HttpCheck | None, Doc("An HTTP service.")] = None
    tcp: Annotated[TcpCheck | None, Doc("Anything that accepts connections.")] = None
    command: Annotated[CommandCheck | None, Doc("Whatever a program can find out.")] = None


class Dependency(Section, frozen=True, kw_only=True):
    """Something that must be alive though its traffic does not pass through the proxy."""

    name: Annotated[Name, Doc("Names it in metrics and incidents; unique.")]
    check: Annotated[DependencyCheck, Doc("How it is asked.")]
    interval: Annotated[
        PositiveDuration | None,
        Doc("How often, jittered. null: 30s; 60s for http.", "the requirement: 30 s, an external API 60 s"),
    ] = None
    timeout: Annotated[
        PositiveDuration | None,
        Doc(
            "No answer after this is a failure. null: 5s; 3s for redis, 10s for http; never more than interval.",
            "the requirement: 5 s database, 3 s Redis, 10 s external API",
        ),
    ] = None
    degraded_above: Annotated[
        Duration | None,
        Doc(
            "Answers that take so long mean degraded. null: 1s for postgres, 500ms for redis, else never. 0: never.",
            "the requirement: 1 s database, 500 ms Redis",
        ),
    ] = None
    unhealthy_after: Annotated[Positive, Doc("So many failures in a row make it unhealthy.", "HAProxy fall: 3")] = 3
    healthy_after: Annotated[Positive, Doc("So many successes in a row make it healthy.", "HAProxy rise: 2")] = 2

    @property
    def kind(self) -> str:
        """Which of the checks it is."""
        return next((name for name in DependencyCheck.one_of if getattr(self.check, name) is not None), "")


class Timing(NamedTuple):
    """When a dependency is asked and how long it may take, in seconds; null means what the requirement says."""

    interval: float
    timeout: float
    degraded_above: float | None


_REQUIRED = {"postgres": Timing(30.0, 5.0, 1.0), "redis": Timing(30.0, 3.0, 0.5), "http": Timing(60.0, 10.0, None)}
_OTHERS = Timing(30.0, 5.0, None)


def timing(dependency: Dependency) -> Timing:
    """The figures that hold for `dependency`: its own, else those of its kind."""
    usual = _REQUIRED.get(dependency.kind, _OTHERS)
    interval = usual.interval if dependency.interval is None else dependency.interval
    timeout = min(usual.timeout, interval) if dependency.timeout is None else dependency.timeout
    limit = usual.degraded_above if dependency.degraded_above is None else dependency.degraded_above
    return Timing(interval, timeout, limit if limit and limit < timeout else None)
