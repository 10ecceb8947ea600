"""A `Config` written out again: every key with the value in force, defaults included.

`to_plain` is the tree as the file would write it (durations as `30s`, statuses as `500-599`), `to_yaml` a file that
loads to an equal `Config`, and `fingerprint` a hash that is the same exactly when two configurations mean the same.
"""

import hashlib
import json
from typing import Any

from sidecar.config.document import Config
from sidecar.config.kinds import Section
from sidecar.config.shape import ListOf, MapOf, Shape, fields


def to_plain(section: Section) -> dict[str, Any]:
    """Return `section` as dicts, lists and scalars, keys in the order of the reference."""
    plain = {}
    for field in fields(type(section)):
        value = getattr(section, field.name)
        if value is not None:
            plain[field.name] = show(value, field.shape)
        elif field.name not in section.one_of:
            plain[field.name] = None
    return plain


def show(value: Any, shape: Shape) -> Any:
    """Return a value of `shape` as the file would write it."""
    if isinstance(shape, type):
        return to_plain(value)
    if isinstance(shape, ListOf):
        return [show(item, shape.item) for item in value]
    if isinstance(shape, MapOf):
        return {name: shape.value.show(item) for name, item in value.items()}
    return shape.show(value)


def fingerprint(config: Config) -> str:
    """Return 64 hexadecimal digits that change exactly when the meaning of the configuration does."""
    canonical = json.dumps(to_plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_yaml(config: Config) -> str:
    """Return the effective configuration as a file that loads to an equal `Config`, whatever the environment is."""
    import yaml

    from sidecar.config.nodes import resolve

    class Dumper(yaml.SafeDumper):
        """Quotes what YAML 1.2 would take for something else than text, and escapes what it would fold or trim."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = None
        if not value.isprintable():
            style = '"'
        elif not isinstance(resolve(value), str):
            style = "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value.replace("${env:", "$${env:"), style=style)

    Dumper.add_representer(str, text)
    written: str = yaml.dump(to_plain(config), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return written
