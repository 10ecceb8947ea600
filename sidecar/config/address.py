"""Addresses as the file writes them: `host:port`, `[::1]:port`, `unix:/path`.

`parse_address` is the one place that takes them apart. It resolves nothing: a name stays a name.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
LOOPBACK_NAMES = frozenset({"localhost", "localhost."})


class Address(NamedTuple):
    """Either `host` and `port` (IPv6 without its brackets), or `path` of a Unix socket; the other half is empty."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether this is a Unix socket."""
        return bool(self.path)

    @property
    def is_any(self) -> bool:
        """Whether a listener here listens on every address of the machine."""
        return self.host in {"0.0.0.0", "::"}

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return (IPv6Address(self.host) if ":" in self.host else IPv4Address(self.host)).is_loopback
        except AddressValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, ephemeral: bool = False) -> Address:
    """Take `text` apart; `ephemeral` also allows port 0 (a listener on whatever port is free).

    Raises `ValueError` that says what is accepted.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{text!r}: a Unix socket is written unix:/absolute/path")
        if len(path.encode("utf-8", "surrogateescape")) > 107:
            raise ValueError("the path of a Unix socket has at most 107 bytes (sockaddr_un)")
        return Address(path=path)
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: write host:port alone; what is spoken there, other keys say (tls)")
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not an address: write host:port, [::1]:port or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = _ipv6(host[1:-1])
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, like [::1]:8080")
    else:
        _check_name(host)
    return Address(host=host, port=_port(port, ephemeral=ephemeral))


def _ipv6(host: str) -> str:
    try:
        return str(IPv6Address(host))
    except AddressValueError:
        raise ValueError(f"{host!r} is not an IPv6 address") from None


def _check_name(host: str) -> None:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)
        except AddressValueError:
            raise ValueError(f"{host!r} is not an IPv4 address") from None
    elif len(host) > 253 or not _NAME.fullmatch(host):
        raise ValueError(f"{host[:80]!r} is not a host name or an IP address")


def _port(text: str, *, ephemeral: bool) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError(f"{text[:20]!r} is not a port")
    port = int(text)
    if port > 65535 or (port == 0 and not ephemeral):
        raise ValueError(f"port {port} is not within {0 if ephemeral else 1} to 65535")
    return port
