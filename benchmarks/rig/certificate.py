"""The certificate that every peer shows: ECDSA on P-256, for localhost, its key in the same file."""

import ssl
import subprocess
from pathlib import Path


def certificate(directory: Path) -> Path:
    """Makes one in `directory`; chain and key in one PEM file."""
    key, whole = directory / "tls.key", directory / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", str(whole), "-keyout", str(key)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    whole.write_bytes(whole.read_bytes() + key.read_bytes())
    return whole


def trusting_anybody() -> ssl.SSLContext:
    """What a generator needs to speak TLS to a peer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
