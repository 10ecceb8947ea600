"""The pod's backups as the proxy shows them: it asks the agent, over the agent's socket, every few seconds.

The agent is another process and another failure: when it does not answer, the proxy says so and serves on. What it said
last is not shown as if it still held.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from sidecar.config.backup import Backup
from sidecar.runtime.admin_doors import Refused, Tables, reading
from sidecar.runtime.unix_http import Absent, ask

EVERY = 5.0
"""Seconds between two questions."""
TIMEOUT = 3.0


class Backups:
    """What the agent says; without a `backup` section there is no agent."""

    def __init__(self, config: Backup | None) -> None:
        """Where the agent is, is taken from the first configuration."""
        self._socket = None if config is None else config.admin.socket
        self._said: dict[str, Any] | None = None
        self.tables = Tables({}, {"/api/v1/backups": reading(self._points)}, {}, {})

    def view(self) -> dict[str, Any] | None:
        """For the status: None without a `backup` section.

        reachable, error (why not), asked_at; and, as the agent's own status has them: rpo, rto, run, drill, repository,
        conditions, all of them None when it does not answer.
        """
        return self._said

    async def run(self) -> None:
        """Ask until cancelled; returns at once when there is nobody to ask."""
        while self._socket is not None:
            self._said = await self._look()
            await asyncio.sleep(EVERY)

    async def _look(self) -> dict[str, Any]:
        keys = ("rpo", "rto", "run", "drill", "repository", "conditions")
        try:
            said = await self._ask("/api/v1/status")
            shown = {"reachable": True, "error": None, **{key: said[key] for key in keys}}
        except (Absent, KeyError, TypeError) as fault:
            shown = {"reachable": False, "error": str(fault), **dict.fromkeys(keys)}
        return {**shown, "asked_at": datetime.now(UTC).isoformat(timespec="seconds")}

    async def _points(self) -> list[dict[str, Any]]:
        """All points, newest first, as `sidecar backup list --json` has them."""
        if self._socket is None:
            return []
        try:
            found: list[dict[str, Any]] = await self._ask("/api/v1/backups")
        except Absent as fault:
            raise Refused(503, f"the backup agent does not answer: {fault}; start it with sidecar agent run") from None
        return found

    async def _ask(self, target: str) -> Any:
        assert self._socket is not None, "only with a backup section"
        status, answer = await asyncio.to_thread(ask, self._socket, "GET", target, None, TIMEOUT)
        try:
            if status == 200:
                return msgspec.json.decode(answer)
        except msgspec.DecodeError:
            pass
        raise Absent(f"{self._socket} answered {status}: {answer[:200].decode('utf-8', 'replace').strip()}")
