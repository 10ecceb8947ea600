"""What a machine returns when its state changed: the shells turn it into metric, log line and incident."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Transition(Generic[State]):
    """One change of state."""

    old: State
    new: State
    reason: str
    """One word, as it stands in the label `reason`."""
    at: float
    """Monotonic seconds."""
    detail: str = ""
    """For people: the figures behind the reason."""
