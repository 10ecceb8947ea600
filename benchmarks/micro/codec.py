"""The codecs alone: CPU time per head and per chunked body. `python -m benchmarks.micro.codec` prints JSON.

Each figure is the least of several repeats, in microseconds: the machine's noise only ever adds. The request has 460
bytes and 10 fields, as in the load benchmarks; its Connection field must be cut out, so no head passes by copying.
"""

import json
import platform
import sys
import timeit
from collections.abc import Callable

from sidecar.proxy.codec import FAST, REFERENCE
from sidecar.proxy.codec.head import CHUNKED, Limits

LIMITS = Limits(max_head=65536, max_target=8192, max_fields=100)

REQUEST = (
    b"GET /api/v1/orders/12345?expand=items&limit=50 HTTP/1.1\r\nHost: orders.shop.svc:8080\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"
    b"Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nX-Tenant: gold\r\n"
    b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nCache-Control: no-cache\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
FORWARDED_REQUEST = REQUEST.replace(
    b"X-Tenant: gold\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Request-Id: 7\r\n",
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 1024\r\n"
    b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "6592000-400"\r\nAccept-Ranges: bytes\r\n\r\n'
)
CHUNKED_RESPONSE = RESPONSE.replace(b"Content-Length: 1024", b"Transfer-Encoding: chunked")
CHUNKS = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 16 + b"0\r\n\r\n"
INSIDE = b"x" * 65536


def microseconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Least time of one call, each repeat about a tenth of a second."""
    timer = timeit.Timer(work)
    number = max(1, int(0.1 / max(timer.timeit(20) / 20, 1e-7)))
    return round(min(timer.repeat(repeats, number)) / number * 1e6, 2)


def main() -> int:
    results: dict[str, dict[str, float]] = {}
    for name, codec in (("fast", FAST), ("reference", REFERENCE)):
        inside = codec.body(CHUNKED)
        inside.feed(b"fffffffffffff\r\n")
        results[name] = {
            "request_head": microseconds(lambda codec=codec: codec.request(REQUEST, LIMITS)),
            "request_head_forwarded": microseconds(lambda codec=codec: codec.request(FORWARDED_REQUEST, LIMITS)),
            "response_head": microseconds(lambda codec=codec: codec.response(RESPONSE, b"GET", LIMITS)),
            "response_head_chunked": microseconds(lambda codec=codec: codec.response(CHUNKED_RESPONSE, b"GET", LIMITS)),
            "chunked_body_16x1KiB": microseconds(lambda codec=codec: codec.body(CHUNKED).feed(CHUNKS)),
            "64KiB_within_a_chunk": microseconds(lambda inside=inside: inside.feed(INSIDE)),
        }
    json.dump(
        {
            "unit": "us",
            "python": platform.python_version(),
            "machine": platform.machine(),
            "request_bytes": len(REQUEST),
            "results": results,
        },
        sys.stdout,
        indent=2,
    )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
