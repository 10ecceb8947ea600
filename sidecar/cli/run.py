"""`sidecar run`: the proxy, until it is stopped; with a command, the parent of that service too."""

import argparse
import sys

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="a service to supervise, after --")


def run(args: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    import uvloop

    from sidecar.app.program import Program
    from sidecar.base.errors import ConfigError

    try:
        program = Program(args.config, args.command)
        uvloop.run(program.run())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    return exits.OK
