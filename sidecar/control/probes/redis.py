"""Redis: PING must be answered with PONG, after whatever it takes to be let in.

The protocol (RESP2) is four kinds of line here; a client library would cost 20 MiB of memory for one command. With
Sentinel the sentinels are asked in turn who the master is, and the master is pinged. Of a cluster the node that the
URL names must say that the cluster is well. An error is told by its first word (NOAUTH, LOADING, MASTERDOWN).
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from sidecar.config.address import Address, parse_address
from sidecar.config.redis import Redis, Sentinel
from sidecar.control.probes.probe import ProbeFailure, read_secret
from sidecar.control.probes.stream import Stream, dial

_CODE = re.compile(rb"[A-Z]{2,20}\b")
_PORT = 6379
_MAX_ITEMS = 16

Answer = bytes | list["Answer"] | None


class RedisProbe:
    """Pings the Redis that `config` describes; secrets are read at each question."""

    def __init__(self, config: Redis, tls: Callable[[], ssl.SSLContext]) -> None:
        self._config = config
        self._tls = tls
        url = urlsplit(config.url or "redis://localhost")
        self._encrypted = url.scheme == "rediss"
        self._user = config.username or unquote(url.username or "") or None
        if url.scheme == "unix":
            self._target = Address(path=url.path)
        else:
            self._target = Address(host=url.hostname or "localhost", port=url.port or _PORT)

    async def __call__(self) -> str:
        config = self._config
        target = self._target if config.sentinel is None else await self._master(config.sentinel)
        context = await asyncio.to_thread(self._tls) if self._encrypted else None
        async with dial(target, context) as stream:
            await _log_in(stream, self._user, config.password_file)
            if await _call(stream, b"PING") != b"PONG":
                raise ProbeFailure("answered something else than PONG")
            if config.cluster:
                info = await _call(stream, b"CLUSTER", b"INFO")
                if not isinstance(info, bytes) or b"cluster_state:ok" not in info:
                    raise ProbeFailure("the cluster is not ok")
            return "PONG"

    async def _master(self, sentinel: Sentinel) -> Address:
        """Where the first sentinel that answers says the master is."""
        failures: list[str] = []
        for address in sentinel.addresses:
            try:
                async with dial(parse_address(address)) as stream:
                    await _log_in(stream, sentinel.username, sentinel.password_file)
                    found = await _call(stream, b"SENTINEL", b"get-master-addr-by-name", sentinel.master.encode())
            except (OSError, ProbeFailure) as error:
                failures.append(type(error).__name__ if isinstance(error, OSError) else str(error))
                continue
            match found:
                case [bytes() as host, bytes() as port] if port.isdigit() and len(port) <= 5:
                    return Address(host=host.decode("ascii", "replace"), port=int(port))
            failures.append("knows no such master")
        raise ProbeFailure(f"no sentinel told the master: {', '.join(failures)}")


async def _log_in(stream: Stream, user: str | None, password_file: str | None) -> None:
    if password_file is None:
        return
    words = [user.encode()] if user else []
    if await _call(stream, b"AUTH", *words, read_secret(password_file).encode()) != b"OK":
        raise ProbeFailure("answered something else than OK to AUTH")


async def _call(stream: Stream, *words: bytes) -> Answer:
    """One command and its answer. Raises ProbeFailure for an error."""
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)]
    await stream.send(b"".join(parts))
    return await _answer(stream)


async def _answer(stream: Stream, depth: int = 0) -> Answer:
    line = await stream.line()
    kind, rest = line[:1], line[1:]
    if kind == b"+":
        return rest
    if kind == b"-":
        code = _CODE.match(rest)
        raise ProbeFailure(f"refused: {code[0].decode() if code else 'error'}")
    if kind == b"$":
        size = _number(rest)
        return None if size < 0 else (await stream.exactly(size + 2))[:-2]
    if kind == b"*" and depth == 0:
        count = _number(rest)
        if count > _MAX_ITEMS:
            raise ProbeFailure("answered what is not Redis")
        return None if count < 0 else [await _answer(stream, depth + 1) for _ in range(count)]
    raise ProbeFailure("answered what is not Redis")


def _number(text: bytes) -> int:
    if not re.fullmatch(rb"-1|[0-9]{1,9}", text):
        raise ProbeFailure("answered what is not Redis")
    return int(text)
