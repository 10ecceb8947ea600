"""`sidecar print-defaults`: the effective configuration, every default written out; it loads to the same again.

Without a file it shows the smallest useful one: a listener and an upstream with nothing but defaults.
"""

import argparse
import json
import os

from sidecar.cli import exits

_SMALLEST = """\
listeners: [{name: inbound, bind: "0.0.0.0:8080", routes: [{name: all, upstream: app}]}]
upstreams: [{name: app, endpoints: [{address: "127.0.0.1:8000"}]}]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print it as JSON instead of YAML")


def run(args: argparse.Namespace) -> int:
    """Print the effective configuration."""
    from sidecar.config.effective import to_plain, to_yaml
    from sidecar.config.load import load, parse

    named = args.config_given or "SIDECAR_CONFIG" in os.environ or os.path.exists(args.config)
    config = load(args.config) if named else parse(_SMALLEST)
    if args.json:
        print(json.dumps(to_plain(config), indent=2, ensure_ascii=False))
    else:
        print(to_yaml(config), end="")
    return exits.OK
