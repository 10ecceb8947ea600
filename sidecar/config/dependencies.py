"""What the service needs but the proxy does not carry: how to see that it is alive."""

from typing import Annotated

from sidecar.config.kinds import (
    Address,
    Doc,
    HttpUrl,
    Name,
    Path,
    Positive,
    PositiveDuration,
    Section,
    Statuses,
    Text,
)
from sidecar.config.redis import Redis
from sidecar.config.upstreams import SUCCESSES


class PostgresCheck(Section, frozen=True, kw_only=True):
    """Connects and asks a question that only a working database answers."""

    dsn_file: Annotated[Path, Doc("A file with the connection string.")]
    query: Annotated[Text, Doc("What is asked; any answer is good.")] = "SELECT 1"


class HttpCheck(Section, frozen=True, kw_only=True):
    """A GET that must answer with an expected status."""

    url: Annotated[HttpUrl, Doc("What is asked for.")]
    expect: Annotated[Statuses, Doc("Statuses that count as alive.", "RFC 9110 §15.3: successful")] = SUCCESSES


class TcpCheck(Section, frozen=True, kw_only=True):
    """A connection that must open."""

    address: Annotated[Address, Doc("Where to connect.")]


class DependencyCheck(Section, frozen=True, kw_only=True):
    """How it is asked: exactly one of these."""

    one_of = ("postgres", "redis", "http", "tcp")

    postgres: Annotated[PostgresCheck | None, Doc("A PostgreSQL database.")] = None
    redis: Annotated[Redis | None, Doc("A Redis: PING.")] = None
    http: Annotated[HttpCheck | None, Doc("An HTTP service.")] = None
    tcp: Annotated[TcpCheck | None, Doc("Anything that accepts connections.")] = None


class Dependency(Section, frozen=True, kw_only=True):
    """Something that must be alive though its traffic does not pass through the proxy."""

    name: Annotated[Name, Doc("Names it in metrics and incidents; unique.")]
    check: Annotated[DependencyCheck, Doc("How it is asked.")]
    interval: Annotated[PositiveDuration, Doc("How often, jittered.", "the requirement: 30 s")] = 30.0
    timeout: Annotated[
        PositiveDuration, Doc("No answer after this is a failure.", "the requirement: 5 s for a database")
    ] = 5.0
    degraded_above: Annotated[
        PositiveDuration | None,
        Doc("Slower answers mean degraded. null: never.", "the requirement: 1 s database, 500 ms Redis"),
    ] = None
    unhealthy_after: Annotated[Positive, Doc("So many failures in a row make it unhealthy.", "HAProxy fall: 3")] = 3
    healthy_after: Annotated[Positive, Doc("So many successes in a row make it healthy.", "HAProxy rise: 2")] = 2
