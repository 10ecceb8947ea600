"""`sidecar agent run|status`: the backup agent, until it is stopped; and how the running one is."""

import argparse
import json
import sys

from sidecar.cli import exits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("run", "status"))
    parser.add_argument("--json", action="store_true", help="status: print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Work; or tell: 0 it answers, 3 it does not."""
    from sidecar.cli.agent_desk import told

    return _status(args) if args.action == "status" else told(_run, args)


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from sidecar.agent.service import Agent
    from sidecar.base.errors import ConfigError

    async def work() -> None:
        again = True
        while again:
            agent = Agent(args.config)  # made inside the loop: what it holds belongs to it
            await agent.run()
            again = agent.again

    try:
        asyncio.run(work())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exits.CONFIG
    return exits.OK


def _status(args: argparse.Namespace) -> int:
    from sidecar.cli.agent_desk import Desk
    from sidecar.control.page import backup_words
    from sidecar.runtime.unix_http import Absent, ask

    path = Desk(args).config.admin.socket
    try:
        code, answer = ask(path, "GET", "/api/v1/status")
    except Absent as fault:
        print(f"the backup agent does not answer: {fault}; start it with sidecar agent run", file=sys.stderr)
        return exits.UNHEALTHY
    if code != 200:
        print(f"the backup agent answers {code}: {answer[:200].decode('utf-8', 'replace')}", file=sys.stderr)
        return exits.UNHEALTHY
    said = {"reachable": True, **json.loads(answer)}
    if args.json:
        print(json.dumps(said, indent=2, ensure_ascii=False))
        return exits.OK
    print(f"backups of {said['service']}: {backup_words.state(said)[0]}")
    for name, value in backup_words.facts(said):
        print(f"  {name.lower()}: {value}")
    for one in said["conditions"]:
        print(f"! {one['reason']} ({one['subject']}): {one['detail']}")
    return exits.OK
