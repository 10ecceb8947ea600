"""`sidecar breaker list|show|open|close|reset`: look at the running proxy's breakers and order them about."""

import argparse
import getpass
import json
import os
import sys
from typing import Any
from urllib.parse import quote

from sidecar.cli import exits
from sidecar.cli.control import Unreachable, ask, find_socket
from sidecar.cli.paint import paint

_COLOURS = {"closed": "green", "half_open": "yellow", "open": "red"}
_PATH = "/api/v1/breakers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("list", "show", "open", "close", "reset"))
    parser.add_argument("name", nargs="?", metavar="NAME", help="the upstream, or UPSTREAM/ROUTE for a route's own")
    parser.add_argument("--for", dest="duration", metavar="DURATION", help="how long, like 10m (default: until reset)")
    parser.add_argument("--why", default="", metavar="TEXT", help="a word to those who wonder later")
    parser.add_argument(
        "--fleet",
        action="store_true",
        help="in all replicas that share state with this one, not only here",
    )
    parser.add_argument("--socket", metavar="PATH", help="the proxy's admin socket (default: the configuration's)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 3 show: the breaker refuses."""
    if (args.name is None) != (args.action == "list"):
        print(f"sidecar breaker {args.action}: {'takes no' if args.name else 'needs a'} NAME", file=sys.stderr)
        return exits.USAGE
    path = args.socket or find_socket(args.config, given=args.config_given)
    try:
        if args.action in ("list", "show"):
            return _look(path, args.name, as_json=args.json)
        return _order(path, args)
    except Unreachable as error:
        print(error, file=sys.stderr)
        return exits.FAILED


def _look(path: str, name: str | None, *, as_json: bool) -> int:
    _, found = ask(path, "GET", _PATH)
    chosen = [one for one in found if name in (None, one["name"])]
    if name is not None and not chosen:
        print(f"there is no breaker {name!r}; there are: {', '.join(one['name'] for one in found)}", file=sys.stderr)
        return exits.FAILED
    if as_json:
        print(json.dumps(chosen if name is None else chosen[0], indent=2))
    else:
        print("\n".join(line for one in chosen for line in (describe(one) if name else [summarize(one)])))
    return exits.UNHEALTHY if name is not None and chosen[0]["state"] == "open" else exits.OK


def summarize(one: dict[str, Any]) -> str:
    """One breaker in one line."""
    state = paint(f"{one['state']:<9}", _COLOURS[one["state"]])
    window = one["window"]
    line = f"{one['name']:<24} {state} {window['failures']}/{window['total']} failed in the window"
    if one["reason"]:
        line += f"; {one['reason']}: {one['detail']}" if one["detail"] else f"; {one['reason']}"
    if one["remaining_seconds"] is not None:
        line += f"; {one['remaining_seconds']:.0f} s left"
    return line


def describe(one: dict[str, Any]) -> list[str]:
    """One breaker, all that is known."""
    shown = {key: value for key, value in one.items() if value not in (None, "")}
    return [f"{key.replace('_', ' '):<22} {json.dumps(value)}" for key, value in shown.items()]


def who() -> str:
    """Who gives the order: the login name, or the number where the system knows none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _order(path: str, args: argparse.Namespace) -> int:
    body: dict[str, Any] = {"by": who(), "why": args.why, "fleet": args.fleet}
    if args.duration is not None:
        from sidecar.base.units import parse_duration

        try:
            body["for_seconds"] = parse_duration(args.duration)
        except ValueError as error:
            print(f"--for: {error}", file=sys.stderr)
            return exits.USAGE
    target = f"{_PATH}/{quote(args.name, safe='/')}/{args.action}"
    status, answer = ask(path, "POST", target, json.dumps(body).encode())
    message = answer["message"] if isinstance(answer, dict) else str(answer)
    if args.json:
        print(json.dumps({"ok": status == 200, "message": message}))
    else:
        print(message, file=sys.stdout if status == 200 else sys.stderr)
    return exits.OK if status == 200 else exits.FAILED
