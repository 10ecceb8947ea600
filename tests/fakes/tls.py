"""A certificate for localhost, made by openssl when a test needs one."""

import subprocess
from pathlib import Path


def certificate(directory: Path) -> tuple[Path, Path]:
    """Certificate and key, PEM, in `directory`; signed by itself, for localhost only, valid from now for a day."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", str(cert), "-keyout", str(key)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key
