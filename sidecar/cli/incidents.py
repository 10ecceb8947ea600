"""`sidecar incidents list|show|ack|resolve|export|figures`: what went wrong here, what was said and done about it, how
often that is, and how long it lasts.
"""

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

from sidecar.cli import exits
from sidecar.cli.control import Unreachable, ask, find_socket
from sidecar.cli.paint import paint

_PATH = "/api/v1/incidents"
_COLOURS = {"detected": "red", "acknowledged": "yellow", "mitigated": "yellow", "resolved": "green", "closed": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", choices=("list", "show", "ack", "resolve", "export", "figures"))
    parser.add_argument("id", nargs="?", metavar="ID", help="the incident, as list names it")
    parser.add_argument("--open", action="store_true", help="list: only those that are open")
    parser.add_argument("--why", default="", metavar="TEXT", help="ack, resolve: a word for the timeline")
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown", help="export: the form")
    parser.add_argument("-o", "--output", metavar="FILE", help="export: where to (default: standard output)")
    parser.add_argument(
        "--store", metavar="FILE", help="list, show, export: read this file of a proxy that does not run any more"
    )
    parser.add_argument("--socket", metavar="PATH", help="the proxy's admin socket (default: the configuration's)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 0 done, 1 failed, 2 usage, 3 show: it is open."""
    if (args.id is None) != (args.action in ("list", "figures")):
        print(f"sidecar incidents {args.action}: {'takes no' if args.id else 'needs an'} ID", file=sys.stderr)
        return exits.USAGE
    if args.store and args.action not in ("list", "show", "export"):
        print(f"sidecar incidents {args.action}: --store is only read", file=sys.stderr)
        return exits.USAGE
    path = args.store or args.socket or find_socket(args.config, given=args.config_given)
    try:
        if args.action == "list":
            return _list(path, args)
        if args.action == "figures":
            return _figures(path, as_json=args.json)
        if args.action in ("ack", "resolve"):
            return _order(path, args)
        return _show(path, args)
    except Unreachable as error:
        print(error, file=sys.stderr)
        return exits.FAILED


def _look(path: str, args: argparse.Namespace) -> tuple[int, Any]:
    """Status and answer: of the proxy, or of the file."""
    if not args.store:
        return ask(path, "GET", _PATH if args.id is None else f"{_PATH}/{quote(args.id, safe='')}")
    from sidecar.cli.incident_file import read

    found = read(path, args.id)
    return (200, found) if found is not None else (404, f"there is no incident {args.id!r} in {path}")


def _list(path: str, args: argparse.Namespace) -> int:
    status, found = _look(path, args)
    if status != 200:
        print(found, file=sys.stderr)
        return exits.FAILED
    chosen = [one for one in found if one["open"] or not args.open]
    if args.json:
        print(json.dumps(chosen, indent=2, ensure_ascii=False))
        return exits.OK
    for one in chosen:
        print(_line(one))
    if not chosen:
        print("no incident is open" if args.open else "no incident is known")
    return exits.OK


def _figures(path: str, *, as_json: bool) -> int:
    from sidecar.control.page.words import UNKNOWN, figure

    status, found = ask(path, "GET", "/api/v1/figures")
    if status != 200:
        print(found, file=sys.stderr)
        return exits.FAILED
    if as_json:
        print(json.dumps(found, indent=2))
        return exits.OK
    availability, objective = (
        UNKNOWN if found[key] is None else f"{found[key]:.4%}" for key in ("availability", "objective")
    )
    rows = [("availability", f"{availability} (objective {objective})")]
    rows += [(name, figure(found[f"{name}_seconds"], "seconds")) for name in ("observed", "unknown", "down")]
    rows += [(name, figure(found[f"{name.lower()}_seconds"], "seconds")) for name in ("MTTA", "MTTR", "MTBF")]
    rows += [("incidents", f"{found['incidents']}, requests failed in {found['failures']}")]
    rows += [(f"burn rate {window}", f"{rate:g}") for window, rate in found["burn_rates"].items()]
    print(f"Over {figure(found['window_seconds'], 'seconds')}, as far as it was observed:")
    for name, text in rows:
        print(f"  {name:<14} {text}")
    return exits.OK


def _line(one: dict[str, Any]) -> str:
    state = paint(f"{one['status']:<12}", _COLOURS[one["status"]])
    return f"{one['id']}  {state} {one['severity']:<8} {plain(one['title'])}"


def _show(path: str, args: argparse.Namespace) -> int:
    status, found = _look(path, args)
    if status != 200:
        print(found, file=sys.stderr)
        return exits.FAILED
    if args.action == "export":
        return _export(found, args)
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(_line(found))
        told = ("started", "detected", "acknowledged", "acknowledged_by", "mitigated", "resolved", "resolved_by")
        for key in (*told, "closed", "reopened", "relapses", "down_seconds"):
            if found[key]:
                print(f"  {key.replace('_', ' '):<16} {plain(found[key])}")
        if found["shared_id"]:
            teller = found["led_by"] or "this one"
            print(
                f"  {'seen by':<16} {found['sharers']} replicas; {plain(teller)} tells people, as {found['shared_id']}"
            )
        for text in found["holds"]:
            print(f"  holds now        {plain(text)}")
        print()
        for line in found["timeline"]:
            print(f"  {line['at'][:23]}Z  {line['kind']:<26} {plain(line['text'])}")
    return exits.UNHEALTHY if found["open"] else exits.OK


def _export(found: dict[str, Any], args: argparse.Namespace) -> int:
    from sidecar.cli.post_mortem import data, markdown

    as_json = args.json or args.format == "json"
    text = json.dumps(data(found), indent=2, ensure_ascii=False) + "\n" if as_json else markdown(found)
    if args.output is None:
        print(text, end="")
        return exits.OK
    try:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"{args.output}: {error.strerror}", file=sys.stderr)
        return exits.FAILED
    return exits.OK


def _order(path: str, args: argparse.Namespace) -> int:
    from sidecar.cli.breaker import who

    body = json.dumps({"by": who(), "why": args.why}).encode()
    status, answer = ask(path, "POST", f"{_PATH}/{quote(args.id, safe='')}/{args.action}", body)
    message = answer["message"] if isinstance(answer, dict) else str(answer)
    if args.json:
        print(json.dumps({"ok": status == 200, "message": message}))
    else:
        print(plain(message), file=sys.stdout if status == 200 else sys.stderr)
    return exits.OK if status == 200 else exits.FAILED


def plain(value: object) -> str:
    """For a terminal: much of it was said by others, and nobody far away writes to the operator's terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))
