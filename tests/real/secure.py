"""Clients that speak TLS: our reader over it, and openssl's own."""

import re
import ssl
import subprocess

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
