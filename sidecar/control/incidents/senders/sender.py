"""What all ways of telling somebody have in common.

A sender brings a notice to one receiver, or raises `NotSent` with the reason in words that hold no secret: no URL, no
key, no answer's text. It is called again with the same notice when it failed, so a receiver may hear twice.
"""

from typing import Any, Protocol

import msgspec

from sidecar.base.errors import SidecarError

SECRET_BYTES = 4096


class NotSent(SidecarError):
    """It did not arrive. `retry_after`: the receiver asked for so many seconds; `final`: no other try will help."""

    def __init__(self, why: str, retry_after: float | None = None, *, final: bool = False) -> None:
        super().__init__(why)
        self.retry_after = retry_after
        self.final = final


class Notice(msgspec.Struct, frozen=True):
    """What is told: what became of which incident."""

    what: str
    """opened, worsened, acknowledged, resolved, reopened or escalated."""
    text: str
    """For people, one sentence."""
    incident: dict[str, Any]
    """`telling.summary`, as it was then."""
    started: float
    resolved: float | None
    """Unix seconds."""

    @property
    def key(self) -> str:
        """What joins the notices of one cause, whichever replica tells."""
        return str(self.incident.get("shared_id") or self.incident["id"])

    @property
    def headline(self) -> str:
        """One line for people."""
        one = self.incident
        return f"[{one['severity']}] {self.what}: {one['title']} ({one['service']})"


class Sender(Protocol):
    """One way to one receiver."""

    refresh_seconds: float | None
    """How often the receiver wants to hear again of what is open; None: once is enough."""

    async def send(self, notice: Notice) -> None:
        """Raises NotSent."""

    async def refresh(self, notices: list[Notice]) -> None:
        """What is open, again. Raises NotSent."""


def read_secret(path: str) -> str:
    """What the file holds, read anew each time so that it can be rotated. Raises NotSent that names the file only."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = stream.read(SECRET_BYTES).strip()
    except UnicodeDecodeError:
        raise NotSent(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise NotSent(f"{path} cannot be read: {error.strerror}") from None
    if not found:
        raise NotSent(f"{path} is empty")
    return found
