"""How to reach a Redis: a single server, Sentinel or Cluster; and what replicas share through it."""

from typing import Annotated

from sidecar.config.kinds import Address, Doc, Flag, Name, Path, PositiveDuration, RedisUrl, Section, Text


class Sentinel(Section, frozen=True, kw_only=True):
    """Redis Sentinel: who the master is, is asked there."""

    master: Annotated[Text, Doc("The name under which the sentinels know the master.")]
    addresses: Annotated[tuple[Address, ...], Doc("The sentinels.")]
    username: Annotated[Text | None, Doc("The user at the sentinels.")] = None
    password_file: Annotated[Path | None, Doc("A file with the sentinels' password.")] = None


class Redis(Section, frozen=True, kw_only=True):
    """One Redis to talk to."""

    url: Annotated[
        RedisUrl | None,
        Doc("redis://host:port/db, rediss:// for TLS, unix:///path. With sentinel, only scheme and database count."),
    ] = None
    username: Annotated[Text | None, Doc("The user (Redis ACL). null: the default user.")] = None
    password_file: Annotated[Path | None, Doc("A file with the password, read at each connection.")] = None
    sentinel: Annotated[Sentinel | None, Doc("Ask sentinels for the master. Absent: the URL's host is it.")] = None
    cluster: Annotated[Flag, Doc("Whether the URL leads to a Redis Cluster.")] = False
    ca_file: Annotated[Path | None, Doc("Authorities to trust with rediss://, PEM. null: the system's.")] = None


class Registration(Section, frozen=True, kw_only=True):
    """This instance's entry in the registry, under `service.name`, for `discovery: {registry: NAME}` elsewhere."""

    advertise: Annotated[Address, Doc("Where others reach this instance: host:port, such as ${env:POD_IP}:8080.")]
    ttl: Annotated[
        PositiveDuration,
        Doc("Without a sign of life for so long it is gone; it shows three per ttl.", "Consul"),
    ] = 15.0
    upstream: Annotated[
        Name | None,
        Doc(
            "The upstream that is the service itself: with none of its endpoints healthy, this instance is marked as "
            "unavailable. null: it is available while the sidecar is ready."
        ),
    ] = None


class SharedState(Section, frozen=True, kw_only=True):
    """What replicas of the service agree about through Redis. Requests never wait for it."""

    redis: Annotated[Redis, Doc("The Redis they meet at.")]
    namespace: Annotated[Name, Doc("Sidecars with the same namespace share; it begins every key.")] = "default"
    registry: Annotated[
        Registration | None, Doc("How this instance makes itself known. Absent: others do not find it here.")
    ] = None
