"""Customers who order things through the proxy, and the tally of what they got.

A customer waits for an answer before asking again, as people do, over a connection that stays open. `Tally` counts
answers by what the customer saw: the status, and the proxy's word for it where the proxy answered by itself.
"""

import asyncio
import random
import time
from collections import Counter

import httpx

from sidecar.demo.teller import Teller

ITEMS = ("tea", "coffee", "rice", "salt", "olive oil", "soap")


class Tally:
    """What the customers saw since the last summary, and since the last fault began."""

    def __init__(self, tell: Teller, admin: str) -> None:
        """`admin` is the URL of the proxy's admin interface."""
        self.tell = tell
        self.admin = admin
        self.since = time.monotonic()
        self.answers: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.in_fault: Counter[str] = Counter()
        self.served = asyncio.Event()
        """The last answer was the service's own and a good one."""

    def answer(self, status: int, decision: str | None, seconds: float) -> None:
        """One answer came after `seconds`; `decision` is the proxy's own word, if it had one."""
        kind = f"{status} {decision}" if decision else str(status)
        self.answers[kind] += 1
        self.seconds.append(seconds)
        self._notice(kind, well=status < 500 and decision is None)

    def broken(self, error: Exception) -> None:
        """There was no whole answer."""
        kind = f"no whole answer ({type(error).__name__})"
        self.answers[kind] += 1
        self._notice(kind, well=False)

    def _notice(self, kind: str, *, well: bool) -> None:
        if well:
            self.served.set()
            return
        self.served.clear()
        if not self.in_fault[kind]:
            status, _, decision = kind.partition(" ")
            if status.isdigit():
                told = f"{status} from the proxy: {decision}" if decision else f"{status} from a shop itself"
            else:
                told = kind
            link = f"{self.admin}/metrics sidecar_fallbacks_total" if decision.startswith("fallback") else ""
            self.tell(f"          customers now get {told}", link)
        self.in_fault[kind] += 1

    def summary(self) -> str:
        """One line about the time since the last call; starts anew."""
        now = time.monotonic()
        total, elapsed = sum(self.answers.values()), now - self.since
        ordered = sorted(self.seconds) or [0.0]
        median, worst = ordered[len(ordered) // 2] * 1e3, ordered[-1] * 1e3
        kinds = listed(self.answers)
        self.answers.clear()
        self.seconds.clear()
        self.since = now
        return f"{total / elapsed:4.1f} requests/s   median {median:.1f} ms   slowest {worst:.0f} ms   {kinds}"


def listed(kinds: Counter[str]) -> str:
    """What was counted, in one line."""
    return "   ".join(f"{kind} × {count}" for kind, count in sorted(kinds.items()))


async def customer(url: str, tally: Tally, pause: float) -> None:
    """Orders and looks at orders for ever; about `pause` seconds pass between two requests."""
    last = 0
    async with httpx.AsyncClient(base_url=url, timeout=10.0, trust_env=False) as client:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            began = time.monotonic()
            try:
                if random.random() < 0.25:
                    order = {"item": random.choice(ITEMS), "quantity": random.randint(1, 9)}
                    response = await client.post("/orders", json=order)
                    if response.status_code == 201:
                        last = response.json()["id"]
                else:
                    response = await client.get(f"/orders/{last}" if last and random.random() < 0.5 else "/orders")
            except (httpx.HTTPError, ValueError) as error:
                tally.broken(error)
            else:
                decision = response.headers.get("X-Sidecar-Decision")
                tally.answer(response.status_code, decision, time.monotonic() - began)
