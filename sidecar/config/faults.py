"""What is wrong with a configuration, and where: every fault at once, never only the first.

A path names a value the way people would: `upstreams[1].breaker.failure_rate`. In the program it is a tuple of keys
and list positions.
"""

from typing import NamedTuple

from sidecar.base.errors import ConfigError

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file; both count from 1, columns in characters."""

    line: int = 1
    column: int = 1


class Fault(NamedTuple):
    """One thing that is wrong; prints as `file:line:col: path: message`."""

    file: str
    mark: Mark
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.mark.line}:{self.mark.column}: "
        return f"{where}{self.path}: {self.message}" if self.path else where + self.message


class InvalidConfig(ConfigError):
    """A configuration with faults; its text is all of them, one a line, in the file's order."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def show_path(path: Path) -> str:
    """Write a path as people do: `("upstreams", 1, "name")` is `upstreams[1].name`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text
