"""What goes wrong in the demo, in turn: each fault is told, lasts some seconds, and is cured.

To add one, write a coroutine that does it and cures it, and put it into `Faults.turn`.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx

from sidecar.demo.child import Child
from sidecar.demo.stage import Cast, Places
from sidecar.demo.teller import Teller
from sidecar.demo.traffic import Tally, listed

TWO_FRAMINGS = (
    b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /_fault HTTP/1.1\r\nHost: shop\r\n\r\n"
)
"""A smuggled request: a reader who trusts the length sees other messages than one who trusts the coding."""


class Faults:
    """Breaks a service, or attacks the proxy, every `every` seconds."""

    def __init__(self, company: Cast, places: Places, tally: Tally, tell: Teller) -> None:
        self.shops = dict(zip(company.shops, places.shop_ports, strict=True))
        self.places = places
        self.tally = tally
        self.tell = tell
        self.turn: Sequence[Callable[[], Awaitable[None]]] = (
            self.one_killed,
            self.all_killed,
            self.warehouse_hangs,
            self.smuggled,
            self.errors,
            self.slow,
        )

    async def run(self, every: float) -> None:
        while True:
            for fault in self.turn:
                await asyncio.sleep(every)
                self.tally.in_fault.clear()
                await fault()
                await self.tally.served.wait()
                if self.tally.in_fault:
                    self.tell(f"served    by the shops again; meanwhile: {listed(self.tally.in_fault)}")
                else:
                    self.tell("served    by the shops all the time")

    async def one_killed(self) -> None:
        self.tell("fault     one of the two shops is killed; it is started again in 5 s")
        await self._killed(dict([next(iter(self.shops.items()))]), 5.0)

    async def all_killed(self) -> None:
        self.tell("fault     both shops are killed; they are started again in 5 s")
        await self._killed(self.shops, 5.0)

    async def warehouse_hangs(self) -> None:
        """Cured by the proxy: nothing here starts it again."""
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:

            async def process() -> int | None:
                status = await client.get(f"{self.places.admin}/api/v1/status")
                found: int | None = status.json()["child"]["pid"]
                return found

            if (hangs := await process()) is None:
                return
            self.tell(f"fault     the warehouse hangs: process {hangs} was sent SIGSTOP; now it is up to the proxy")
            os.kill(hangs, signal.SIGSTOP)
            for _ in range(100):
                if await process() not in {hangs, None}:
                    break
                await asyncio.sleep(0.2)
        await self._listening(self.places.warehouse_port)

    async def errors(self) -> None:
        self.tell("fault     both shops answer 503 for 3 s")
        await self._misbehave({"kind": "errors"}, 3.0)

    async def slow(self) -> None:
        self.tell("fault     the shops take 3 s for each answer, for 6 s; the route allows 2 s")
        await self._misbehave({"kind": "slow", "delay": 3.0}, 6.0)

    async def _killed(self, victims: Mapping[Child, int], seconds: float) -> None:
        for victim in victims:
            await victim.kill()
        await asyncio.sleep(seconds)
        for victim in victims:
            await victim.start()
        for port in victims.values():
            await self._listening(port)
        self.tell(f"cured     listening again: {', '.join(victim.name for victim in victims)}")

    async def smuggled(self) -> None:
        self.tell("attack    a request with two framings, another request hidden behind it")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.places.port)
        try:
            writer.write(TWO_FRAMINGS)
            answer = await asyncio.wait_for(reader.read(), 5.0)
        except (TimeoutError, OSError) as error:
            self.tell(f"          the proxy gave no answer and no end: {error!r}")
            return
        finally:
            writer.close()
        head, _, _ = answer.partition(b"\r\n")
        answers = answer.count(b"HTTP/1.1 ")
        self.tell(f"          the proxy says {head.decode('latin-1')!r}, {answers} answer, and hangs up")

    async def _misbehave(self, fault: dict[str, object], seconds: float) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            urls = [f"http://127.0.0.1:{port}/_fault" for port in self.shops.values()]
            for url in urls:
                await client.post(url, json=fault)
            await asyncio.sleep(seconds)
            for url in urls:
                await client.post(url, json={"kind": "none"})
        self.tell("cured     the shops work again")

    async def _listening(self, port: int) -> None:
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
