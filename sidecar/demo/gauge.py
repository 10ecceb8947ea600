"""What a disaster would cost now: the agent's gauge of the RPO, read as Prometheus would read it."""

import asyncio
import re

import httpx

from sidecar.demo.teller import Teller

GAUGE = "sidecar_backup_rpo_seconds"


async def read_out(url: str, tell: Teller, every: float) -> None:
    """Tell it again and again; `url`: the agent's metrics."""
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
        while True:
            await asyncio.sleep(every)
            try:
                text = (await client.get(url)).text
            except httpx.HTTPError as error:
                tell(f"rpo       not known: the agent does not answer ({type(error).__name__})", url)
                continue
            age = re.search(rf"^{GAUGE} (\S+)$", text, re.MULTILINE)
            allowed = re.search(r"^sidecar_backup_rpo_target_seconds (\S+)$", text, re.MULTILINE)
            lost = f"{float(age[1]):.0f} s of orders" if age else "all orders: no backup is verified yet"
            promised = float(allowed[1] if allowed else 0)
            tell(f"rpo       a disaster now would lose {lost}; {promised:.0f} s are allowed", f"{url} {GAUGE}")
