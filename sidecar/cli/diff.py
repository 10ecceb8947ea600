"""`sidecar diff OLD NEW`: what differs, what a reload takes over at once and what needs a restart."""

import argparse
import json
from typing import Any

from sidecar.cli import exits
from sidecar.cli.paint import paint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("old", metavar="OLD", help="the configuration that runs")
    parser.add_argument("new", metavar="NEW", help="the one to come")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the changes; 0 whether there are any or not."""
    from sidecar.config.changes import changes
    from sidecar.config.load import load

    found = changes(load(args.old), load(args.new))
    if args.json:
        print(json.dumps([change._asdict() for change in found], indent=2, ensure_ascii=False))
        return exits.OK
    for change in found:
        word = paint("live   ", "green") if change.live else paint("restart", "yellow")
        why = f"  ({change.why})" if change.why else ""
        print(f"{word}  {change.path}: {_short(change.old)} -> {_short(change.new)}{why}")
    if not found:
        print("no difference")
    return exits.OK


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
