"""Every file that is generated from the configuration's structs, and what it must contain."""

from collections.abc import Callable

from sidecar.config.reference import reference_text
from sidecar.config.schema import schema_text

GENERATED: dict[str, Callable[[], str]] = {
    "config/schema.json": schema_text,
    "docs/reference/configuration.md": reference_text,
}
"""Path from the repository's root -> its text."""
