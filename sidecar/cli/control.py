"""`sidecar status`, `drain`, `reload`, `upgrade`, `stop`: talk to the running proxy over its admin socket.

The socket is the one that `--socket` names, else the configuration's `admin.socket`. A file that has become invalid
must not lock the operator out of the proxy that still runs with the last good one: then the value is picked out of the
text as well as it goes; if it holds none, the kernel is asked who runs with this file (`running.py`); the default place
is the last resort.
"""

import argparse
import http.client
import json
import os
import re
import socket
import sys
import time
from typing import Any

from sidecar.base.errors import ConfigError, SidecarError
from sidecar.cli import exits

DEFAULT_SOCKET = "/run/sidecar/admin.sock"
TIMEOUT = 40.0
"""Seconds to wait for an answer: longer than the proxy takes to give up by itself."""
WATCH_INTERVAL = 1.0
_ADMIN = re.compile(r"^admin:(.*(?:\n(?:[ \t#].*)?)*)", re.MULTILINE)
_SOCKET = re.compile(r"""(?:^|[\s{,])socket:\s*(?:"([^"\n]+)"|'([^'\n]+)'|((?:\$\{[^}\n]*\}|[^\s,}#'"])+))""")
_ENV = re.compile(r"\$\{env:(\w+)(?::-([^}]*))?\}")


class Unreachable(SidecarError):
    """Nobody answers on the admin socket; the message says what to try."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--socket", metavar="PATH", help="the proxy's admin socket (default: the configuration's)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    if parser.get_default("verb") == "status":
        parser.add_argument("--watch", action="store_true", help="show it again every second, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Do the verb; 0 done (status: ready), 1 failed, 3 status: not ready or not running, 78 the file was refused."""
    path = args.socket or find_socket(args.config, given=args.config_given)
    try:
        if args.verb == "status":
            return _watch(path, as_json=args.json) if args.watch else _status(path, as_json=args.json)
        return _command(path, args.verb, as_json=args.json)
    except Unreachable as error:
        print(error, file=sys.stderr)
        return exits.UNHEALTHY if args.verb == "status" else exits.FAILED


def find_socket(file: str, *, given: bool) -> str:
    """The admin socket that this configuration file names, be the file valid or not."""
    from sidecar.config.faults import InvalidConfig
    from sidecar.config.load import parse, read

    try:
        data = read(file)
    except InvalidConfig as error:
        running = _socket_of_running(file)
        if running is None and given:
            raise ConfigError(f"{file}: {error.faults[0].message}; name the socket with --socket") from None
        return running or DEFAULT_SOCKET
    try:
        return parse(data, file, os.environ).admin.socket
    except ConfigError:
        text = data.decode("utf-8", "replace")
    section = _ADMIN.search(text)
    found = _SOCKET.search(section[1]) if section else None
    if not found:
        return _socket_of_running(file) or DEFAULT_SOCKET
    value = next(value for value in found.groups() if value)
    return _ENV.sub(lambda name: os.environ.get(name[1]) or name[2] or "", value)


def _socket_of_running(file: str) -> str | None:
    from sidecar.cli.running import candidates

    for pid, path in candidates(file):
        try:
            status, answer = ask(path, "GET", "/api/v1/status")
        except Unreachable:
            continue
        if status == 200 and isinstance(answer, dict) and answer.get("pid") == pid:
            return path
    return None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    """Ask over the socket; return status and decoded JSON (or the text). Raises Unreachable."""
    connection = _Connection(path)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        answer = response.read()
    except FileNotFoundError:
        raise Unreachable(
            f"no proxy runs here: {path} does not exist; name the file that it runs with -c FILE, or its socket with "
            "--socket"
        ) from None
    except ConnectionRefusedError:
        raise Unreachable(f"no proxy listens on {path}; it has ended without a trace, look at its log") from None
    except PermissionError:
        raise Unreachable(f"{path} may not be opened by this user; run this as the user that runs the proxy") from None
    except TimeoutError:
        raise Unreachable(f"the proxy on {path} does not answer within {TIMEOUT:.0f} seconds") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"talking to {path} failed: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()
    try:
        return response.status, json.loads(answer)
    except ValueError:
        return response.status, answer.decode("utf-8", "replace").strip()


def _command(path: str, verb: str, *, as_json: bool) -> int:
    status, answer = ask(path, "POST", f"/{verb}")
    known = isinstance(answer, dict) and "ok" in answer
    done = known and bool(answer["ok"])
    if as_json:
        print(json.dumps(answer if known else {"ok": False, "message": str(answer)}, indent=2, ensure_ascii=False))
    else:
        print(answer["message"] if known else answer, file=sys.stdout if done else sys.stderr)
        for change in answer.get("changes", ()) if known else ():
            print(f"  {change}")
    if done:
        return exits.OK
    return exits.CONFIG if verb in {"reload", "upgrade"} and status == 422 else exits.FAILED


def _read_status(path: str) -> dict[str, Any]:
    status, answer = ask(path, "GET", "/api/v1/status")
    if status != 200 or not isinstance(answer, dict):
        raise Unreachable(f"the proxy on {path} answered {status}: {answer}")
    return answer


def _status(path: str, *, as_json: bool) -> int:
    from sidecar.cli.status_text import describe

    answer = _read_status(path)
    print(json.dumps(answer, indent=2, ensure_ascii=False) if as_json else "\n".join(describe(answer)))
    return exits.OK if answer["state"] == "ready" else exits.UNHEALTHY


def _watch(path: str, *, as_json: bool) -> int:
    from sidecar.cli.status_text import describe

    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""
    try:
        while True:
            try:
                answer = _read_status(path)
                text = json.dumps(answer, ensure_ascii=False) if as_json else "\n".join([*describe(answer), ""])
            except Unreachable as error:  # it may be starting anew; that is what is being watched
                text = json.dumps({"state": "unreachable", "message": str(error)}) if as_json else str(error)
            print(f"{clear}{text}", flush=True)
            time.sleep(WATCH_INTERVAL)
    except KeyboardInterrupt:
        return exits.OK
