"""Starts the demo's processes, tells what happens, and ends them all on Ctrl-C or SIGTERM."""

import argparse
import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO

import httpx

from sidecar.demo.child import Child
from sidecar.demo.faults import Faults
from sidecar.demo.traffic import Tally, customer

CUSTOMERS = 4
PAUSE = 0.5  # seconds between two requests of one customer: about eight requests a second in all
READY_WITHIN = 10.0

CONFIG = """\
# Written by the demo at each start. Every key: `sidecar explain KEY`.
version: 1
service: {{name: orders, instance: demo}}
admin: {{bind: "127.0.0.1:{admin_port}", socket: "{state}/admin.sock"}}
access_log: {{path: "{state}/access.log"}}
shutdown: {{drain_timeout: 3s}}

listeners:
  - name: inbound
    bind: 127.0.0.1:{port}
    routes:
      - name: orders
        match: {{path_prefix: /orders}}
        upstream: app
        timeout: 2s
        retry: {{attempts: 2}}
        fallback: [{{cache: {{max_age: 5m}}}}]   # who only looks gets the last good answer, marked as such
      - {{name: health, match: {{path: /healthz}}, upstream: app, timeout: 2s}}

upstreams:
  - name: app
    endpoints: [{{address: "127.0.0.1:{service_port}"}}]
    breaker: {{open_for: 4s}}       # the default is 60s; nobody watches a demo for so long
"""

GREETING = """\

  The service     orders in {state}/orders.db, on 127.0.0.1:{service_port}
  The proxy       http://127.0.0.1:{port}/orders
  Status page     http://127.0.0.1:{admin_port}/
  Metrics         http://127.0.0.1:{admin_port}/metrics     Probes  /livez /readyz
  Logs            {state}/sidecar.log  access.log  service.log     Configuration  {state}/sidecar.yaml

  Ctrl-C ends everything.
"""


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


def tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until_answers(url: str, child: Child) -> None:
    """Returns when `url` answers 200; raises DemoError when the child ends or takes too long."""
    deadline = time.monotonic() + READY_WITHIN
    async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
        while child.running and time.monotonic() < deadline:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
    state = "did not get ready" if child.running else "ended"
    raise DemoError(f"{child.name} {state}; its last words in {child.log}:\n{child.last_words()}")


async def watch(child: Child) -> None:
    """Raises DemoError when a process that should run for ever ends by itself."""
    if child.process is not None:
        code = await child.process.wait()
        raise DemoError(f"{child.name} ended with {code}; its last words in {child.log}:\n{child.last_words()}")


async def retell(log: Path) -> None:
    """Tells what the proxy logs from now on: each line is a JSON object with time, level, event and more."""
    with log.open(encoding="utf-8") as lines:
        lines.seek(0, os.SEEK_END)
        while True:
            line = lines.readline()
            if not line.endswith("\n"):
                await asyncio.sleep(0.1)
                continue
            event = json.loads(line)
            name = event.pop("event")
            del event["time"], event["level"]
            tell(f"proxy     {name}   " + "   ".join(f"{key}: {value}" for key, value in event.items() if value))


async def summarise(tally: Tally, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        tell(f"traffic   {tally.summary()}")


def cast(places: dict[str, object], state: Path) -> tuple[Child, Child]:
    """The service and the proxy, not started yet; the proxy's configuration is written."""
    for log in state.glob("*.log"):
        log.unlink()  # of the demo before
    config = state / "sidecar.yaml"
    config.write_text(CONFIG.format(**places), encoding="utf-8")
    python = [sys.executable, "-m"]
    database = ["--port", str(places["service_port"]), "--database", str(state / "orders.db")]
    service = Child("the service", [*python, "sidecar.demo.service", *database], state / "service.log")
    proxy = Child("the proxy", [*python, "sidecar", "run", "-c", str(config)], state / "sidecar.log")
    return service, proxy


async def play(service: Child, proxy: Child, places: dict[str, object], args: argparse.Namespace) -> None:
    """Everything that happens between start and end; raises DemoError when a process fails."""
    service_port, proxy_url = int(str(places["service_port"])), f"http://127.0.0.1:{args.port}"
    await service.start()
    await proxy.start()
    await until_answers(f"http://127.0.0.1:{service_port}/healthz", service)
    await until_answers(f"http://127.0.0.1:{args.admin_port}/readyz", proxy)
    print(GREETING.format(**places), flush=True)
    tally = Tally(tell)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch(proxy))
        group.create_task(retell(proxy.log))
        group.create_task(summarise(tally, args.summary_every))
        group.create_task(Faults(service, service_port, args.port, tally, tell).run(args.fault_every))
        for _ in range(CUSTOMERS):
            group.create_task(customer(proxy_url, tally, PAUSE))


async def run(args: argparse.Namespace, state: Path) -> None:
    """Plays until SIGINT or SIGTERM. Leaves no process behind, whatever happens."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    places = {"state": state, "port": args.port, "admin_port": args.admin_port, "service_port": any_free_port()}
    service, proxy = cast(places, state)
    playing = asyncio.create_task(play(service, proxy, places, args))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([playing, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        print(flush=True)
        tell("ending    the customers, the proxy, the service")
        failed = playing.exception() if playing.done() else None
        playing.cancel()
        stopped.cancel()
        await asyncio.gather(playing, stopped, return_exceptions=True)
        await proxy.stop()
        await service.stop()
        tell("ended")
    if failed:
        raise failed


def take(state: Path, ports: tuple[int, ...]) -> IO[str]:
    """The lock on the state's directory, held while the file is open. Raises DemoError when it or a port is taken."""
    state.mkdir(parents=True, exist_ok=True)
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoError(f"another demo is running in {state}") from None
    for port in ports:
        if not port_is_free(port):
            others = "make demo ARGS='--port 8081 --admin-port 9911'"
            raise DemoError(f"127.0.0.1:{port} is taken. Free it, or choose others: {others}")
    return lock


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sidecar.demo", description="A service, the proxy, traffic, faults."
    )
    parser.add_argument("--port", type=int, default=8080, help="where the proxy listens (8080)")
    parser.add_argument("--admin-port", type=int, default=9901, help="probes, metrics and the status page (9901)")
    parser.add_argument("--state", type=Path, default=Path(".demo"), help="the directory of its state (.demo)")
    parser.add_argument("--fault-every", type=float, default=12.0, metavar="S", help="seconds between faults (12)")
    parser.add_argument("--summary-every", type=float, default=5.0, metavar="S", help="seconds between summaries (5)")
    args = parser.parse_args()

    code = 0
    state = args.state.resolve()
    try:
        with take(state, (args.port, args.admin_port)):
            asyncio.run(run(args, state))
    except* DemoError as errors:
        for error in errors.exceptions:
            print(f"demo: {error}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
