"""`sidecar recover status|pause|resume|run`: what the running proxy does on its own, and orders to it."""

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

from sidecar.cli import exits
from sidecar.cli.breaker import who
from sidecar.cli.control import Unreachable, ask, find_socket

_PATH = "/api/v1/recovery"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("status", "pause", "resume", "run"))
    parser.add_argument("name", nargs="?", metavar="NAME", help="the rule to run now, whatever was used up")
    parser.add_argument("--dry-run", action="store_true", help="run: only say what would be done")
    parser.add_argument("--why", default="", metavar="TEXT", help="a word to those who wonder later")
    parser.add_argument("--socket", metavar="PATH", help="the proxy's admin socket (default: the configuration's)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 3 status: people have to take over."""
    if (args.name is None) == (args.action == "run"):
        print(f"sidecar recover {args.action}: {'takes no' if args.name else 'needs a'} NAME", file=sys.stderr)
        return exits.USAGE
    if args.dry_run and args.action != "run":
        print(f"sidecar recover {args.action}: --dry-run goes with run only", file=sys.stderr)
        return exits.USAGE
    path = args.socket or find_socket(args.config, given=args.config_given)
    try:
        return _status(path, as_json=args.json) if args.action == "status" else _order(path, args)
    except Unreachable as error:
        print(error, file=sys.stderr)
        return exits.FAILED


def _status(path: str, *, as_json: bool) -> int:
    from sidecar.cli.status_text import recovery

    code, found = ask(path, "GET", _PATH)
    if code != 200 or not isinstance(found, dict):
        print(f"the proxy on {path} answered {code}: {found}", file=sys.stderr)
        return exits.FAILED
    print(json.dumps(found, indent=2) if as_json else "\n".join(recovery(found)).strip() or "no recovery rules")
    return exits.UNHEALTHY if any(one["stage"] == "escalated" for one in found["rules"]) else exits.OK


def _order(path: str, args: argparse.Namespace) -> int:
    body: dict[str, Any] = {"by": who(), "why": args.why}
    if args.dry_run:
        body["dry_run"] = True
    target = f"{_PATH}/{quote(args.name, safe='')}/run" if args.name else f"{_PATH}/{args.action}"
    status, answer = ask(path, "POST", target, json.dumps(body).encode())
    message = answer["message"] if isinstance(answer, dict) else str(answer)
    if args.json:
        print(json.dumps({"ok": status == 200, "message": message}))
    else:
        print(message, file=sys.stdout if status == 200 else sys.stderr)
    return exits.OK if status == 200 else exits.FAILED
