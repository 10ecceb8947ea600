"""Load for large bodies: one GET or PUT of many bytes over one connection, at the lowest price on this side.

`python -m benchmarks.rig.bulk get|get-tls|put PORT PATH BYTES` prints, as JSON, `seconds` and `errors`. A GET's bytes
are thrown away inside the kernel (by TLS they are decrypted first), a PUT's are sent from a sparse file in memory: the
generator's core must never be what limits the proxy.
"""

import json
import os
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rig.certificate import trusting_anybody
from benchmarks.rig.client import await_go
from benchmarks.rig.routes import request


def _get(connection: socket.socket, path: str, size: int) -> int:
    connection.sendall(request("GET", path))
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            return 1
        head += piece
    if not head.startswith(b"HTTP/1.1 200 "):
        return 1
    left = size - (len(head) - head.index(b"\r\n\r\n") - 4)
    scratch = bytearray(1 << 20)
    while left > 0:
        flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_TRUNC
        taken = connection.recv_into(scratch, min(left, len(scratch)), flags)
        if not taken:
            return 1
        left -= taken
    return 0


def _put(connection: socket.socket, path: str, size: int) -> int:
    head = request("PUT", path, b"x").replace(b"Content-Length: 1\r\n", f"Content-Length: {size}\r\n".encode())[:-1]
    connection.sendall(head)
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryFile(dir=shared_memory if shared_memory.is_dir() else None) as body:
        body.truncate(size)
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), body.fileno(), sent, min(size - sent, 1 << 20))
    return not connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def _main(kind: str, port: int, path: str, size: int) -> dict[str, float]:
    # A refused connection or a broken transfer ends this program with a traceback, which `drive` reports.
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.settimeout(None)
        spoken = trusting_anybody().wrap_socket(connection) if kind == "get-tls" else connection
        await_go()
        started = time.perf_counter()
        errors = (_put if kind == "put" else _get)(spoken, path, size)
        return {"seconds": time.perf_counter() - started, "errors": errors}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
