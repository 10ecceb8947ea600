"""What a key means: found by its path, told from the struct where it is defined.

`explain`, the reference and the schema say the same because they all ask here.
"""

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from sidecar.config.document import Config
from sidecar.config.effective import show
from sidecar.config.kinds import Kind, Section
from sidecar.config.shape import Field, ListOf, MapOf, Shape, fields


class Explanation(NamedTuple):
    """One key, in words."""

    path: str
    meaning: str
    value: str
    """What may stand there: `duration`, `list of names`."""
    unit: str
    default: str
    """As the file would write it; empty when the key must be given."""
    source: str
    about: str
    """For a section: what it is."""
    one_of: tuple[str, ...]
    keys: tuple[str, ...]


class UnknownKey(LookupError):
    """No such key; the message proposes the nearest."""


def explain(path: str) -> Explanation:
    """Explain the key at `path` (`upstreams.breaker.open_for`; list positions and names in [] are ignored)."""
    wanted = re.sub(r"\[[^]]*\]", "", path).strip(".")
    known = dict(walk())
    if wanted not in known:
        raise UnknownKey(_advice(wanted, list(known)))
    return explain_field(wanted, known[wanted])


def top_level() -> tuple[Explanation, ...]:
    """Explain every key of the file's first level."""
    return tuple(explain_field(field.name, field) for field in fields(Config))


def walk(section: type[Section] = Config, path: str = "") -> Iterator[tuple[str, Field]]:
    """Yield every key below `section` with its path, in the order of the reference."""
    for field in fields(section):
        here = f"{path}.{field.name}" if path else field.name
        yield here, field
        inner = section_of(field.shape)
        if inner:
            yield from walk(inner, here)


def explain_field(path: str, field: Field) -> Explanation:
    """Put one field into words."""
    section = section_of(field.shape)
    return Explanation(
        path=path,
        meaning=field.doc.meaning,
        value=value_word(field.shape) + (" or null" if field.nullable else ""),
        unit=unit(field.shape),
        default=default_text(field),
        source=field.doc.source,
        about=(section.__doc__ or "").strip() if section else "",
        one_of=section.one_of if section else (),
        keys=tuple(inner.name for inner in fields(section)) if section else (),
    )


def section_of(shape: Shape) -> type[Section] | None:
    """Return the section that a key holds, or holds a list of."""
    if isinstance(shape, ListOf):
        return section_of(shape.item)
    return shape if isinstance(shape, type) else None


def value_word(shape: Shape) -> str:
    """Say what may stand there: `duration`, `list of sections`."""
    if isinstance(shape, ListOf):
        word = value_word(shape.item)
        return f"list of {word}es" if word.endswith("s") else f"list of {word}s"
    if isinstance(shape, MapOf):
        return f"mapping from {shape.key.word} to {shape.value.word}"
    return shape.word if isinstance(shape, Kind) else "section"


def unit(shape: Shape) -> str:
    """Return the unit or range of the values, if they have one."""
    if isinstance(shape, ListOf):
        return unit(shape.item)
    return shape.unit if isinstance(shape, Kind) else ""


def default_text(field: Field) -> str:
    """Write the default as the file would; a section's is told by its own keys."""
    if field.required:
        return ""
    if isinstance(field.default, Section):
        return "its keys' defaults"
    if field.default is None:
        return "null"
    plain: Any = show(field.default, field.shape)
    return plain if isinstance(plain, str) and plain else json.dumps(plain, ensure_ascii=False)


def _advice(wanted: str, known: list[str]) -> str:
    ends = [key for key in known if key.endswith("." + wanted)]
    close = ends[:3] or difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
    if not close:
        close = [key for key in known if key.rpartition(".")[2] == wanted.rpartition(".")[2]][:3]
    return f"there is no key {wanted!r}" + (f"; did you mean {' or '.join(close)}?" if close else "")
