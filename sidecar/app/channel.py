"""What the program and a worker process say to each other: frames of msgpack over one socket.

Before each frame stands its length, four bytes. `[number, verb, argument]` asks, `[number, error or null, result]`
answers. Number 0 is said unasked, either way, and is not answered: `[0, topic, payload]`. What is said unasked is
bounded: when the other side does not read, it is given up and counted, and never waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 5.0
FRAME_LIMIT = 64 * 1024 * 1024
MAX_UNREAD = 1024 * 1024
"""Bytes that may wait in a writer; what is said unasked beyond is given up."""


class Channel:
    """The program's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def call(self, verb: str, argument: Any = None, within: float = CALL_SECONDS) -> Any:
        """The answer to one request; raises ConfigError as the worker did, ConnectionError when it is gone."""
        if self._writer.transport.is_closing():
            raise ConnectionError("the worker is gone")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            write_frame(self._writer, [number, verb, argument])
            return await asyncio.wait_for(answer, within)
        except TimeoutError:
            raise ConnectionError(f"the worker did not answer {verb}") from None
        finally:
            self._calls.pop(number, None)

    def say(self, topic: str, payload: Any) -> bool:
        """Tell the worker something that needs no answer; False: it does not read, so it was given up."""
        return say(self._writer, topic, payload)

    async def listen(self, told: Callable[[str, Any], None]) -> None:
        """Hand answers to their callers, what is said unasked to `told(topic, payload)`, until the worker is gone."""
        try:
            while (frame := await read_frame(self._reader)) is not None:
                number, error, result = frame
                if number == 0:
                    told(error, result)
                    continue
                answer = self._calls.pop(number, None)
                if answer is not None and not answer.done():
                    if error is None:
                        answer.set_result(result)
                    else:
                        answer.set_exception(ConfigError(error))
        finally:
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the worker is gone"))
            self._writer.close()


def say(writer: asyncio.StreamWriter, topic: str, payload: Any) -> bool:
    """Say something unasked; False: the other side is gone or does not read, and it was given up."""
    transport = writer.transport
    if transport.is_closing() or transport.get_write_buffer_size() > MAX_UNREAD:
        return False
    write_frame(writer, [0, topic, payload])
    return True


def write_frame(writer: asyncio.StreamWriter, message: Any) -> None:
    """Send one message."""
    body = msgspec.msgpack.encode(message)
    writer.write(len(body).to_bytes(4, "big") + body)


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """The next message, None at the end."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > FRAME_LIMIT:
            return None
        return msgspec.msgpack.decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
