"""`sidecar explain KEY`: what a configuration key means, in which unit, its default and where that comes from."""

import argparse
import json
import sys
import textwrap

from sidecar.cli import exits
from sidecar.cli.paint import paint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "key", nargs="?", metavar="KEY", help="a path like upstreams.breaker.open_for; none: the top level"
    )
    parser.add_argument("--json", action="store_true", help="print the explanation as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the explanation; 2 when there is no such key."""
    from sidecar.config.explain import UnknownKey, explain, top_level

    if args.key is None:
        keys = top_level()
        if args.json:
            print(json.dumps([key._asdict() for key in keys], indent=2, ensure_ascii=False))
        else:
            for key in keys:
                print(f"{paint(f'{key.path:14}', 'bold')} {key.meaning}")
        return exits.OK
    try:
        told = explain(args.key)
    except UnknownKey as error:
        print(f"sidecar explain: {error}", file=sys.stderr)
        return exits.USAGE
    if args.json:
        print(json.dumps(told._asdict(), indent=2, ensure_ascii=False))
        return exits.OK
    print(paint(told.path, "bold"))
    print(textwrap.fill(told.meaning, 100, initial_indent="  ", subsequent_indent="  "))
    if told.about and told.about != told.meaning:
        print(textwrap.fill(" ".join(told.about.split()), 100, initial_indent="  ", subsequent_indent="  "))
    facts = {
        "value": told.value,
        "unit": told.unit,
        "default": told.default or "none: it must be given",
        "source": told.source,
        "one of": ", ".join(told.one_of),
        "keys": ", ".join(told.keys),
    }
    for word, fact in facts.items():
        if fact:
            print(textwrap.fill(fact, 100, initial_indent=f"  {word:8} ", subsequent_indent=" " * 11))
    return exits.OK
