"""The traffic every peer is configured for: twenty routes, three origins.

Routes are told apart by the first path segment. The measured ones stand in the middle of the list, so that neither a
peer that scans in order nor one that compiles a table is favoured by the place.
"""

ROUTES = tuple(f"/svc-{number:02d}" for number in range(20))
FILES_ROUTE = ROUTES[10]
"""Goes to the origin that serves files and swallows POSTs."""
STREAMS_ROUTE = ROUTES[11]
"""Goes to the origin that streams: chunked answers, uploads, WebSocket."""

ONE_KIB = f"{FILES_ROUTE}/1k"
SIXTY_FOUR_KIB = f"{FILES_ROUTE}/64k"
ONE_GIB = f"{FILES_ROUTE}/1g"
POST = f"{FILES_ROUTE}/post"
CHUNKED = f"{STREAMS_ROUTE}/chunked"
UPLOAD = f"{STREAMS_ROUTE}/upload"
WEBSOCKET = f"{STREAMS_ROUTE}/websocket"

_FIELDS = (
    ("Host", "orders.shop.svc.cluster.local"),
    ("User-Agent", "shop-frontend/4.11.2 (linux; x86_64)"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Language", "en-GB,en;q=0.8"),
    ("Cookie", "session=9f86d081884c7d659a2feaa0c55ad015"),
    ("Referer", "https://shop.example/orders/20"),
    ("Authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2ln"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)


def request(method: str, path: str, body: bytes = b"", connection: str = "") -> bytes:
    """One request's bytes: ten header fields, and for a GET of 1 KiB 467 bytes, like a call between two services."""
    fields = [*_FIELDS, ("Content-Length", str(len(body))) if body else ("X-Tenant", "acme-eu-production1")]
    if connection:
        fields.append(("Connection", connection))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


REQUESTS = {
    "get-1k": request("GET", ONE_KIB),
    "post-1k": request("POST", POST, b"p" * 1024),
    "get-64k": request("GET", SIXTY_FOUR_KIB),
    "chunked-16x1k": request("GET", CHUNKED),
    "get-1k-tls": request("GET", ONE_KIB),
    "get-64k-tls": request("GET", SIXTY_FOUR_KIB),
    "handshake-tls": request("GET", ONE_KIB, connection="close"),
}
"""The measured requests by the name of their work."""
