"""What is written down, and the file as those who write see it (`store.py` is the one)."""

from dataclasses import dataclass, field
from typing import Protocol

from sidecar.base.errors import SidecarError
from sidecar.machines.incidents.book import Entry
from sidecar.machines.incidents.incident import Incident
from sidecar.machines.incidents.outbox import Message


class StoreFailed(SidecarError):
    """The file cannot be read or written; the text says why."""


class StoreDamaged(StoreFailed):
    """The file was damaged, or is gone, while it was in use; a new one is begun with the next write."""

    def __init__(self, why: str, kept_as: str) -> None:
        super().__init__(why)
        self.kept_as = kept_as
        """Where the damaged file is now; empty: it is gone."""


@dataclass
class Batch:
    """What is to be written, in one transaction."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    entries: list[tuple[str, int, Entry]] = field(default_factory=list)
    messages: dict[str, Message | None] = field(default_factory=dict)
    """By id; None: it is no more."""
    run: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.incidents or self.entries or self.messages or self.run)


@dataclass(frozen=True)
class Loaded:
    """What the file held."""

    incidents: list[tuple[Incident, list[Entry]]]
    messages: list[Message]
    runs: list[tuple[float, float]]
    set_aside: str = ""
    """Where the damaged file is now; empty: it was sound, or new."""
    why: str = ""
    """What is damaged about it."""


class Ledger(Protocol):
    """The file. Every call raises StoreFailed when it cannot be used, `write` StoreDamaged."""

    path: str

    async def load(self, latest: int, timelines: int) -> Loaded:
        """What it holds: what is not closed, and the `latest` closed incidents, `timelines` of these with theirs."""
        ...

    async def read(self, incident: str) -> tuple[Incident, list[Entry]] | None:
        """One incident with its timeline; None: it is not in the file."""
        ...

    async def write(self, batch: Batch) -> None:
        """Write all of it, or nothing."""

    async def close(self) -> None:
        """Close it, not for ever."""
