"""What a replica's deciding half tells its shells to do, and what they answer.

Towards Redis: `Send` and `Sync`, each concluded exactly once, by an answer or as failed. Towards the breaker here:
`Adopt`, `Lend`, `Alone`. Towards people: `Ordered`, `Noticed`. Times are monotonic seconds.
"""

from dataclasses import dataclass, field

from sidecar.machines.breaker import Snapshot
from sidecar.machines.breaker_states import BreakerState
from sidecar.machines.fleet.leases import Lease
from sidecar.machines.fleet.words import Command, Record


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """Give this command to the keeper of the page."""

    name: str
    command: Command
    at: float
    number: int = 0
    """Of the order that it carries out; 0: none."""
    tries: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sync:
    """Say that this replica lives, and read whatever differs from what it knows."""

    known: dict[str, tuple[int, BreakerState]]
    """Per breaker the epoch and the state."""
    carrying: bool
    """Whether calls passed lately."""
    config: str
    """Tells apart replicas that decide by unequal figures."""
    at: float


@dataclass(frozen=True, slots=True)
class Synced:
    """The answer to a `Sync`."""

    records: dict[str, Record]
    """Only those whose epoch or state is not the known one; a page that is not there is closed, of epoch 0."""
    carrying: int
    """Replicas with traffic, this one included."""
    replicas: int
    configs: int
    """Different configurations among them."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Pages that are not ours or not for our version: name -> what is wrong."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The fleet's word on a breaker: a new one, or the last one again after `Alone`."""

    name: str
    told: Snapshot


@dataclass(frozen=True, slots=True)
class Lend:
    """Trial calls may be made."""

    name: str
    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Alone:
    """The fleet is out of reach: go on by yourself, from the state that is."""

    name: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """What became of an order for the fleet."""

    number: int
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that people should know; told when it begins and, with an empty detail, when it ends."""

    about: str
    """`configs` or a breaker's name."""
    detail: str


Deed = Send | Sync | Adopt | Lend | Alone | Ordered | Noticed
