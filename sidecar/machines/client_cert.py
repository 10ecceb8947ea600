"""X-Forwarded-Client-Cert: a client's certificate told to the upstream, in the form that Envoy gave it.

One element `Hash=…;Subject="…";URI=…;DNS=…` a proxy; a value that holds anything but the plainest characters is quoted.
What cannot stand in a header field (control characters, what is not ASCII) becomes `?`: a name within a certificate is
somebody else's text. Of names 32 of a kind are told, of each value 1,024 characters.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sidecar.machines.peer_names import names_of

_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "domainComponent": "DC",
}
_PLAIN = re.compile(r"[A-Za-z0-9:/._*@-]+")
_UNPRINTABLE = re.compile(r"[^ -~]")
_MOST_NAMES = 32
_MOST_LETTERS = 1024


def element(der: bytes, certificate: Mapping[str, Any]) -> bytes:
    """The element for a certificate, given as DER and as `getpeercert()` tells it."""
    names = names_of(certificate)
    parts = [
        ("Hash", hashlib.sha256(der).hexdigest()),
        ("Subject", subject_of(certificate)),
        *(("URI", one) for one in names.uris[:_MOST_NAMES]),
        *(("DNS", one) for one in names.dns[:_MOST_NAMES]),
    ]
    return ";".join(f"{name}={_quoted(name, value)}" for name, value in parts).encode("ascii")


def subject_of(certificate: Mapping[str, Any]) -> str:
    """The subject's name, the most particular part first (RFC 4514)."""
    parts = [(kind, value) for several in certificate.get("subject", ()) for kind, value in several]
    return ",".join(f"{_SHORT.get(kind, kind)}={value}" for kind, value in reversed(parts))


def _quoted(name: str, value: str) -> str:
    value = _UNPRINTABLE.sub("?", value[:_MOST_LETTERS])
    if name != "Subject" and _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
