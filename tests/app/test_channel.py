"""What program and workers say unasked never waits, and never mixes with answers."""

import asyncio
import contextlib
import socket

import pytest

from sidecar.app import channel
from sidecar.app.channel import Channel, read_frame, say, write_frame

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def pair():
    """The program's channel, what it was told, and the worker's reader and writer."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_unix_connection(sock=ours))
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    told = []
    listening = asyncio.ensure_future(channel.listen(lambda *what: told.append(what)))
    yield channel, told, reader, writer
    writer.close()
    await listening


async def test_what_is_said_unasked_comes_between_question_and_answer():
    async with pair() as (program, told, reader, writer):
        answer = asyncio.ensure_future(program.call("running"))
        number, verb, _ = await read_frame(reader)
        assert verb == "running"
        assert say(writer, "happening", {"kind": "x"})
        write_frame(writer, [number, None, 7])
        assert await answer == 7
        assert told == [("happening", {"kind": "x"})]
        assert program.say("pod", [1])
        assert await read_frame(reader) == [0, "pod", [1]]


async def test_what_a_deaf_program_would_have_to_read_is_given_up_not_kept(monkeypatch):
    monkeypatch.setattr(channel, "MAX_UNREAD", 10_000)
    ours, theirs = socket.socketpair()
    with ours:
        _, writer = await asyncio.open_unix_connection(sock=theirs)
        said = [say(writer, "happening", "x" * 1000) for _ in range(1000)]
        assert said[0]
        assert not said[-1]
        assert writer.transport.get_write_buffer_size() < 20_000
        writer.close()
        assert not say(writer, "happening", "after the end")
