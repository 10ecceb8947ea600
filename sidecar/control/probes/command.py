"""A command: healthy when it exits with 0. No shell; it runs in a process group of its own.

However it ends, and when it is out of time, the whole group is killed, so nothing that it started outlives the check.
Its output is read up to a limit; beyond that it is killed and has failed. The first line of what a failed command said
is told.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from sidecar.control.probes.probe import ProbeFailure

MAX_OUTPUT = 64 * 1024
LAST_WORDS_SECONDS = 0.5
"""So long the end of the output is awaited after the exit; a child that left the group may hold it open."""
_TOLD = 200


class CommandProbe:
    """Runs `argv`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv

    async def __call__(self) -> str:
        loop = asyncio.get_running_loop()
        starting = asyncio.ensure_future(
            loop.subprocess_exec(
                lambda: _Process(loop),
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        )
        try:
            transport, process = await asyncio.shield(starting)
        except asyncio.CancelledError:  # out of time before it had begun; it begins all the same
            starting.add_done_callback(_kill_unborn)
            raise
        group = transport.get_pid()
        try:
            await asyncio.wait({process.exited, process.output_ended}, return_when=asyncio.FIRST_COMPLETED)
            if len(process.output) > MAX_OUTPUT:
                raise ProbeFailure(f"wrote more than {MAX_OUTPUT // 1024} KiB")
            await asyncio.wait({process.exited})
            _kill(group)  # what it left behind may hold the output open
            await asyncio.wait({process.output_ended}, timeout=LAST_WORDS_SECONDS)
            return _judge(transport.get_returncode() or 0, bytes(process.output))
        finally:
            _kill(group)
            await asyncio.wait({process.exited}, timeout=LAST_WORDS_SECONDS)  # killed: at once
            transport.close()


class _Process(asyncio.SubprocessProtocol):
    """What a running command says, up to a byte more than it may."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = bytearray()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.output_ended: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:  # noqa: ARG002 - there is one pipe
        assert isinstance(data, bytes)
        self.output += data[: MAX_OUTPUT + 1 - len(self.output)]
        if len(self.output) > MAX_OUTPUT:
            _settle(self.output_ended)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        _settle(self.output_ended)

    def process_exited(self) -> None:
        _settle(self.exited)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _judge(code: int, output: bytes) -> str:
    if code == 0:
        return "exited with 0"
    first = output.lstrip().split(b"\n", 1)[0].decode(errors="replace")[:_TOLD].strip()
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    raise ProbeFailure(f"{ended}: {first}" if first else ended)


def _kill_unborn(starting: "asyncio.Future[tuple[asyncio.SubprocessTransport, _Process]]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        transport, _ = starting.result()
        _kill(transport.get_pid())
        transport.close()


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
