"""YAML as a tree of nodes that know their place: text in, nodes and faults out, no types yet.

PyYAML's parser supplies the events; the tree is built here, because its own constructor reads YAML 1.1 (`on` is true,
`1:30` is 90), forgets places, keeps the last of duplicate keys without a word and expands aliases without bound.

Bounds: one document, `MAX_DEPTH` levels, `MAX_NODES` nodes with every alias counted at its full size. An alias stands
for the very node it names; it may not stand inside that node. Tags are refused: the schema, not the file, says what a
value is.
"""

import re
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from sidecar.config.faults import Fault, Mark
from sidecar.config.reading import Plain

MAX_DEPTH = 32
MAX_NODES = 100_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_PREFIXED = re.compile(r"0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


class Scalar:
    """A single value as written; `plain` means without quotes, so that its text decides what it is."""

    def __init__(self, mark: Mark, text: str, *, plain: bool) -> None:
        self.mark = mark
        self.size = 1
        self.text = text
        self.plain = plain


class Sequence:
    """A list."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.items: list[Node] = []
        self.size = 1


class Mapping:
    """Keys and values in the file's order, duplicates included."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.entries: list[tuple[Scalar, Node]] = []
        self.size = 1


Node = Scalar | Sequence | Mapping


class _Refused(Exception):
    """The text cannot be read any further."""


def resolve(text: str) -> Plain:
    """Return what a plain scalar means by the core schema of YAML 1.2 (§10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, base=0)
    if len(text) <= 40 and _FLOAT.fullmatch(text):
        return float(text)
    return text


def compose(text: str, file: str) -> tuple[Node | None, list[Fault]]:
    """Build the tree of the only document in `text`; None when it is empty or cannot be read."""
    composer = _Composer(file, text)
    return composer.root(), composer.faults


class _Composer:
    """Descends over the parser's events; `MAX_DEPTH` bounds the recursion, `total` the nodes."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.events = yaml.parse(text, Loader=_LOADER)
        self.faults: list[Fault] = []
        self.anchors: dict[str, Node | None] = {}  # None: still being built
        self.total = 0

    def root(self) -> Node | None:
        root: Node | None = None
        try:
            for event in self.events:
                if isinstance(event, NodeEvent):
                    if root is not None:
                        self._refuse(_mark(event), "a second document: one file is one configuration")
                    root = self._node(event, 0)
        except yaml.MarkedYAMLError as error:
            self._fault(_error_mark(error), f"not YAML: {self._reason(error)}")
            return None
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
            self._fault(mark, "not YAML: a character that may not stand in a YAML file")
            return None
        except _Refused:
            return None
        return root

    def _node(self, event: Any, depth: int) -> Node:
        mark = _mark(event)
        if isinstance(event, AliasEvent):
            return self._alias(event, mark)
        if event.tag is not None and event.tag != "!":
            self._fault(mark, f"the tag {event.tag[:60]} is not allowed: the key decides what its value is")
        if depth > MAX_DEPTH:
            self._refuse(mark, f"nested deeper than {MAX_DEPTH} levels")
        before = self.total
        self._count(1, mark)
        anchor = event.anchor
        if anchor:
            self.anchors[anchor] = None
        node: Node
        if isinstance(event, ScalarEvent):
            node = Scalar(mark, event.value, plain=event.implicit[0])
        elif isinstance(event, SequenceStartEvent):
            node = Sequence(mark)
            while not isinstance(event := next(self.events), SequenceEndEvent):
                node.items.append(self._node(event, depth + 1))
        else:
            node = Mapping(mark)
            while not isinstance(event := next(self.events), MappingEndEvent):
                self._entry(node, self._node(event, depth + 1), self._node(next(self.events), depth + 1))
        node.size = self.total - before
        if anchor:
            self.anchors[anchor] = node
        return node

    def _entry(self, mapping: Mapping, key: Node, value: Node) -> None:
        if not isinstance(key, Scalar):
            self._fault(key.mark, "a key is a single word, not a list or a mapping")
        elif key.text == "<<" and key.plain:
            self._fault(
                key.mark, "merge keys (<<) are not YAML 1.2: repeat the keys, or alias the whole value with *name"
            )
        else:
            mapping.entries.append((key, value))

    def _alias(self, event: AliasEvent, mark: Mark) -> Node:
        anchor = event.anchor or ""
        target = self.anchors.get(anchor)
        if target is None:
            why = "stands inside what it names" if anchor in self.anchors else "names no anchor before it"
            self._fault(mark, f"the alias *{anchor[:60]} {why}")
            return Scalar(mark, "", plain=True)
        self._count(target.size, mark)
        return target

    def _count(self, nodes: int, mark: Mark) -> None:
        self.total += nodes
        if self.total > MAX_NODES:
            self._refuse(mark, f"more than {MAX_NODES} values, aliases counted at their full size")

    def _fault(self, mark: Mark, message: str) -> None:
        self.faults.append(Fault(self.file, mark, "", message))

    def _refuse(self, mark: Mark, message: str) -> None:
        self._fault(mark, message)
        raise _Refused

    def _reason(self, error: yaml.MarkedYAMLError) -> str:
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        lines = self.text.splitlines()
        line = _error_mark(error).line
        if line <= len(lines) and "${" in lines[line - 1]:
            reason += "; within { } or [ ] put quotes around ${env:NAME}"
        return reason


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _error_mark(error: yaml.MarkedYAMLError) -> Mark:
    mark = error.problem_mark or error.context_mark
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark()
