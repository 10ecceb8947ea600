"""The configuration as JSON Schema (2020-12), for editors: keys, kinds of values, meanings.

It accepts what `check` may still refuse, since rules between fields and addresses are beyond it; it refuses nothing
that `check` accepts. `${env:NAME}` may stand wherever a value may.
"""

import json
from typing import Any

from sidecar.config.document import Config
from sidecar.config.effective import show
from sidecar.config.kinds import Kind, Section
from sidecar.config.shape import Field, ListOf, MapOf, Shape, fields

_ENVIRONMENT = {"$ref": "#/$defs/from_environment"}


def schema() -> dict[str, Any]:
    """Return the schema as a dict."""
    definitions: dict[str, Any] = {
        "from_environment": {"type": "string", "pattern": r"\$\{env:", "description": "Filled from the environment."}
    }
    root = _section(Config, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sidecar", **root, "$defs": definitions}


def schema_text() -> str:
    """Return the schema as the text of config/schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _section(section: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "type": "object",
        "description": (section.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {field.name: _field(field, definitions) for field in fields(section)},
    }
    required = [field.name for field in fields(section) if field.required]
    if required:
        written["required"] = required
    if section.one_of:
        given = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in section.one_of]
        written["oneOf"] = given
    return written


def _field(field: Field, definitions: dict[str, Any]) -> dict[str, Any]:
    value = _shape(field.shape, definitions)
    if field.nullable:
        value = {"anyOf": [value, {"type": "null"}]}
    described = f"{field.doc.meaning} (source: {field.doc.source})" if field.doc.source else field.doc.meaning
    written = {"description": described, **value}
    if not field.required and field.default is not None and not isinstance(field.default, Section):
        written["default"] = show(field.default, field.shape)
    return written


def _shape(shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(shape, ListOf):
        return {"type": "array", "items": _shape(shape.item, definitions)}
    if isinstance(shape, MapOf):
        return {"type": "object", "additionalProperties": _kind(shape.value)}
    if isinstance(shape, Kind):
        return _kind(shape)
    if shape.__name__ not in definitions:
        definitions[shape.__name__] = {}  # keeps its place while its own fields are written
        definitions[shape.__name__] = _section(shape, definitions)
    return {"$ref": f"#/$defs/{shape.__name__}"}


def _kind(kind: Kind) -> dict[str, Any]:
    if kind.each:
        return {"type": "array", "items": {"anyOf": [kind.schema, _ENVIRONMENT]}}
    if kind.schema == {"type": "string"}:
        return dict(kind.schema)
    return {"anyOf": [kind.schema, _ENVIRONMENT]}
