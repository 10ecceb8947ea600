"""One connection to a Redis, in RESP3: commands with their answers, and what the server says unasked, on one socket.

    wire = await Wire.open(target, heard)         # `heard(channel, payload)`: a message on a channel
    answer = await wire.command("EVALSHA", …)     # bytes, int, list …; raises hiredis.ReplyError, ConnectionError

Answers come in the order of the commands, so commands may be under way together, and one whose caller is gone leaves
its place in the row: nobody gets another's answer. A connection is opened as a whole (TLS, login, database, that the
server is no replica) or not at all. What is buffered of one answer is bounded; a server that sends more is left.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hiredis

LARGEST_ANSWER = 32 * 1024 * 1024
"""Bytes that may wait for the end of one answer or message."""

Heard = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a Redis is and how to be let in."""

    host: str = ""
    port: int = 6379
    path: str = ""
    """A Unix socket instead of host and port."""
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    any_role: bool = False
    """A replica will do."""


class Replica(ConnectionError):
    """The server is there and takes no writes."""


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._row: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why, once it is."""

    @classmethod
    async def open(cls, target: Target, heard: Heard) -> Wire:
        """A connection that is let in; raises OSError, hiredis.ReplyError. The caller bounds its time."""
        loop = asyncio.get_running_loop()
        wire = cls(heard)
        try:
            if target.path:
                await loop.create_unix_connection(lambda: wire, target.path)
            else:
                name = target.host if target.tls else None
                await loop.create_connection(
                    lambda: wire, target.host, target.port, ssl=target.tls, server_hostname=name
                )
            await wire._enter(target)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _enter(self, target: Target) -> None:
        login = [] if target.password is None else ["AUTH", target.username or "default", target.password]
        greeting = await self.command("HELLO", "3", *login)
        role = greeting.get(b"role", b"") if isinstance(greeting, dict) else b""
        if role != b"master" and not target.any_role:
            raise Replica("READONLY this Redis is a replica")
        if target.database:
            await self.command("SELECT", target.database)
        await self.command("PING")

    def command(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """The answer to a command."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            answer.set_exception(ConnectionError("the connection is closed"))
            return answer
        self._row.append(answer)
        self._transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]
        return answer

    def subscribe(self, channel: str) -> asyncio.Future[Any]:
        """Hear a channel from now on. Its confirmation takes the place of an answer."""
        return self.command("SUBSCRIBE", channel)

    def close(self, reason: str = "closed") -> None:
        """Cut it off."""
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        while self._row:
            answer = self._row.popleft()
            if not answer.done():
                answer.set_exception(ConnectionError(reason))
                answer.exception()  # whoever asked may be gone

    # asyncio.Protocol -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not Ellipsis:
                self._take(answer)
        except hiredis.ProtocolError as error:
            self.close(f"what came is not RESP: {error}")
            return
        if self._reader.len() > LARGEST_ANSWER:
            self.close("an answer without an end")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(f"the server closed the connection{f': {exc}' if exc else ''}")

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            kind = answer[0] if answer else b""
            if kind == b"message" and len(answer) == 3 and isinstance(answer[2], bytes):
                self._heard(answer[1], answer[2])
                return
            if kind != b"subscribe":
                return
        if not self._row:
            self.close("an answer that nobody asked for")
            return
        waiting = self._row.popleft()
        if waiting.done():
            return
        if isinstance(answer, hiredis.ReplyError):
            waiting.set_exception(answer)
            waiting.exception()  # whoever asked may be gone
        else:
            waiting.set_result(answer)
