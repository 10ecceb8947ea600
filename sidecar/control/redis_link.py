"""The link to the shared Redis: one connection, one command at a time, and a reconnect loop of its own.

Everybody who shares through Redis uses this. It is never on a request's way, and Redis is allowed to be away: a
command then raises `RedisGone` at once and the link goes on knocking, with growing, jittered pauses. The Redis library
is told to retry nothing and to give up early, since its own patience multiplies (a dead server would cost eleven tries
a command) and hides from us that we are alone.

A command that has been sent is never cancelled: its answer would be taken for the next command's. So callers wait
behind a shield, and what times out costs the connection. At each connection the password file is read and sentinels
are asked anew; a server that answers READONLY is a master no more and is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from time import monotonic
from typing import TYPE_CHECKING, Any

from sidecar.base.backoff import full_jitter
from sidecar.base.errors import SidecarError
from sidecar.config.address import parse_address
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.config.redis import Redis as RedisConfig
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

TIMEOUT_SECONDS = 2.0
"""To connect, and for each answer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
_SHORTEST_PAUSE = 0.05


class RedisGone(SidecarError):
    """Redis cannot be reached now; the link is trying."""


class RedisRefused(SidecarError):
    """Redis is there and does not do it; the text is its reason."""


class Script:
    """A Lua script, known by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Keeps one connection alive while `run` runs."""

    def __init__(self, config: RedisConfig, registry: Registry, observer: Observer) -> None:
        self._config = config
        self._observer = observer
        self._client: Any = None
        self._lost = asyncio.Event()
        self.tried = asyncio.Event()
        """Set once the first try to connect has ended, one way or the other."""
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._watchers: list[Callable[[bool], None]] = []
        self._connected = registry.cell(series.SHARED_STATE_CONNECTED)
        self._connected.value = 0
        self._heard = monotonic()
        registry.gauge_function(series.SHARED_STATE_STALENESS, lambda: monotonic() - self._heard)
        self.reason = "not connected yet"
        """Why it is down, for people; empty while it is up."""

    @property
    def up(self) -> bool:
        """Whether commands have a chance."""
        return self._client is not None

    def on_change(self, tell: Callable[[bool], None]) -> None:
        """Call `tell(up)` whenever the link comes up or goes down."""
        self._watchers.append(tell)

    async def run(self) -> None:
        """Connect, wait until the connection is lost, connect again. Until cancelled."""
        step = 0
        try:
            while True:
                try:
                    client = await open_client(self._config)
                except Exception as error:  # noqa: BLE001 - whatever a server or a file does to us, we knock again
                    self.reason = _one_line(error)
                    self.tried.set()
                    self._tell(Kind.SHARED_STATE_UNREACHABLE, Level.WARNING, reason=self.reason, every=300.0)
                    pause = full_jitter(step, FIRST_PAUSE, LONGEST_PAUSE, random.random)
                    await asyncio.sleep(max(_SHORTEST_PAUSE, pause))
                    step += 1
                    continue
                step = 0
                self._lost.clear()
                self._client = client
                self._set(up=True)
                await self._lost.wait()
        finally:
            self._drop("the sidecar stops", loud=False)
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=1.0)

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run a script; its answer as the library gives it (bytes, int, list). Raises RedisGone or RedisRefused."""
        task = asyncio.ensure_future(self._run(script, keys, arguments))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        from redis import exceptions

        async with self._one_at_a_time:
            client = self._client
            if client is None:
                raise RedisGone(self.reason)
            try:
                async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                    try:
                        answer = await client.evalsha(script.sha, len(keys), *keys, *arguments)
                    except exceptions.NoScriptError:
                        answer = await client.eval(script.text, len(keys), *keys, *arguments)
            except _lost() as error:
                self._drop(_one_line(error))
                raise RedisGone(self.reason) from None
            except exceptions.RedisError as error:
                raise RedisRefused(_one_line(error)) from None
            self._heard = monotonic()
            return answer

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: then nobody else fetches it

    def _drop(self, reason: str, *, loud: bool = True) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self.reason = reason
        if loud:
            self._tell(Kind.SHARED_STATE_LOST, Level.WARNING, reason=reason)
        self._set(up=False)
        closing = asyncio.ensure_future(_close(client))
        self._under_way.add(closing)
        closing.add_done_callback(self._done)
        self._lost.set()

    def _tell(self, kind: Kind, level: Level = Level.INFO, *, reason: str | None = None, every: float = 0.0) -> None:
        self._observer.tell(kind, "shared_state", level=level, reason=reason, every=every)

    def _set(self, *, up: bool) -> None:
        self._connected.value = int(up)
        if up:
            self.reason = ""
            self.tried.set()
            self._tell(Kind.SHARED_STATE_CONNECTED)
        for tell in self._watchers:
            tell(up)


def _lost() -> tuple[type[Exception], ...]:
    """What means that this server is not the one to ask; asyncio's TimeoutError is an OSError."""
    from redis import exceptions

    return (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError, exceptions.ClusterError,
            exceptions.ClusterDownError, OSError)  # fmt: skip


async def open_client(config: RedisConfig) -> Any:
    """A client with a connection that answers, of the sort that `config` asks for. Raises what goes wrong."""
    client = _client(config)
    try:
        async with asyncio.timeout(2 * TIMEOUT_SECONDS):
            await client.ping()
    except BaseException:
        await _close(client)
        raise
    return client


def _client(config: RedisConfig) -> Any:
    from redis import asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "username": config.username,
        "password": _secret(config.password_file),
    }
    url = config.url or "redis://"
    if url.startswith("rediss://") and config.ca_file:
        options["ssl_ca_certs"] = config.ca_file
    if config.cluster:
        return redis.RedisCluster.from_url(url, **options)
    if config.sentinel is None:
        return redis.Redis.from_url(url, single_connection_client=True, **options)
    from redis.asyncio.sentinel import Sentinel

    asked = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "username": config.sentinel.username,
        "password": _secret(config.sentinel.password_file),
    }
    addresses = [parse_address(text) for text in config.sentinel.addresses]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(one.host, one.port) for one in addresses], sentinel_kwargs=asked
    )
    from_url = redis.ConnectionPool.from_url(url).connection_kwargs
    options |= {key: from_url[key] for key in ("db",) if key in from_url}
    if url.startswith("rediss://"):
        options["ssl"] = True
    return sentinel.master_for(config.sentinel.master, **options)


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="utf-8") as stream:
        return stream.read().rstrip("\r\n")


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await client.aclose()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no answer in time"
    return f"{type(error).__name__}: {text}"[:300]
