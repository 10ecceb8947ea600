"""PostgreSQL: connects as the DSN says, authenticates, asks one question (`SELECT 1`), says goodbye.

The frontend protocol 3.0, as much of it as that takes: start, TLS as sslmode asks for it, password in clear, MD5 or
SCRAM-SHA-256, one simple query. A driver would do more and promise less: it buffers whatever length a server claims.
Here no message is longer than the stream's limit, and what is not this protocol is told at its first bytes. Of the
server's errors only the SQLSTATE is told, with its meaning where an operator meets it.
"""

import asyncio
import hashlib
import re
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.config.address import Address
from sidecar.control.probes.dsn import Dsn, parse_dsn
from sidecar.control.probes.probe import ProbeFailure, read_secret
from sidecar.control.probes.scram import Scram, ScramError
from sidecar.control.probes.stream import MAX_BYTES, Stream, TooMuch, dial

_PROTOCOL = (196608).to_bytes(4, "big")  # 3.0
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_MEANING = {
    "28000": "not let in (pg_hba.conf)",
    "28P01": "wrong password",
    "3D000": "there is no such database",
    "42601": "the query is not SQL",
    "42501": "the query is not allowed",
    "42P01": "the query names a table that is not there",
    "53300": "too many connections",
    "57P01": "it is shutting down",
    "57P03": "it is starting up or shutting down",
}
_KNOWN = b"RSKZETDCINA"


class PostgresProbe:
    """Asks the database that the string in `dsn_file` leads to; of several hosts the first that can be reached."""

    def __init__(self, dsn_file: str, query: str = "SELECT 1") -> None:
        self._dsn_file = dsn_file
        self._query = query

    async def __call__(self) -> str:
        try:
            dsn = parse_dsn(read_secret(self._dsn_file))
        except ValueError as error:
            raise ProbeFailure(f"{self._dsn_file}: {error}") from None
        async with _connect(dsn) as stream:
            await _start(stream, dsn)
            await _ask(stream, self._query)
            await stream.finish(_message(b"X", b""))
        return "answered the query"


@asynccontextmanager
async def _connect(dsn: Dsn) -> AsyncIterator[Stream]:
    *others, last = dsn.targets
    for target in others:
        try:
            async with dial(target):
                pass
        except (OSError, ProbeFailure):
            continue
        last = target
        break
    async with dial(last) as stream:
        if not last.is_unix and dsn.ssl_mode not in {"disable", "allow"}:
            await _encrypt(stream, dsn, last)
        yield stream


async def _encrypt(stream: Stream, dsn: Dsn, target: Address) -> None:
    await stream.send(_SSL_REQUEST)
    answer = await stream.some()
    if answer == b"N":
        if dsn.ssl_mode != "prefer":
            raise ProbeFailure(f"does not speak TLS, which sslmode={dsn.ssl_mode} asks for")
        return
    if answer != b"S":  # more than this one byte would be text that somebody slipped in before the encryption
        raise ProbeFailure("hung up" if not answer else "answered what is not PostgreSQL")
    context = await asyncio.to_thread(_context, dsn)  # reading the system's authorities takes some 80 ms
    await stream.start_tls(context, target.host)


def _context(dsn: Dsn) -> ssl.SSLContext:
    """What sslmode asks for; as libpq, prefer and require encrypt to whomever."""
    if dsn.ssl_mode in {"verify-ca", "verify-full"}:
        context = ssl.create_default_context(cafile=dsn.ca_file)
        context.check_hostname = dsn.ssl_mode == "verify-full"
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _start(stream: Stream, dsn: Dsn) -> None:
    """Say who we are and be let in. Raises ProbeFailure."""
    words = ("user", dsn.user, "database", dsn.database, "application_name", "sidecar health check", "")
    body = _PROTOCOL + b"".join(word.encode() + b"\0" for word in words)
    await stream.send((len(body) + 4).to_bytes(4, "big") + body)
    while True:
        kind, body = await _read(stream)
        if kind == b"R":
            await _authenticate(stream, dsn, body)
        elif kind == b"Z":
            return


async def _authenticate(stream: Stream, dsn: Dsn, body: bytes) -> None:
    """Answer one request of the server to prove who we are; for SASL, the whole exchange."""
    method = int.from_bytes(body[:4], "big")
    if method == _OK:
        return
    if method == _CLEARTEXT:
        await stream.send(_message(b"p", dsn.password.encode() + b"\0"))
    elif method == _MD5:
        inner = hashlib.md5((dsn.password + dsn.user).encode(), usedforsecurity=False).hexdigest()
        outer = hashlib.md5(inner.encode() + body[4:8], usedforsecurity=False).hexdigest()
        await stream.send(_message(b"p", b"md5" + outer.encode() + b"\0"))
    elif method == _SASL and b"SCRAM-SHA-256" in body[4:].split(b"\0"):
        try:
            await _scram(stream, Scram(dsn.password, secrets.token_urlsafe(18)))
        except ScramError as error:
            raise ProbeFailure(f"SCRAM: {error}") from None
    else:
        raise ProbeFailure(f"asks for an authentication (method {method}) that this check does not speak")


async def _scram(stream: Stream, scram: Scram) -> None:
    first = scram.first()
    await stream.send(_message(b"p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first))
    challenge = await _sasl(stream, _SASL_CONTINUE)
    await stream.send(_message(b"p", await asyncio.to_thread(scram.final, challenge)))
    scram.verify(await _sasl(stream, _SASL_FINAL))


async def _sasl(stream: Stream, step: int) -> bytes:
    kind, body = await _read(stream)
    if kind != b"R" or int.from_bytes(body[:4], "big") != step:
        raise ProbeFailure("answered what is not PostgreSQL")
    return body[4:]


async def _ask(stream: Stream, query: str) -> None:
    await stream.send(_message(b"Q", query.encode() + b"\0"))
    answered = False
    while True:
        kind, _ = await _read(stream)
        if kind in {b"C", b"I"}:
            answered = True
        elif kind == b"Z":
            if answered:
                return
            raise ProbeFailure("did not answer the query")


async def _read(stream: Stream) -> tuple[bytes, bytes]:
    """The next message: its kind and body. Raises ProbeFailure for an error of the server."""
    head = await stream.exactly(5)
    kind, size = head[:1], int.from_bytes(head[1:], "big") - 4
    if kind not in _KNOWN or size < 0:
        raise ProbeFailure("answered what is not PostgreSQL")
    if size > MAX_BYTES:
        raise TooMuch(f"announced more than {MAX_BYTES // 1024} KiB")
    body = await stream.exactly(size)
    if kind == b"E":
        raise ProbeFailure(_error(body))
    return kind, body


def _error(body: bytes) -> str:
    found = re.search(rb"(?:^|\0)C([0-9A-Z]{5})\0", body)
    code = found[1].decode() if found else "unknown"
    meaning = f", {_MEANING[code]}" if code in _MEANING else ""
    return f"error {code}{meaning}"


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body
