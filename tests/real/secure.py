"""Clients that speak TLS: our reader over it, and openssl's own."""

import contextlib
import re
import ssl
import subprocess
from collections.abc import Callable
from typing import Any

from tests.fakes.wire import PATIENCE, Wire
from tests.real.harness import Sidecar, dial


def secure(proxy: Sidecar, name: str, context: ssl.SSLContext, host: str = "localhost") -> Wire:
    """A new connection to a listener, its handshake done."""
    plain = dial(proxy.port(name))
    try:
        return Wire(context.wrap_socket(plain.sock, server_hostname=host))
    except BaseException:
        plain.close()
        raise


def half_closed(port: int, context: ssl.SSLContext, said: bytes) -> bytes:
    """Say it, say goodbye, and read on until the other side says goodbye, too: Python's own sockets cannot."""
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_hostname="localhost")
    answer = b""
    with dial(port) as wire:

        def until_done(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    wire.send(goes.read())
                    if data := wire.sock.recv(65536):
                        came.write(data)
                    else:
                        came.write_eof()  # without a goodbye: an error

        until_done(tls.do_handshake)
        tls.write(said)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while True:
                answer += until_done(lambda: tls.read(65536))
    return answer


def s_client(port: int, *words: str, said: bytes = b"") -> str:
    """What `openssl s_client` tells of a connection on which it said `said`."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *words],
        input=said,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return re.sub(r"\r", "", (done.stdout + done.stderr).decode(errors="replace"))
