"""What a worker process runs: a `Worker` that does what the program says over the inherited socket.

It ends when it is told to, or when the program is gone; then it finishes what runs for as long as the configuration
allows. Signals are the program's business: the ones that a terminal or a pod sends to everybody are ignored here.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import msgspec
import uvloop

from sidecar.app.channel import read_frame, say, write_frame
from sidecar.app.pod_member import PodMember
from sidecar.app.processes import descriptor
from sidecar.app.worker import Worker
from sidecar.base.errors import ConfigError
from sidecar.config.load import parse
from sidecar.control.sockets import raise_descriptor_limit
from sidecar.runtime import logs, series
from sidecar.runtime.observer import Happening
from sidecar.runtime.tls import Credentials


async def serve(channel: int) -> None:
    """Follow the program until it says stop or is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=descriptor(channel))
    pod = PodMember(lambda topic, payload: say(writer, topic, payload))
    worker = Worker(pod)
    dropped = worker.registry.cell(series.OBSERVER_DROPPED)
    drain_timeout = 0.0

    def forward(happening: Happening) -> None:
        """The program's observer hears it, unless the program does not keep up."""
        if not say(writer, "happening", happening):
            dropped.value += 1

    worker.observer.subscribe(forward)

    async def do(verb: str, argument: Any) -> Any:
        nonlocal drain_timeout
        match verb:
            case "start":
                config = _parse(argument["text"])
                logs.setup(config.log.level, config.log.format)
                drain_timeout = config.shutdown.drain_timeout
                sockets = {name: descriptor(number) for name, number in argument["sockets"].items()}
                forbidden = frozenset((host, port) for host, port in argument["forbidden"])
                files = msgspec.convert(argument["files"], dict[str, Credentials])
                worker.start(config, sockets, forbidden, files, among_others=True, accepting=argument["accepting"])
                # before the loop accepts anybody: no request goes where others know that nobody answers
                for upstream, endpoints in argument["endpoints"].items():
                    worker.set_endpoints(upstream, endpoints)
                for upstream, address, healthy in argument["health"]:
                    worker.set_health(upstream, address, healthy)
                for standing in argument["standing"]:
                    worker.serve(*standing)
                for word in argument["breakers"]:
                    pod.told(word, worker.plane.breakers())
            case "apply":
                text, files = argument
                config = _parse(text)
                worker.apply(config, msgspec.convert(files, dict[str, Credentials]))
                logs.set_level(config.log.level)
                drain_timeout = config.shutdown.drain_timeout
            case "renew":
                worker.renew(msgspec.convert(argument, dict[str, Credentials]))
            case "snapshot":
                return worker.snapshot()
            case "endpoints":
                return worker.endpoints()
            case "running":
                return worker.running()
            case "set_health":
                worker.set_health(*argument)
            case "set_endpoints":
                worker.set_endpoints(*argument)
            case "serve":
                worker.serve(*argument)
            case "breakers":
                return worker.breakers()
            case "hold":
                worker.hold()
            case "release":
                worker.release()
            case "drain":
                worker.drain()
            case "stop_accepting":
                worker.stop_accepting()
        return None

    while (frame := await read_frame(reader)) is not None:
        number, verb, argument = frame
        pod.heard()
        if number == 0:
            pod.told(argument, worker.plane.breakers())
            continue
        try:
            result, error = await do(verb, argument), None
        except ConfigError as fault:
            result, error = None, str(fault)
        write_frame(writer, [number, error, result])
        if verb == "stop":
            await writer.drain()
            break
    else:
        if worker.started:
            pod.alone(worker.plane.breakers())
            await _finish_alone(worker, drain_timeout)
    await worker.stop()


async def _finish_alone(worker: Worker, drain_timeout: float) -> None:
    """The program died: nobody will tell us any more, so end as gently as a stop would have."""
    worker.stop_accepting()
    deadline = asyncio.get_running_loop().time() + drain_timeout
    # what ends are connections, and nobody announces the last: so look
    while worker.running() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def _parse(text: bytes) -> Any:
    import os

    return parse(text, "configuration", os.environ)


def main() -> None:
    """The process's entry."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise_descriptor_limit()
    uvloop.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
