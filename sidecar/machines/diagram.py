"""A machine's table of changes as a picture: Mermaid, which code hosts and editors draw by themselves."""

from collections.abc import Iterable, Mapping
from enum import StrEnum


def mermaid(changes: Mapping[tuple[StrEnum, StrEnum], Iterable[str]], initial: StrEnum) -> str:
    """The state diagram of a table (old, new) -> reasons, in the table's order."""
    lines = ["stateDiagram-v2", f"    [*] --> {initial}"]
    lines += [f"    {old} --> {new}: {', '.join(reasons)}" for (old, new), reasons in changes.items()]
    return "\n".join(lines)
