"""A PostgreSQL connection string: where to connect and as whom. Pure.

Both forms of libpq are read: `postgresql://user:password@host:port/database?sslmode=…`, several hosts parted by commas,
and `host=… user=… password='…'`. Keys that a health check has no use for are passed over. No error repeats the text:
it holds a password.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from sidecar.config.address import Address

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PORT = "5432"
_SOCKETS = "/var/run/postgresql"
_PAIR = re.compile(r"\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL)


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
    text = text.strip()
    given = _from_url(text) if re.match(r"postgres(?:ql)?://", text) else _from_pairs(text)
    mode = given.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ValueError(f"sslmode is none of {', '.join(SSL_MODES)}")
    user = given.get("user", "")
    if not user:
        raise ValueError("the connection string names no user")
    hosts = (given.get("host") or _SOCKETS).split(",")
    ports = (given.get("port") or _PORT).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ValueError("there are not as many ports as hosts")
    targets = tuple(_target(host or _SOCKETS, port or _PORT) for host, port in zip(hosts, ports, strict=True))
    database = given.get("dbname") or user
    if any("\0" in word for word in (user, database)):
        raise ValueError("user or database holds a NUL")
    return Dsn(targets, user, given.get("password", ""), database, mode, given.get("sslrootcert"))


def _from_url(text: str) -> dict[str, str]:
    rest = text.partition("://")[2]
    rest, _, query = rest.partition("?")
    places, _, database = rest.partition("/")
    login, at, places = places.rpartition("@")
    given = {"dbname": unquote(database)} if database else {}
    if at:
        user, _, password = login.partition(":")
        given |= {"user": unquote(user), "password": unquote(password)}
    hosts, ports = [], []
    for place in places.split(",") if places else []:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::([0-9]*))?", place)
        if not found:
            raise ValueError("a host of the connection string cannot be read")
        hosts.append(unquote(found[1]).strip("[]"))
        ports.append(found[2] or _PORT)
    if hosts:
        given |= {"host": ",".join(hosts), "port": ",".join(ports)}
    return given | dict(parse_qsl(query))


def _from_pairs(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if not found:
            raise ValueError("the connection string is neither postgresql://… nor key=value …")
        key, quoted, plain = found.groups()
        given[key] = re.sub(r"\\(.)", r"\1", plain if quoted is None else quoted, flags=re.DOTALL)
        at = found.end()
    return given


def _target(host: str, port: str) -> Address:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("a port of the connection string is not a port")
    return Address(path=f"{host}/.s.PGSQL.{port}") if host.startswith("/") else Address(host=host, port=int(port))
