"""What a certificate says: until when it holds, and for which names; and until when a list of revoked ones (CRL) does.
Read from the DER (RFC 5280), nothing verified.

Python's ssl module tells this of a peer's certificate only; here it is read of our own, which we show and warn about.
Both are nested values of tag, length and content; the few that matter stand at fixed places: tbsCertificate = [0]
version?, serial, algorithm, issuer, validity, subject, key, …, [3] extensions; tbsCertList = version?, algorithm,
issuer, this update, next update, …. What does not have that shape is a ValueError; whether it is any good is for
OpenSSL to say.
"""

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE, _OID, _OCTETS, _UTC_TIME, _TIME = 0x30, 0x06, 0x04, 0x17, 0x18
_VERSION, _EXTENSIONS, _DNS = 0xA0, 0xA3, 0x82
_ALTERNATIVE_NAME = bytes.fromhex("551d11")
_WARN_AFTER = 2 / 3
"""No warning before this share of a certificate's life is over: whoever renews at two thirds is not late."""


class Standing(StrEnum):
    """Where in its life a certificate is."""

    NOT_YET = "not_yet_valid"
    GOOD = "good"
    ENDING = "expires_soon"
    OVER = "expired"


class Facts(NamedTuple):
    """Of one certificate: Unix seconds, and the DNS names among its alternative names, lower case."""

    not_before: float
    not_after: float
    names: tuple[str, ...]

    def warn_from(self, before: float) -> float:
        """The moment (Unix seconds) from which its end, `before` seconds ahead, is worth a warning."""
        return max(self.not_after - before, self.not_before + (self.not_after - self.not_before) * _WARN_AFTER)

    def standing(self, now: float, before: float) -> Standing:
        """Where it is at `now` (Unix seconds), when its end is worth a warning `before` seconds ahead."""
        if now < self.not_before:
            return Standing.NOT_YET
        if now >= self.not_after:
            return Standing.OVER
        return Standing.ENDING if now >= self.warn_from(before) else Standing.GOOD


def chain(pem: bytes) -> list[Facts]:
    """What each certificate (or list) in `pem` says, in its order. Raises ValueError."""
    return [read(binascii.a2b_base64(found)) for _, found in _PEM.findall(pem)]


def lists(pem: bytes) -> bytes:
    """Of all that is in `pem`, the lists of revoked certificates alone."""
    return b"\n".join(found[0] for found in _PEM.finditer(pem) if found[1] != b"CERTIFICATE")


def read(der: bytes) -> Facts:
    """What the certificate (or list) says. Raises ValueError."""
    try:
        return _facts(der)
    except (IndexError, StopIteration):
        raise ValueError("not a certificate") from None


def _facts(der: bytes) -> Facts:
    ((_, certificate),) = _values(der)
    _, to_be_signed = next(_values(certificate))
    parts = [part for part in _values(to_be_signed) if part[0] != _VERSION]
    updates = [_moment(tag, content) for tag, content in parts if tag in (_UTC_TIME, _TIME)]
    if len(updates) == 2:
        return Facts(updates[0], updates[1], ())
    if len(parts) < 6 or parts[3][0] != _SEQUENCE:
        raise ValueError("not a certificate")
    begin, end = (_moment(tag, content) for tag, content in _values(parts[3][1]))
    names = next((list(_dns_names(content)) for tag, content in parts[6:] if tag == _EXTENSIONS), [])
    return Facts(begin, end, tuple(names))


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values that stand one after another in `data`."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("not a certificate")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            digits = length & 0x7F
            length = int.from_bytes(data[at : at + digits], "big")
            at += digits
        if at + length > len(data):
            raise ValueError("not a certificate")
        yield tag, data[at : at + length]
        at += length


def _moment(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280, 4.1.2.5.1
    elif tag != _TIME:
        raise ValueError("not a certificate")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _dns_names(extensions: bytes) -> Iterator[str]:
    for _, listed in _values(extensions):
        for _, extension in _values(listed):
            parts = list(_values(extension))
            if parts and parts[0] == (_OID, _ALTERNATIVE_NAME) and parts[-1][0] == _OCTETS:
                for _, names in _values(parts[-1][1]):
                    yield from (name.decode("ascii", "replace").lower() for tag, name in _values(names) if tag == _DNS)
