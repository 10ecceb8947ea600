"""`sidecar schema`: the configuration's JSON Schema, for editors and pipelines."""

import argparse

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="has no effect: the schema is JSON")


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - every verb has this signature
    """Print the schema."""
    from sidecar.config.schema import schema_text

    print(schema_text(), end="")
    return exits.OK
