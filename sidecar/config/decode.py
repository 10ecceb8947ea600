"""From nodes to `Config`: every fault at its place, and always a whole tree to go on with.

A value that is wrong is replaced by its default, or by an empty one, so that the rest of the file is still read and
the rules between fields can still be checked; a tree with faults never leaves the loader. `${env:NAME}` and
`${env:NAME:-default}` are expanded once in every value before it gets its type; `$${env:` stands for itself. Quotes do
not decide the type of an expanded value: within `{ }` it cannot be written without them, and what a variable holds
(a host's name of digits alone) nobody can quote. What an optional key gets from an empty variable is null.
"""

import difflib
import re
from collections.abc import Mapping as MappingType
from typing import Any

from sidecar.config.document import Config
from sidecar.config.faults import Fault, Mark, Path, show_path
from sidecar.config.kinds import Kind, Section
from sidecar.config.nodes import Mapping, Node, Scalar, Sequence, resolve
from sidecar.config.reading import Plain, article, describe
from sidecar.config.shape import Field, ListOf, MapOf, Shape, fields

_ENV = re.compile(r"(\$?)\$\{env:([^}]*)(\}?)")
_ENV_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class _Wrong(Exception):
    """This value cannot be used."""


class Decoder:
    """Decodes one file. Afterwards `faults` holds what was wrong and `places` where each given value stands."""

    def __init__(self, file: str, env: MappingType[str, str]) -> None:
        self.file = file
        self.env = env
        self.faults: list[Fault] = []
        self.places: dict[Path, Mark] = {}
        self.wrong: set[Path] = set()

    def config(self, root: Node) -> Config:
        """Decode the whole document."""
        config = self.document(root, Config)
        assert isinstance(config, Config)
        return config

    def document(self, root: Node, section: type[Section]) -> Section:
        """Decode a document that is one `section`."""
        self.places[()] = root.mark
        return self._section(root, section, ())

    def sections(self, root: Node, section: type[Section]) -> tuple[Any, ...]:
        """Decode a document that is a list of `section`s."""
        self.places[()] = root.mark
        try:
            return tuple(self._value(root, ListOf(section), ()))
        except _Wrong:
            return ()

    def fault(self, path: Path, mark: Mark, message: str) -> None:
        """Note that the value at `path` is wrong."""
        self.wrong.add(path)
        self.faults.append(Fault(self.file, mark, show_path(path), message))

    def _section(self, node: Node, section: type[Section], path: Path) -> Section:
        known = {field.name: field for field in fields(section)}
        values: dict[str, Any] = {}
        entries: list[tuple[Scalar, Node]] = []
        if isinstance(node, Mapping):
            entries = self._entries(node, path, known)
        else:
            self.fault(path, node.mark, f"a mapping of {', '.join(known)} is expected, not {self._describe(node)}")
        for key, value in entries:
            field = known[key.text]
            here = (*path, key.text)
            self.places[here] = value.mark if isinstance(value, Scalar) else key.mark
            values[key.text] = self._field(value, field, here)
        for field in known.values():
            if field.required and field.name not in values:
                if isinstance(node, Mapping):
                    self.fault((*path, field.name), self.places[path], f"missing: {field.doc.meaning}")
                values[field.name] = self._placeholder(field.shape)
        if section.one_of and isinstance(node, Mapping):
            given = {name for name, value in values.items() if value is not None or (*path, name) in self.wrong}
            self._one_of(section, given, path)
        return section(**values)

    def _entries(self, node: Mapping, path: Path, known: MappingType[str, Field]) -> list[tuple[Scalar, Node]]:
        seen: dict[str, Mark] = {}
        entries = []
        for key, value in node.entries:
            here = (*path, key.text[:80])
            if key.text in seen:
                self.fault(here, key.mark, f"given twice; the first is in line {seen[key.text].line}")
            elif key.text not in known:
                self.fault(here, key.mark, f"unknown key{_did_you_mean(key.text, known)}")
            else:
                entries.append((key, value))
            seen.setdefault(key.text, key.mark)
        return entries

    def _one_of(self, section: type[Section], given: set[str], path: Path) -> None:
        chosen = [name for name in section.one_of if name in given]
        if len(chosen) > 1:
            self.fault(path, self.places[path], f"{' and '.join(chosen)} exclude each other: give one of them")
        elif not chosen and not any((*path, name) in self.wrong for name in section.one_of):
            self.fault(path, self.places[path], f"exactly one of {', '.join(section.one_of)} is expected")

    def _field(self, node: Node, field: Field, path: Path) -> Any:
        try:
            if field.nullable and self._is_null(node, path):
                return None
            return self._value(node, field.shape, path)
        except _Wrong:
            return self._placeholder(field.shape) if field.required else field.default

    def _value(self, node: Node, shape: Shape, path: Path) -> Any:
        if isinstance(shape, type):
            return self._section(node, shape, path)
        if isinstance(shape, ListOf):
            return tuple(self._item(item, shape.item, (*path, i)) for i, item in enumerate(self._items(node, path)))
        if isinstance(shape, MapOf):
            return self._map(node, shape, path)
        if shape.each:
            return frozenset(
                value for i, item in enumerate(self._items(node, path)) for value in self._each(item, shape, (*path, i))
            )
        return self._scalar(node, shape, path)

    def _item(self, node: Node, shape: Shape, path: Path) -> Any:
        self.places[path] = node.mark
        try:
            return self._value(node, shape, path)
        except _Wrong:
            return self._placeholder(shape)

    def _each(self, node: Node, kind: Kind, path: Path) -> Any:
        self.places[path] = node.mark
        try:
            return self._scalar(node, kind, path)
        except _Wrong:
            return ()

    def _items(self, node: Node, path: Path) -> list[Node]:
        if isinstance(node, Sequence):
            return node.items
        self.fault(path, node.mark, f"a list is expected, not {self._describe(node)}")
        raise _Wrong

    def _map(self, node: Node, shape: MapOf, path: Path) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            self.fault(path, node.mark, f"a mapping is expected, not {self._describe(node)}")
            raise _Wrong
        found: dict[str, Any] = {}
        for key, value in node.entries:
            here = (*path, key.text[:80])
            self.places[here] = value.mark
            try:
                if key.text.lower() in (name.lower() for name in found):
                    self.fault(here, key.mark, "given twice")
                    continue
                name = self._parse(key.text, shape.key, here, key.mark)
                found[name] = self._scalar(value, shape.value, here)
            except _Wrong:
                continue
        return found

    def _scalar(self, node: Node, kind: Kind, path: Path) -> Any:
        if not isinstance(node, Scalar):
            self.fault(path, node.mark, f"{article(kind.word)} is expected, not {self._describe(node)}")
            raise _Wrong
        text = self._expand(node, path)
        value, other = (resolve(text), text) if node.plain else (text, resolve(text))
        if text != node.text and not _fits(value, kind) and _fits(other, kind):
            value = other
        return self._parse(value, kind, path, node.mark)

    def _is_null(self, node: Node, path: Path) -> bool:
        if not isinstance(node, Scalar):
            return False
        text = self._expand(node, path)
        return resolve(text) is None if node.plain else text == "" != node.text

    def _parse(self, value: Plain, kind: Kind, path: Path, mark: Mark) -> Any:
        try:
            return kind.parse(value)
        except ValueError as error:
            self.fault(path, mark, str(error))
            raise _Wrong from None

    def _expand(self, node: Scalar, path: Path) -> str:
        def replace(found: re.Match[str]) -> str:
            if found[1]:
                return found[0][1:]
            parts = _ENV_NAME.fullmatch(found[2])
            if not parts or not found[3]:
                self.fault(path, node.mark, "write ${env:NAME} or ${env:NAME:-default}; $${env: stands for itself")
                raise _Wrong
            name, default = parts[1], parts[2]
            value = self.env.get(name)
            if default is not None:
                value = value or default  # as in the shell: :- also replaces an empty value
            if value is None:
                self.fault(
                    path,
                    node.mark,
                    f"the environment variable {name} is not set: set it or write ${{env:{name}:-default}}",
                )
                raise _Wrong
            if not _is_text(value):
                self.fault(path, node.mark, f"the environment variable {name} is not UTF-8 text")
                raise _Wrong
            return value

        return _ENV.sub(replace, node.text) if "${env:" in node.text else node.text

    def _placeholder(self, shape: Shape) -> Any:
        if isinstance(shape, type):
            return shape(**{field.name: self._placeholder(field.shape) for field in fields(shape) if field.required})
        if isinstance(shape, ListOf):
            return ()
        return {} if isinstance(shape, MapOf) else shape.empty

    @staticmethod
    def _describe(node: Node) -> str:
        if isinstance(node, Sequence):
            return "a list"
        if isinstance(node, Mapping):
            return "a mapping"
        return describe(resolve(node.text) if node.plain else node.text)


def _did_you_mean(word: str, known: MappingType[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}"


def _fits(value: Plain, kind: Kind) -> bool:
    try:
        kind.parse(value)
    except ValueError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
