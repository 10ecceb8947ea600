"""A connection string of libpq as its parts. Pure; no error repeats the text: it holds a password.

Both forms are read: `postgresql://user:password@host:port/database?sslmode=…`, several hosts parted by commas, and
`host=… user=… password='…'`.
"""

import re
from urllib.parse import parse_qsl, unquote

PORT = "5432"
_PAIR = re.compile(r"\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL)


def parts(text: str) -> dict[str, str]:
    """Its keys, as libpq calls them, and their values. Raises ValueError that repeats nothing of it."""
    text = text.strip()
    return _from_url(text) if re.match(r"postgres(?:ql)?://", text) else _from_pairs(text)


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
        ports.append(found[2] or PORT)
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
