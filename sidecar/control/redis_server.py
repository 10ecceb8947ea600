"""A Redis that answers: the one that the configuration names, the master that its sentinels name, or a cluster.

Commands and channels share one connection (`redis_wire.py`). At each opening the password file is read and sentinels
are asked anew. In a cluster the library finds the nodes, and channels are heard on a connection of their own to one of
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.config.address import parse_address
from sidecar.control.redis_wire import Heard, Target, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.redis import Redis as RedisConfig
    from sidecar.config.redis import Sentinel as SentinelConfig

TIMEOUT_SECONDS = 2.0
"""To connect, and for each answer."""


class Server(NamedTuple):
    """A Redis that answers."""

    ask: Callable[..., Awaitable[Any]]
    """One command's answer."""
    hints: Wire
    """The connection on which channels are heard."""
    closed: asyncio.Future[str]
    leave: Callable[[], Awaitable[None]]


async def open_server(config: RedisConfig, heard: Heard) -> Server:
    """A Redis that answers, of the sort that `config` asks for. Raises what goes wrong."""
    from redis.asyncio.connection import parse_url

    url = config.url or "redis://"
    said: dict[str, Any] = dict(parse_url(url))
    target = Target(
        host=said.get("host") or "127.0.0.1",
        port=said.get("port") or 6379,
        path=said.get("path") or "",
        database=said.get("db") or 0,
        username=config.username or said.get("username"),
        password=_secret(config.password_file) or said.get("password"),
        tls=ssl.create_default_context(cafile=config.ca_file) if url.startswith("rediss://") else None,
    )
    if config.cluster:
        return await _open_cluster(config, target, heard)
    if config.sentinel is not None:
        host, port = await _ask_sentinels(config.sentinel)
        target = replace(target, host=host, port=port)
    wire = await Wire.open(target, heard)

    async def leave() -> None:
        wire.close()

    return Server(wire.command, wire, wire.closed, leave)


async def _open_cluster(config: RedisConfig, target: Target, heard: Heard) -> Server:
    from redis import asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "username": target.username,
        "password": target.password,
    }
    if target.tls is not None and config.ca_file:
        options["ssl_ca_certs"] = config.ca_file
    client = redis.RedisCluster.from_url(config.url or "redis://", **options)
    try:
        await client.ping()
        node = client.get_random_node()
        hints = await Wire.open(
            replace(target, host=str(node.host), port=int(node.port), database=0, any_role=True), heard
        )
    except BaseException:
        await _close(client)
        raise

    async def leave() -> None:
        hints.close()
        await _close(client)

    return Server(client.execute_command, hints, hints.closed, leave)


async def _ask_sentinels(config: SentinelConfig) -> tuple[str, int]:
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    asked = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "username": config.username,
        "password": _secret(config.password_file),
    }
    addresses = [parse_address(text) for text in random.sample(config.addresses, len(config.addresses))]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(one.host, one.port) for one in addresses], sentinel_kwargs=asked
    )
    try:
        found: Any = await sentinel.discover_master(config.master)
    finally:
        for client in sentinel.sentinels:
            await _close(client)
    return str(found[0]), int(found[1])


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="utf-8") as stream:
        return stream.read().rstrip("\r\n")


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await client.aclose()
