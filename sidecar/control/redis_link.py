"""The link to the shared Redis: one connection, and a reconnect loop of its own.

Everybody who shares through Redis uses this. It is never on a request's way, and Redis is allowed to be away: a
command then raises `RedisGone` at once and the link goes on knocking, with growing, jittered pauses. Nothing is tried
twice behind our back: what times out costs the connection, and whoever asked decides.

Each connection is opened anew from the configuration (`redis_server.py`); a server that answers READONLY is a master no
more and is left.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis

from sidecar.base.backoff import full_jitter
from sidecar.base.errors import SidecarError
from sidecar.control.redis_server import TIMEOUT_SECONDS, Server, open_server
from sidecar.control.redis_wire import Replica
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sidecar.config.redis import Redis as RedisConfig
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
_SHORTEST_PAUSE = 0.05
_NOT_THE_ONE = {"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS"}
_ADVICE = (
    ("READONLY", "let shared_state.redis lead to the master, or name its sentinels"),
    ("NOAUTH", "give shared_state.redis.password_file"),
    ("WRONGPASS", "check shared_state.redis.username and the file that password_file names; it is read at each try"),
    ("AUTH", "check shared_state.redis.username and the file that password_file names; it is read at each try"),
    ("NOPERM", "allow the user the commands and keys of the namespace (ACL SETUSER)"),
    ("unknown command", "use Redis 6 or later"),
    ("OOM", "give Redis more memory (maxmemory): it refuses writes"),
    ("CERTIFICATE", "check shared_state.redis.ca_file and the names in the server's certificate"),
    ("SSL", "check that the server speaks TLS at this port, and shared_state.redis.url"),
    ("No such file", "check the paths of password_file and ca_file"),
    ("no answer in time", "check host, port, and whether TLS is spoken there, in shared_state.redis.url"),
    ("refused", "start Redis, or check host and port of shared_state.redis.url"),
    ("Connect call failed", "start Redis, or check host and port of shared_state.redis.url"),
)


class RedisGone(SidecarError):
    """Redis cannot be reached now; the link is trying."""


class RedisRefused(SidecarError):
    """Redis is there and does not do it; the text is its reason."""


class Script:
    """A Lua script, known by its hash."""

    def __init__(self, text: str, name: str = "other") -> None:
        """`name`: its word on the metric."""
        self.text = text
        self.name = name
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Keeps one connection alive while `run` runs."""

    def __init__(self, config: RedisConfig, registry: Registry, observer: Observer) -> None:
        self._config = config
        self._registry = registry
        self._observer = observer
        self._server: Server | None = None
        self._lost = asyncio.Event()
        self.tried = asyncio.Event()
        """Set once the first try to connect has ended, one way or the other."""
        self._under_way: set[asyncio.Task[Any]] = set()
        self._watchers: list[Callable[[bool], None]] = []
        self._channels: dict[str, Callable[[bytes], None]] = {}
        self._connected = registry.cell(series.SHARED_STATE_CONNECTED)
        self._connected.value = 0
        self._heard = monotonic()
        registry.gauge_function(series.SHARED_STATE_STALENESS, lambda: monotonic() - self._heard)
        self.reason = "not connected yet"
        """Why it is down, for people; empty while it is up."""

    @property
    def up(self) -> bool:
        """Whether commands have a chance."""
        return self._server is not None

    def on_change(self, tell: Callable[[bool], None]) -> None:
        """Call `tell(up)` whenever the link comes up or goes down."""
        self._watchers.append(tell)

    def subscribe(self, channel: str, hear: Callable[[bytes], None]) -> None:
        """Call `hear(payload)` for what is said on the channel while the link is up. Set up before `run`."""
        self._channels[channel] = hear

    def _heard_on(self, channel: bytes, payload: bytes) -> None:
        hear = self._channels.get(channel.decode(errors="replace"))
        if hear is not None:
            hear(payload)

    async def run(self) -> None:
        """Connect, wait until the connection is lost, connect again. Until cancelled."""
        step = 0
        try:
            while True:
                try:
                    server = await self._open()
                except Exception as error:  # noqa: BLE001 - whatever a server or a file does to us, we knock again
                    self.reason = _one_line(error)
                    self.tried.set()
                    self._tell(Kind.SHARED_STATE_UNREACHABLE, Level.WARNING, reason=self.reason, every=300.0)
                    self._count("connect", "gone")
                    pause = full_jitter(step, FIRST_PAUSE, LONGEST_PAUSE, random.random)
                    await asyncio.sleep(max(_SHORTEST_PAUSE, pause))
                    step += 1
                    continue
                step = 0
                self._lost.clear()
                self._server = server
                server.closed.add_done_callback(lambda closed, server=server: self._closed(server, closed))  # type: ignore[misc]
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
        server = self._server
        if server is None:
            raise RedisGone(self.reason)
        words = (str(len(keys)), *keys, *arguments)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await _evaluate(server.ask, script, words)
        except _errors() as error:
            if _means_lost(error):
                self._count(script.name, "gone")
                if self._server is server:
                    self._drop(_one_line(error))
                raise RedisGone(_one_line(error)) from None
            self._count(script.name, "refused")
            raise RedisRefused(_one_line(error)) from None
        self._count(script.name, "ok")
        self._heard = monotonic()
        return answer

    def _count(self, operation: str, result: str) -> None:
        self._registry.cell(series.SHARED_STATE_OPERATIONS, operation, result).value += 1

    async def _open(self) -> Server:
        sentinels = len(self._config.sentinel.addresses) if self._config.sentinel else 0
        async with asyncio.timeout((2 + sentinels) * TIMEOUT_SECONDS):  # each may be one that never answers
            server = await open_server(self._config, self._heard_on)
            try:
                for channel in self._channels:
                    await self._listen(server, channel)
            except BaseException:
                await server.leave()
                raise
            return server

    async def _listen(self, server: Server, channel: str) -> None:
        try:
            await server.hints.subscribe(channel)
        except hiredis.ReplyError as error:  # a user without the right to channels: then without hints
            reason = _one_line(error)
            self._observer.tell(Kind.SHARED_STATE_DEAF, "shared_state", level=Level.WARNING, reason=reason,
                                advice=f"allow the user the channel {channel} (ACL &); until then news comes late",
                                every=3600.0)  # fmt: skip

    def _closed(self, server: Server, closed: asyncio.Future[str]) -> None:
        if self._server is server and not closed.cancelled():
            self._drop(closed.result())

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone: then nobody else fetches it

    def _drop(self, reason: str, *, loud: bool = True) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self.reason = reason
        if loud:
            self._tell(Kind.SHARED_STATE_LOST, Level.WARNING, reason=reason)
        self._set(up=False)
        closing = asyncio.ensure_future(server.leave())
        self._under_way.add(closing)
        closing.add_done_callback(self._done)
        self._lost.set()

    def _tell(self, kind: Kind, level: Level = Level.INFO, *, reason: str | None = None, every: float = 0.0) -> None:
        words = {"advice": advice(reason)} if reason else {}
        self._observer.tell(kind, "shared_state", level=level, reason=reason, every=every, **words)

    def _set(self, *, up: bool) -> None:
        self._connected.value = int(up)
        if up:
            self.reason = ""
            self.tried.set()
            self._tell(Kind.SHARED_STATE_CONNECTED)
        for tell in self._watchers:
            tell(up)


