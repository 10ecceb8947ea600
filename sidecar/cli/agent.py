"""`sidecar agent run`: the backup agent, until it is stopped."""

import argparse
import sys

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("run",))


def run(args: argparse.Namespace) -> int:
    """Work; returns the exit code."""
    import asyncio

    from sidecar.agent.service import Agent
    from sidecar.base.errors import ConfigError

    async def work() -> None:
        # made inside the loop: what it holds belongs to it
        await Agent(args.config).run()

    try:
        asyncio.run(work())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    return exits.OK
