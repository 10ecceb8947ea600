"""What a real redis-server pays for each word of the fleet: microseconds of its CPU, measured on loopback.

The very scripts run, with as many keys as the simulated sidecars have upstreams; the server's own accounting of its CPU
is read before and after, so that what the client costs does not count. A message to all is paid per subscriber.
"""

import asyncio
import contextlib
import subprocess
import tempfile
import time
from typing import Any

import msgspec
import redis

from benchmarks.rig.process import free_port
from sidecar.control.fleet_script import BEAT, COMMAND
from sidecar.machines.fleet.words import Vote

ROUNDS, BATCH = 60, 100
SUBSCRIBERS, MESSAGES = 200, 200
MESSAGE = b'{"n":"payments","r":' + b"x" * 200 + b"}"


class Prices(msgspec.Struct, frozen=True):
    """Microseconds of Redis's CPU."""

    beat: float
    """One beat with all upstreams, none of which changed."""
    command: float
    """One command that writes its page."""
    tell: float
    """One message to one subscriber."""


def measure(upstreams: int, peers: int) -> Prices:
    """Start a Redis and ask it; `peers`: as many replicas are present already."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = _connect(port)
            client.zadd("{s}:peers", {f"peer-{number}": 2**53 for number in range(peers)})
            beat = _price(client, _beat(client, upstreams))
            command = _price(client, _command(client))
            return Prices(beat, command, asyncio.run(_tell(client, port)))
        finally:
            server.terminate()
            server.wait()


def _connect(port: int) -> Any:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(redis.ConnectionError):
            client = redis.Redis(port=port)
            client.ping()
            return client
        if time.monotonic() > deadline:
            raise TimeoutError("redis-server does not start")
        time.sleep(0.02)


def _beat(client: Any, upstreams: int) -> list[Any]:
    keys = ["{s}:peers", "{s}:configs", *[f"{{s}}:breaker:upstream-{number}" for number in range(upstreams)]]
    sha = client.script_load(BEAT.text)
    return ["EVALSHA", sha, len(keys), *keys, "peer-1", 30_000, 1, "c0ffee00", *["0 closed"] * upstreams]


def _command(client: Any) -> list[Any]:
    sha = client.script_load(COMMAND.text)
    vote = Vote(voter="peer-1", epoch=0, lasting=60_000, period=60_000, quorum=200, reason="consecutive_failures")
    return [
        "EVALSHA",
        sha,
        2,
        "{s}:breaker:upstream-1",
        "{s}:peers",
        "{s}:changes",
        "upstream-1",
        msgspec.json.encode(vote),
    ]


def _cpu(client: Any) -> float:
    spent = client.info("cpu")
    return float(spent["used_cpu_user"]) + float(spent["used_cpu_sys"])


def _price(client: Any, words: list[Any]) -> float:
    before = _cpu(client)
    for _ in range(ROUNDS):
        with client.pipeline(transaction=False) as batch:
            for _ in range(BATCH):
                batch.execute_command(*words)
            batch.execute()
    return (_cpu(client) - before) / (ROUNDS * BATCH) * 1e6


async def _tell(client: Any, port: int) -> float:
    writers, readers = [], []
    for _ in range(SUBSCRIBERS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"SUBSCRIBE changes\r\n")
        await reader.readuntil(b":1\r\n")
        readers.append(asyncio.ensure_future(_drain(reader)))
        writers.append(writer)
    before = _cpu(client)
    for _ in range(MESSAGES):
        client.publish("changes", MESSAGE)
        await asyncio.sleep(0)
    spent = _cpu(client) - before
    for task in readers:
        task.cancel()
    for writer in writers:
        writer.close()
    return spent / (SUBSCRIBERS * MESSAGES) * 1e6


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass
