"""What goes wrong in the demo, in turn: each fault is told, lasts some seconds, and is cured.

To add one, write a coroutine that does it and cures it, and put it into `Faults.turn`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import httpx

from sidecar.demo.child import Child
from sidecar.demo.traffic import Tally, Tell, listed

TWO_FRAMINGS = (
    b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /_fault HTTP/1.1\r\nHost: shop\r\n\r\n"
)
"""A smuggled request: a reader who trusts the length sees other messages than one who trusts the coding."""


class Faults:
    """Breaks the service, or attacks the proxy, every `every` seconds."""

    def __init__(self, service: Child, service_port: int, port: int, tally: Tally, tell: Tell) -> None:
        self.service = service
        self.service_port = service_port
        self.port = port
        self.tally = tally
        self.tell = tell
        self.turn: Sequence[Callable[[], Awaitable[None]]] = (self.killed, self.errors, self.smuggled, self.slow)

    async def run(self, every: float) -> None:
        while True:
            for fault in self.turn:
                await asyncio.sleep(every)
                self.tally.in_fault.clear()
                await fault()
                await self.tally.served.wait()
                if self.tally.in_fault:
                    self.tell(f"served    by the service again; meanwhile: {listed(self.tally.in_fault)}")

    async def errors(self) -> None:
        self.tell("fault     the service answers 503 for 3 s")
        await self._misbehave({"kind": "errors"}, 3.0)

    async def slow(self) -> None:
        self.tell("fault     the service takes 3 s for each answer, for 6 s; the route allows 2 s")
        await self._misbehave({"kind": "slow", "delay": 3.0}, 6.0)

    async def killed(self) -> None:
        self.tell("fault     the service is killed; it is started again in 3 s")
        await self.service.kill()
        await asyncio.sleep(3.0)
        await self.service.start()
        await self._listening()
        self.tell("cured     the service listens again")

    async def smuggled(self) -> None:
        self.tell("attack    a request with two framings, another request hidden behind it")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
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
            url = f"http://127.0.0.1:{self.service_port}/_fault"
            await client.post(url, json=fault)
            await asyncio.sleep(seconds)
            await client.post(url, json={"kind": "none"})
        self.tell("cured     the service works again")

    async def _listening(self) -> None:
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.service_port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
