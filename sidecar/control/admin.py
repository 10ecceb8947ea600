"""The admin interface: what may be asked of the running program, by whom, and what it answers.

(placeholder of the theory; routes follow)
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from sidecar.runtime.metrics import Snapshot


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of a reload. `message` is for people; `changes` names what changed, one sentence each."""

    ok: bool
    message: str
    changes: list[str] = field(default_factory=list)


class Program(Protocol):
    """What the admin interface needs of the program. Everything returned is JSON-shaped and free of secrets."""

    async def metrics(self) -> Snapshot:
        """All workers' numbers, merged."""
        ...

    async def status(self) -> dict[str, Any]:
        """What runs; the shape is told in `docs/reference/admin.md` and by `page/__init__.py`, which shows it."""
        ...

    async def breakers(self) -> list[dict[str, Any]]: ...

    async def health(self) -> list[dict[str, Any]]: ...

    async def registry(self) -> list[dict[str, Any]]: ...

    def config(self) -> dict[str, Any]:
        """The effective configuration, defaults filled in; `*_file` keys hold paths, never contents."""
        ...

    def live(self) -> bool:
        """The event loop turns; nothing else counts."""
        ...

    def ready(self) -> bool:
        """The listeners are bound and we are not draining."""
        ...

    def started(self) -> bool:
        """The start is over; never false again afterwards."""
        ...

    def service_live(self) -> bool:
        """False while recovery wants the service's container restarted."""
        ...

    async def drain(self) -> None:
        """Become not ready and let clients move on; goes on serving. Idempotent."""
        ...

    async def reload(self) -> ReloadResult:
        """Read the configuration again; a bad one changes nothing."""
        ...

    async def stop(self) -> None:
        """Begin to stop, as SIGTERM does; returns at once."""
        ...
