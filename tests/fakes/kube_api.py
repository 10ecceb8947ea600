"""A small API server that speaks of EndpointSlices as Kubernetes does: list with pages, watch, tokens, versions;
and evicts pods, or says that a disruption budget forbids it.

Faithful where a client may trip: every change raises the resourceVersion; a watch sends what came after the version it
names, in order, chunked, one JSON line each, then waits; bookmarks when asked for; 410 for a version that is compacted;
401 without the token; the label selector selects; `timeoutSeconds` ends a watch. On top of that a test can drop all
connections, freeze them, and compact.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-token"
_LIST = "/apis/discovery.k8s.io/v1/namespaces/"


def slice_of(service: str, name: str, endpoints: list[dict[str, Any]], **ports: int) -> dict[str, Any]:
    """An EndpointSlice; `endpoints` as Kubernetes writes them, `ports` by name."""
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": key, "port": number, "protocol": "TCP"} for key, number in ports.items()],
    }


def pod(address: str, *, ready: bool | None = True) -> dict[str, Any]:
    """One endpoint; None: the condition is not said."""
    conditions = {} if ready is None else {"ready": ready, "serving": ready, "terminating": False}
    return {"addresses": [address], "conditions": conditions}


class KubeApi:
    """Serves one namespace, `shop`."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.page_size = 500
        self.requests: list[str] = []
        """The query of every request that was let in."""
        self.refusals = 0
        self.evictions: list[tuple[str, Any]] = []
        """Path and body of each eviction that was asked for with the token."""
        self.budget = 0
        """So many of the next evictions are forbidden by a disruption budget."""
        self._version = 100
        self._compacted = 0
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._freezes = 0
        self._drops = 0
        self._changed = threading.Condition()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api._get(self)

            def do_POST(self) -> None:
                api._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        self._server.shutdown()
        self._server.server_close()

    # -------------------------------------------------------------------------------------------- changing
    def put(self, one: dict[str, Any], *, unseen: bool = False) -> None:
        """Add or replace a slice; `unseen`: no watch will ever tell of it."""
        name = one["metadata"]["name"]
        self._change("MODIFIED" if name in self._slices else "ADDED", one, unseen=unseen)

    def delete(self, name: str) -> None:
        self._change("DELETED", self._slices[name])

    def _change(self, kind: str, one: dict[str, Any], *, unseen: bool = False) -> None:
        with self._changed:
            self._version += 1
            one = {**one, "metadata": {**one["metadata"], "resourceVersion": str(self._version)}}
            self._slices.pop(one["metadata"]["name"], None)
            if kind != "DELETED":
                self._slices[one["metadata"]["name"]] = one
            if not unseen:
                self._events.append((self._version, {"type": kind, "object": one}))
            self._changed.notify_all()

    def compact(self) -> None:
        """Forget the past: watches from earlier versions are gone, those under way end with an ERROR."""
        with self._changed:
            self._version += 1
            self._compacted = self._version
            self._events.clear()
            self._changed.notify_all()

    def drop(self) -> None:
        """Cut every watch in the middle."""
        with self._changed:
            self._drops += 1
            self._changed.notify_all()

    def freeze(self) -> None:
        """Watches under way stay open and say nothing ever again; new ones work."""
        with self._changed:
            self._freezes += 1
            self._changed.notify_all()

    def wait_requests(self, count: int, patience: float = 15.0) -> None:
        """Block until so many requests in all were let in."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, patience), self.requests

    # -------------------------------------------------------------------------------------------- answering
    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if handler.headers["authorization"] != f"Bearer {self.token}":
            self.refusals += 1
            self._status(handler, 401, "Unauthorized")
        elif parts.path != _LIST + "shop/endpointslices":
            self._status(handler, 404, f"no such thing as {parts.path}")
        elif query.get("watch") == "1":
            self._watch(handler, parts.query, query)
        else:
            self._note(parts.query)
            self._list(handler, query)

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        pod = f"/api/v1/namespaces/shop/pods/{body['metadata']['name']}/eviction"
        if handler.headers["authorization"] != f"Bearer {self.token}":
            self.refusals += 1
            self._status(handler, 401, "Unauthorized")
        elif handler.path != pod or (body["apiVersion"], body["kind"]) != ("policy/v1", "Eviction"):
            self._status(handler, 404, f"no such thing as {handler.path}")
        else:
            self.evictions.append((handler.path, body))
            if self.budget:
                self.budget -= 1
                self._status(handler, 429, "Cannot evict pod as it would violate the pod's disruption budget.")
            else:
                self._send(handler, 201, {"kind": "Status", "status": "Success", "code": 201})

    def _note(self, query: str) -> None:
        with self._changed:
            self.requests.append(query)
            self._changed.notify_all()

    def _list(self, handler: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        with self._changed:
            chosen = [one for one in self._slices.values() if _selected(one, query)]
            start = int(query.get("continue", "0"))
            size = min(int(query.get("limit", "500")), self.page_size)
            metadata = {"resourceVersion": str(self._version)}
            if start + size < len(chosen):
                metadata["continue"] = str(start + size)
            body = {"kind": "EndpointSliceList", "metadata": metadata, "items": chosen[start : start + size]}
        self._send(handler, 200, body)

    def _watch(self, handler: BaseHTTPRequestHandler, text: str, query: dict[str, str]) -> None:
        with self._changed:
            seen = (self._drops, self._freezes)
        self._note(text)
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        try:
            for event in self._follow(query, seen):
                line = json.dumps(event).encode() + b"\n"
                half = len(line) // 2  # lines do not come in pieces of their own
                for piece in (line[:half], line[half:]):
                    handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        except _Cut:
            handler.close_connection = True

    def _follow(self, query: dict[str, str], seen: tuple[int, int]) -> Iterator[dict[str, Any]]:
        version = int(query["resourceVersion"])
        deadline = time.monotonic() + int(query["timeoutSeconds"])
        while True:
            with self._changed:
                while (self._drops, self._freezes) == seen and version == self._version:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
                if self._freezes != seen[1]:
                    self._changed.wait_for(lambda: self._drops != seen[0])
                if self._drops != seen[0]:
                    raise _Cut
                if version < self._compacted:
                    yield {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
                    return
                events = [event for at, event in self._events if at > version and _selected(event["object"], query)]
                news, version = version < self._version, self._version
            yield from events
            if news and not events and query.get("allowWatchBookmarks") == "true":
                metadata = {"resourceVersion": str(version)}
                yield {"type": "BOOKMARK", "object": {"kind": "EndpointSlice", "metadata": metadata}}
            if time.monotonic() >= deadline:
                return

    def _status(self, handler: BaseHTTPRequestHandler, code: int, message: str) -> None:
        self._send(handler, code, {"kind": "Status", "status": "Failure", "code": code, "message": message})

    def _send(self, handler: BaseHTTPRequestHandler, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        handler.send_response(code)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


class _Cut(Exception):
    """The test drops the connection."""


def _selected(one: dict[str, Any], query: dict[str, str]) -> bool:
    key, _, value = query.get("labelSelector", "").partition("=")
    return not key or one["metadata"]["labels"].get(key) == value
