"""A PostgreSQL connection string: where to connect and as whom. Pure.

Both forms of libpq are read (`base/conninfo.py`). Keys that a health check has no use for are passed over. No error
repeats the text: it holds a password.
"""

from typing import NamedTuple

from sidecar.base.conninfo import PORT, parts
from sidecar.config.address import Address

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SOCKETS = "/var/run/postgresql"


class Dsn(NamedTuple):
    """What of a connection string a health check needs."""

    targets: tuple[Address, ...]
    user: str
    password: str
    database: str
    ssl_mode: str
    ca_file: str | None


def parse_dsn(text: str) -> Dsn:
    """Take a connection string apart. Raises ValueError that repeats nothing of it."""
    given = parts(text)
    mode = given.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ValueError(f"sslmode is none of {', '.join(SSL_MODES)}")
    user = given.get("user", "")
    if not user:
        raise ValueError("the connection string names no user")
    hosts = (given.get("host") or _SOCKETS).split(",")
    ports = (given.get("port") or PORT).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ValueError("there are not as many ports as hosts")
    targets = tuple(_target(host or _SOCKETS, port or PORT) for host, port in zip(hosts, ports, strict=True))
    database = given.get("dbname") or user
    if any("\0" in word for word in (user, database)):
        raise ValueError("user or database holds a NUL")
    return Dsn(targets, user, given.get("password", ""), database, mode, given.get("sslrootcert"))


def _target(host: str, port: str) -> Address:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port of the connection string is not a port")
    return Address(path=f"{host}/.s.PGSQL.{port}") if host.startswith("/") else Address(host=host, port=int(port))
