"""The example service: a shop's orders in an SQLite database, over plain HTTP/1.1. Knows nothing of the proxy.

    GET  /orders        the last twenty, newest first
    GET  /orders/ID     one
    POST /orders        {"item": "tea", "quantity": 2}  ->  201 and the order
    GET  /healthz       200 while it can read its database
    POST /_fault        {"kind": "errors" | "slow" | "none", "delay": 3.0}: misbehave from now on

It is deliberately an ordinary, blocking little program: a thread per connection, a transaction per request.
"""

import argparse
import json
import signal
import sqlite3
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
  id INTEGER PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL CHECK (quantity > 0),
  placed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
)"""


class Shop(ThreadingHTTPServer):
    """The listening socket, the database's path, and the fault that is on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, database: str) -> None:
        super().__init__(("127.0.0.1", port), Counter)
        self.database = database
        self.fault: dict[str, Any] = {"kind": "none"}
        self.quiet = False
        with closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(SCHEMA)

    def connect(self) -> sqlite3.Connection:
        """A connection of the calling thread; in autocommit mode, rows as mappings."""
        connection = sqlite3.connect(self.database, timeout=5, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection


class Counter(BaseHTTPRequestHandler):
    """Where customers are served: one instance per connection, one call per request."""

    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024  # an answer leaves in one piece
    server: Shop

    def do_GET(self) -> None:
        if self.misbehaves():
            return
        with closing(self.server.connect()) as db:
            if self.path == "/healthz":
                self.answer(200, {"orders": db.execute("SELECT count(*) FROM orders").fetchone()[0]})
            elif self.path == "/orders":
                rows = db.execute("SELECT * FROM orders ORDER BY id DESC LIMIT 20").fetchall()
                self.answer(200, [dict(row) for row in rows])
            elif self.path.startswith("/orders/"):
                row = db.execute("SELECT * FROM orders WHERE id = ?", [self.path[len("/orders/") :]]).fetchone()
                self.answer(200, dict(row)) if row else self.answer(404, {"error": "no such order"})
            else:
                self.answer(404, {"error": "no such page"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            self.answer(400, {"error": "not JSON"})
            return
        if self.path == "/_fault":
            self.server.fault = asked
            self.answer(200, asked)
        elif self.path != "/orders":
            self.answer(404, {"error": "no such page"})
        elif not self.misbehaves():
            self.place(asked)

    def place(self, asked: dict[str, Any]) -> None:
        try:
            with closing(self.server.connect()) as db:
                values = [asked["item"], asked["quantity"]]
                row = db.execute("INSERT INTO orders (item, quantity) VALUES (?, ?) RETURNING *", values).fetchone()
        except (KeyError, sqlite3.IntegrityError):
            self.answer(422, {"error": "an order has an item and a quantity above 0"})
        else:
            self.answer(201, dict(row))

    def misbehaves(self) -> bool:
        """Does what the fault says; true when the request is thereby answered."""
        match self.server.fault:
            case {"kind": "errors"}:
                self.answer(503, {"error": "the shop is in trouble"})
                return True
            case {"kind": "slow", "delay": delay}:
                time.sleep(delay)
        return False

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        if not self.server.quiet:
            print(f"{time.strftime('%H:%M:%S')} {format % args}", flush=True)


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.demo.service", description="The demo's example service.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--quiet", action="store_true", help="say nothing")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Shop(args.port, args.database) as shop:
        shop.quiet = args.quiet
        if not args.quiet:
            print(f"serving {args.database} on 127.0.0.1:{args.port}", flush=True)
        try:
            shop.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
