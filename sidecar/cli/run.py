"""`sidecar run`: the proxy, until it is stopped."""

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

    if args.command:
        print("sidecar: supervising a command is not there yet; start the service on its own", file=sys.stderr)
        return exits.USAGE
    try:
        program = Program(args.config)
        uvloop.run(program.run())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    return exits.OK
