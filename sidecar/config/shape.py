"""The structs as data: which fields a section has, what each means and what may stand in it.

Reads the annotations once. Decoder, `print-defaults`, `explain`, the schema, the reference and the comparison of two
configurations all walk these shapes; none of them looks at an annotation itself.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import msgspec

from sidecar.config.kinds import Doc, Kind, Section


@dataclass(frozen=True, eq=False)
class ListOf:
    """A list of items of one shape; a tuple in the program."""

    item: "Shape"


@dataclass(frozen=True, eq=False)
class MapOf:
    """A mapping whose keys the operator chooses; a dict in the program."""

    key: Kind
    value: Kind


Shape = Kind | ListOf | MapOf | type[Section]


@dataclass(frozen=True, eq=False)
class Field:
    """One key of a section."""

    name: str
    doc: Doc
    shape: Shape
    nullable: bool
    required: bool
    default: Any
    """What stands when the key is absent; None when it is required."""


@cache
def fields(section: type[Section]) -> tuple[Field, ...]:
    """Return the fields of `section` in the order they are written."""
    hints = typing.get_type_hints(section, include_extras=True)
    return tuple(_field(info, hints[info.name]) for info in msgspec.structs.fields(section))


def _field(info: msgspec.structs.FieldInfo, hint: Any) -> Field:
    doc = next(extra for extra in hint.__metadata__ if isinstance(extra, Doc))
    shape: Any = hint
    nullable = _is_union(hint.__origin__) and types.NoneType in typing.get_args(hint.__origin__)
    if nullable:
        shape = next(option for option in typing.get_args(hint.__origin__) if option is not types.NoneType)
    default = info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
    required = default is msgspec.NODEFAULT
    return Field(info.name, doc, _shape(shape), nullable, required, None if required else default)


def _shape(hint: Any) -> Shape:
    kind = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Kind)), None)
    if kind is not None:
        return kind
    if typing.get_origin(hint) is Annotated:
        hint = hint.__origin__
    if isinstance(hint, type) and issubclass(hint, Section):
        return hint
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return ListOf(_shape(arguments[0]))
    if typing.get_origin(hint) is Mapping:
        key, value = _shape(arguments[0]), _shape(arguments[1])
        assert isinstance(key, Kind)
        assert isinstance(value, Kind)
        return MapOf(key, value)
    raise TypeError(f"{hint!r} has no kind: annotate it with one of sidecar.config.kinds")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, types.UnionType}
