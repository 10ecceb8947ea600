"""A real S3 server (rclone's) on a free port, and a link to it on which things go wrong."""

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.real.databases import Server
from tests.real.harness import ROOT

KEY, SECRET = "tester", "a key that nobody guesses"


class ObjectStore(Server):
    """Serves the directories below `buckets`."""

    def __init__(self, bucket: str = "backups") -> None:
        super().__init__("s3")
        self.bucket = self.directory / "buckets" / bucket
        self.bucket.mkdir(parents=True)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def command(self) -> list[str]:
        rclone = os.path.join(ROOT, ".venv", "bin", "rclone")
        return [rclone if os.path.exists(rclone) else "rclone", "serve", "s3", "--addr", self.address,
                "--auth-key", f"{KEY},{SECRET}", "--config", "/dev/null",
                "--log-level", "ERROR", str(self.directory / "buckets")]  # fmt: skip

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        return False


class BadLink:
    """Passes requests on to `store`, unless it was told to do otherwise."""

    def __init__(self, store: ObjectStore) -> None:
        self.refuse = 0
        """So many requests are answered with 503."""
        self.refused = 0
        self.rate: float | None = None
        """Bytes per second of bodies, either way."""
        self.lose: Callable[[str], bool] = lambda _path: False
        """Uploads that are acknowledged and thrown away."""
        self.lost: list[str] = []
        self.before: Callable[[str, str], bool] = lambda _method, _path: True
        """Asked before a request is passed on; False: it never arrives, and the connection is cut."""
        link = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def _pass_on(self) -> None:
                body = link._slowly(self.rfile.read, int(self.headers.get("content-length") or 0))
                if link.refuse > 0:
                    link.refuse -= 1
                    link.refused += 1
                    self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                    return
                path = self.path.partition("?")[0]
                if not link.before(self.command, path):
                    self.close_connection = True
                    return
                if self.command == "PUT" and link.lose(path):
                    link.lost.append(path)
                    self._answer(200, {"ETag": '"00000000000000000000000000000000"'}, b"")
                    return
                connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
                with contextlib.closing(connection):
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        connection.putheader(name, value)
                    connection.endheaders(body)
                    answer = connection.getresponse()
                    self._answer(answer.status, dict(answer.getheaders()), answer.read())

            def _answer(self, status: int, fields: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in fields.items():
                    if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                        self.send_header(name, value)
                length = next((value for name, value in fields.items() if name.lower() == "content-length"), len(body))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    link._slowly(self.wfile.write, len(body), body)

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler._pass_on)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _slowly(self, deed: Callable[..., Any], length: int, body: bytes | None = None) -> bytes:
        """Read or write in pieces, no faster than the rate."""
        step = 1 << 20 if self.rate is None else max(1, int(self.rate / 10))
        got = []
        for start in range(0, length, step):
            count = min(step, length - start)
            got.append(deed(count) if body is None else (deed(body[start : start + count]), b"")[1])
            if self.rate is not None:
                time.sleep(count / self.rate)
        return b"".join(got)


def files_of(store: ObjectStore) -> dict[str, Path]:
    """The objects of the bucket by name."""
    return {str(path.relative_to(store.bucket)): path for path in store.bucket.rglob("*") if path.is_file()}
