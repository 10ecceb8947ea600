"""The reference of all keys as Markdown: docs/reference/configuration.md is this module's output."""

from collections.abc import Iterator

from sidecar.config.document import Config
from sidecar.config.explain import Explanation, explain_field, section_of
from sidecar.config.kinds import Section
from sidecar.config.shape import Field, ListOf, fields

_OPENING = """\
# Configuration reference

Generated from the code (`make generate`); `sidecar explain KEY` says the same at the terminal, `config/sidecar.yaml`
shows the keys at work, `config/schema.json` completes and checks them in an editor.

* One YAML 1.2 file, at most 1 MiB, one document. Anchors and aliases work; merge keys (`<<`) and tags do not.
* Unknown and duplicate keys are errors. `sidecar check` prints every fault at once, each with its line and column.
* A duration is `250ms`, `30s`, `1m30s`, `2h`, `7d`; a bare number is refused, except `0`. A size is `64KiB`, `1MiB`,
  or a plain number of bytes. A ratio is a number from 0 to 1. A set of statuses is a list like `[404, 500-503]`.
* An address is `host:port`, `[::1]:port` or `unix:/path`. A name is lower-case letters, digits, `_`, `.` and `-`.
* `${env:NAME}` and `${env:NAME:-default}` in a value are replaced once, before the value gets its type; a variable
  that is not set and has no default is an error. `$${env:` stands for `${env:`. Within `{ }` and `[ ]` YAML wants
  quotes around it, which make no text of it: `{sample: "${env:SAMPLE:-0.1}"}` is a number. Where null may stand, an
  empty value is null: `token_file: ${env:TOKEN_FILE:-}`.
* Secrets stand in files of their own; the configuration only names them (`*_file`).
"""


def reference_text() -> str:
    """Return the whole page."""
    return _OPENING + "\n" + "\n".join(_section(Config, "", "The file", 2))


def _section(section: type[Section], path: str, title: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {title}"
    yield ""
    about = " ".join((section.__doc__ or "").split())
    yield about
    yield ""
    if section.one_of:
        yield f"Exactly one of {', '.join(f'`{name}`' for name in section.one_of)} is given."
        yield ""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields(section):
        yield _row(field, explain_field(_join(path, field), field))
    yield ""
    for field in fields(section):
        inner = section_of(field.shape)
        if inner:
            here = _join(path, field)
            listed = "[]" if isinstance(field.shape, ListOf) else ""
            yield from _section(inner, here, f"`{here}{listed}`", min(level + 1, 4))


def _row(field: Field, told: Explanation) -> str:
    value = f"{told.value} ({told.unit})" if told.unit else told.value
    default = f"`{told.default}`" if told.default and " " not in told.default[:6] else told.default
    meaning = told.meaning
    if told.source:
        meaning += f" *Source: {told.source}.*"
    cells = (f"`{field.name}`", value, default or "*required*", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _join(path: str, field: Field) -> str:
    return f"{path}.{field.name}" if path else field.name
