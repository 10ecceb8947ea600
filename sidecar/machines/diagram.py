"""A machine's table of changes as a picture: Mermaid, which code hosts and editors draw by themselves."""

from collections.abc import Iterable, Mapping

from sidecar.machines.transition import State


def mermaid(changes: Mapping[tuple[State, State], Iterable[str]], initial: State) -> str:
    """The state diagram of a table (old, new) -> reasons, in the table's order."""
    lines = ["stateDiagram-v2", f"    [*] --> {initial}"]
    lines += [f"    {old} --> {new}: {', '.join(reasons)}" for (old, new), reasons in changes.items()]
    return "\n".join(lines)
