"""The file that is served by: read, compared with what serves, taken or refused, and how that is told.

A bad file never replaces a good one: what is read is not the present configuration until it is taken, which whoever
serves by it says once all of it does. What only a restart brings is counted from what the program started with.

Kubernetes swaps a ConfigMap by pointing the symlink `..data` elsewhere; editors write a new file and rename it; others
write in place. All of these show in the content, so the content is what is watched, through the path as it was given.
What was read once, good or bad, on whoever's order, is not read again.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.base.errors import ConfigError
from sidecar.config.changes import changes
from sidecar.config.effective import fingerprint
from sidecar.config.load import parse, read
from sidecar.control.admin import ReloadResult
from sidecar.runtime import series
from sidecar.runtime.observer import Kind, Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.changes import Change
    from sidecar.config.document import Config
    from sidecar.runtime.metrics import Registry
    from sidecar.runtime.observer import Observer


LOOK_SECONDS = 2.0
"""Between two looks for another content."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What stood in the file at one moment."""

    text: bytes
    config: Config


class ServedFile:
    """The configuration file of one program."""

    def __init__(self, path: str, registry: Registry, observer: Observer) -> None:
        """Raises ConfigError."""
        self.path = path
        self._registry = registry
        self._observer = observer
        self._read = b""
        self._present = self.read_again()
        self.started_with = self.config
        self.hash = fingerprint(self.config)
        self._loaded_at = time.time()
        self._error: str | None = None
        self._restart_needed: list[str] = []
        self._count()

    @property
    def config(self) -> Config:
        """What is served by."""
        return self._present.config

    @property
    def text(self) -> bytes:
        """Its source."""
        return self._present.text

    def examine(self) -> None:
        """Raises ConfigError when what stands in the file cannot be served by."""
        parse(read(self.path), self.path, os.environ)

    def read_again(self) -> Reading:
        """What stands in the file now; raises ConfigError."""
        self._read = text = read(self.path)
        return Reading(text, parse(text, self.path, os.environ))

    async def watch(self, changed: Callable[[], Awaitable[object]]) -> None:
        """Call `changed` when another content stands in the file than was read last. Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self._is_another):
                await changed()

    def _is_another(self) -> bool:
        try:
            return os.path.isfile(self.path) and read(self.path) != self._read  # a pipe is read once
        except ConfigError:  # not there, as in the middle of a swap
            return False

    def take(self, reading: Reading) -> ReloadResult:
        """It is served by from now on."""
        found = changes(self.config, reading.config)
        self._present, self.hash = reading, fingerprint(reading.config)
        self._loaded_at = time.time()
        self._error = None
        self._restart_needed = [_sentence(one) for one in changes(self.started_with, self.config) if not one.live]
        self._count()
        live = [one.path for one in found if one.live]
        self._observer.tell(
            Kind.CONFIG_RELOADED, self.path, config_hash=self.hash, changed=live, restart_needed=self._restart_needed
        )
        if self._restart_needed:
            message = "reloaded; some changes need a restart"
        else:
            message = "reloaded" if found else "reloaded; nothing had changed"
        return ReloadResult(ok=True, message=message, changes=[*live, *self._restart_needed])

    def refuse(self, reason: str) -> ReloadResult:
        """It cannot be served by; what was before serves on."""
        self._error = reason
        self._registry.cell(series.CONFIG_RELOAD_OK).value = 0
        self._observer.tell(
            Kind.CONFIG_RELOAD_FAILED, self.path, level=Level.ERROR, reason=reason, path=self.path,
            advice="the running configuration stays; mend the file (`sidecar check`)",
        )  # fmt: skip
        return ReloadResult(ok=False, message=reason)

    def view(self) -> dict[str, Any]:
        """For the status."""
        return {
            "path": self.path,
            "hash": self.hash,
            "loaded_at": datetime.fromtimestamp(self._loaded_at, UTC).isoformat(timespec="seconds"),
            "last_reload_ok": self._error is None,
            "last_reload_error": self._error,
            "restart_needed": self._restart_needed,
        }

    def _count(self) -> None:
        registry = self._registry
        registry.cell(series.CONFIG_RELOAD_OK).value = 1
        registry.cell(series.CONFIG_HASH).value = int(self.hash[:12], 16)
        registry.cell(series.CONFIG_RELOAD_TIME).value = self._loaded_at


def _sentence(change: Change) -> str:
    return f"{change.path}: {change.why}"
