"""Who a peer is, and whether it is one of those that are allowed: the names in its certificate against a list.

The certificate's chain has been verified when we are asked; here it is only about names. A SPIFFE ID counts as such
when it is the only URI of the certificate, as the X.509-SVID standard demands. Names are compared whole: `*.` at the
front of a listed DNS name stands for exactly one label, `/*` at the end of a listed SPIFFE ID for any path below. A
wildcard within the certificate means nothing here: it says what a server may be called, not who somebody is.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
"""Trust domain and path as the SPIFFE ID standard (2.1, 2.2) allows them: no empty segment, no `.` and no `..`."""


class Names(NamedTuple):
    """The alternative names of a certificate, in its order."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self.uris + self.dns) or "without a name"


def names_of(certificate: Mapping[str, Any]) -> Names:
    """The names in what `SSLObject.getpeercert()` says."""
    found = certificate.get("subjectAltName", ())
    return Names(
        tuple(value for kind, value in found if kind == "URI"),
        tuple(value.lower() for kind, value in found if kind == "DNS"),
    )


def has_ended(certificate: Mapping[str, Any], now: float) -> bool:
    """Whether the certificate, as `getpeercert()` tells it, is over at `now` (Unix seconds)."""
    end = certificate.get("notAfter")
    if not isinstance(end, str):
        return False
    return datetime.strptime(end, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp() <= now


class AllowList:
    """Whom to let in. Compiled once."""

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._exact = frozenset(entries)
        self._below = tuple(one[:-1] for one in entries if one.startswith("spiffe://") and one.endswith("/*"))
        self._one_label = frozenset(one[2:] for one in entries if one.startswith("*."))

    def admits(self, names: Names) -> bool:
        """Whether one of the names is on the list."""
        if len(names.uris) == 1 and self._admits_uri(names.uris[0]):
            return True
        return any(
            not name.startswith(("*", ".")) and (name in self._exact or name.partition(".")[2] in self._one_label)
            for name in names.dns
        )

    def _admits_uri(self, uri: str) -> bool:
        return bool(_SPIFFE_ID.fullmatch(uri)) and (uri in self._exact or uri.startswith(self._below))
