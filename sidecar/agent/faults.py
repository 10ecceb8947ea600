"""What can go wrong with backups, named by who must act. Each message says what to do next and repeats no secret.

The commands turn them into exit codes: `WrongKey` is 4, everything else 1.
"""

from sidecar.base.errors import SidecarError


class AgentFault(SidecarError):
    """Anything about backups that failed."""


class WrongKey(AgentFault):
    """The password or the store's credentials do not fit. Nothing was written."""


class NotEmpty(AgentFault):
    """A place that must be empty is not."""


class NoRepository(AgentFault):
    """There is no repository at the place yet."""


class Busy(AgentFault):
    """Another agent holds the repository's lease."""


class Locked(Busy):
    """The engine's own lock is held: by a program that runs beside us, or by one that died on another machine."""


class LeaseLost(AgentFault):
    """The lease went to somebody else, or could not be renewed in time: what was under way must not be finished."""


class SourceFailure(AgentFault):
    """A source is missing, unreadable or does not answer."""


class OutOfReach(SourceFailure):
    """The log is there, but must not be replayed up to the wanted moment."""


class Stirred(AgentFault):
    """A source that was read where it lies did not stand still; it can be copied instead."""


def unreadable(path: str, error: OSError) -> SourceFailure:
    """A file of a source that cannot be read."""
    advice = "; run the agent as a user who may, or exclude it" if isinstance(error, PermissionError) else ""
    return SourceFailure(f"{path} cannot be read: {error.strerror}{advice}")


class StorageFailure(AgentFault):
    """The repository or the staging area cannot be read or written: disk full, store away, refused."""


class Damaged(AgentFault):
    """What is stored is not what was stored: a flipped bit, a truncated, exchanged or missing object."""


class Unknown(AgentFault):
    """There is no such point, source or path."""


class EngineFailure(AgentFault):
    """The engine's program is absent, too old, or failed for a reason of its own."""
