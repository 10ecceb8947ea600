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
_TOLD = 200


class CommandProbe:
    """Runs `argv`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv

    async def __call__(self) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=MAX_OUTPUT,
        )
        assert process.stdout is not None
        reading = asyncio.ensure_future(_read(process.stdout))
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({ended, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and len(reading.result()) > MAX_OUTPUT:
                raise ProbeFailure(f"wrote more than {MAX_OUTPUT // 1024} KiB")
            code = await asyncio.shield(ended)
            _kill(process.pid)  # what it left behind may hold the pipe open
            return _judge(code, await reading)
        finally:
            _kill(process.pid)
            reading.cancel()
            await asyncio.wait({ended, reading})  # reap it; killed processes end at once


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All output, or the first bytes of more than MAX_OUTPUT."""
    output = b""
    while len(output) <= MAX_OUTPUT and (data := await stream.read(4096)):
        output += data
    return output


def _judge(code: int, output: bytes) -> str:
    if code == 0:
        return "exited with 0"
    first = output.lstrip().split(b"\n", 1)[0].decode(errors="replace")[:_TOLD].strip()
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    raise ProbeFailure(f"{ended}: {first}" if first else ended)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