async def _evaluate(ask: Callable[..., Awaitable[Any]], script: Script, words: tuple[str | int, ...]) -> Any:
    """EVALSHA, and EVAL where the server does not know the script yet."""
    try:
        return await ask("EVALSHA", script.sha, *words)
    except _errors() as error:
        if not isinstance(error, hiredis.ReplyError) and type(error).__name__ != "NoScriptError":
            raise
        if isinstance(error, hiredis.ReplyError) and not str(error).startswith("NOSCRIPT"):
            raise
        return await ask("EVAL", script.text, *words)


def _errors() -> tuple[type[Exception], ...]:
    """What a command may raise; asyncio's TimeoutError is an OSError. The library's are there when it is in use."""
    import sys

    library = sys.modules.get("redis.exceptions")
    return (OSError, hiredis.ReplyError) if library is None else (OSError, hiredis.ReplyError, library.RedisError)


def _means_lost(error: Exception) -> bool:
    """Whether this server is not the one to ask."""
    if isinstance(error, OSError):
        return True
    if isinstance(error, hiredis.ReplyError):
        return str(error).partition(" ")[0] in _NOT_THE_ONE
    from redis import exceptions

    return isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError,
                              exceptions.ClusterError, exceptions.ClusterDownError))  # fmt: skip


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no answer in time"
    if isinstance(error, (hiredis.ReplyError, Replica)):
        return text[:300]  # it begins with the server's own word
    return f"{type(error).__name__}: {text}"[:300]


def advice(reason: str) -> str:
    """What to do about it, for people."""
    return next((text for sign, text in _ADVICE if sign in reason), "nothing: calls go on, and the link goes on trying")
