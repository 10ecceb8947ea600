"""`sidecar run`: the proxy, until it is stopped; with a command, the parent of that service too.

With `--take-over` it goes on where the running one is: it gets the listening sockets, and no request is lost.
"""

import argparse
import os
import signal
import sys

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--take-over",
        nargs="?",
        const="",
        metavar="SOCKET",
        help="take over from the proxy that runs on this admin socket (the configuration's), without losing a request",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="a service to supervise, after --")


def run(args: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    if os.getpid() == 1:
        # the kernel keeps from process 1 what it does not handle: a stop that came before we can drain would be lost
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    import uvloop

    from sidecar.app.program import Program
    from sidecar.base.errors import ConfigError
    from sidecar.control.handover import TakeOverFailed

    if args.take_over is not None and args.command:
        print("--take-over: a supervised service cannot change its parent; leave the command out", file=sys.stderr)
        return exits.USAGE
    try:
        program = Program(args.config, args.command, takes_over=args.take_over)
        uvloop.run(program.run())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    except TakeOverFailed as error:
        print(error, file=sys.stderr)
        return exits.FAILED
    return exits.OK
