"""Starts the demo's processes, tells what happens, and ends them all on Ctrl-C or SIGTERM."""

import argparse
import asyncio
import fcntl
import signal
import sys
import time
from pathlib import Path
from typing import IO

import httpx

from sidecar.demo.child import Child
from sidecar.demo.faults import Faults
from sidecar.demo.gauge import read_out
from sidecar.demo.stage import GREETING, Cast, Places, cast, choose, port_is_free
from sidecar.demo.story import retell
from sidecar.demo.teller import Teller
from sidecar.demo.traffic import Tally, customer

CUSTOMERS = 4
PAUSE = 0.5  # seconds between two requests of one customer: about eight requests a second in all
READY_WITHIN = 10.0


class DemoError(Exception):
    """The demo cannot run; the message says why and what to do."""


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


async def summarise(tally: Tally, tell: Teller, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        tell(f"traffic   {tally.summary()}")


async def play(company: Cast, places: Places, tell: Teller, args: argparse.Namespace) -> None:
    """Everything that happens between start and end; raises DemoError when a process fails."""
    proxy = company.proxy
    for child in (*company.shops, proxy):
        await child.start()
    for shop, port in zip((*company.shops, proxy), (*places.shop_ports, places.warehouse_port), strict=True):
        await until_answers(f"http://127.0.0.1:{port}/healthz", shop)  # the warehouse is the proxy's own child
    await until_answers(f"{places.admin}/readyz", proxy)
    await company.agent.start()  # now there is a database to back up
    print(places.told(GREETING), flush=True)
    tally = Tally(tell, places.admin)
    async with asyncio.TaskGroup() as group:
        for child in (proxy, company.agent):
            group.create_task(watch(child))
            group.create_task(retell(child.log, places.admin, tell))
        group.create_task(summarise(tally, tell, args.summary_every))
        metrics = f"http://127.0.0.1:{places.agent_port}/metrics"
        group.create_task(read_out(metrics, tell, 4 * args.summary_every))
        group.create_task(Faults(company, places, tally, tell).run(args.fault_every))
        for _ in range(CUSTOMERS):
            group.create_task(customer(f"http://127.0.0.1:{args.port}", tally, PAUSE))


async def run(args: argparse.Namespace, state: Path) -> None:
    """Plays until SIGINT or SIGTERM. Leaves no process behind, whatever happens."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    places = choose(state, args.port, args.admin_port)
    company, tell = cast(places), Teller()
    playing = asyncio.create_task(play(company, places, tell, args))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([playing, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        print(flush=True)
        tell("ending    the customers, the agent, the proxy with the warehouse, the shops")
        failed = playing.exception() if playing.done() else None
        playing.cancel()
        stopped.cancel()
        await asyncio.gather(playing, stopped, return_exceptions=True)
        await company.agent.stop()
        await company.proxy.stop()
        await asyncio.gather(*(shop.stop() for shop in company.shops))
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
    parser.add_argument("--fault-every", type=float, default=10.0, metavar="S", help="seconds between faults (10)")
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
