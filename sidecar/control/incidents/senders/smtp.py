"""As much of SMTP as sending one message takes (RFC 5321; STARTTLS RFC 3207; AUTH PLAIN RFC 4954 and 4616).

Replies are bounded, whatever the server sends; time is the caller's. A password goes only over TLS, unless the operator
wrote `tls: none`. Raises Refused with the reply's number, never with its text: servers repeat what they were told.
"""

import asyncio
import base64
import contextlib
import re
import socket
import ssl
from typing import NamedTuple

from sidecar.base.errors import SidecarError
from sidecar.config.address import parse_address
from sidecar.config.incidents import Email

LINE_BYTES = 4096
MAX_LINES = 100


class Refused(SidecarError):
    """The server said no, or nothing that is SMTP."""


class Mail(NamedTuple):
    """An envelope and what is in it."""

    sender: str
    to: tuple[str, ...]
    content: bytes


async def deliver(config: Email, password: str | None, mail: Mail) -> None:
    """Hand `mail` to the server. Raises Refused, OSError (TLS faults too)."""
    server = parse_address(config.server)
    context = None if config.tls == "none" else await asyncio.to_thread(_context, config.ca_file)
    implicit = context if config.tls == "tls" else None
    reader, writer = await asyncio.open_connection(
        server.host, server.port, ssl=implicit, limit=LINE_BYTES, server_hostname=server.host if implicit else None
    )
    talk = _Talk(reader, writer)
    try:
        await talk.reply("2")
        extensions = await talk.hello()
        if config.tls == "starttls":
            assert context is not None, "made above"
            if b"STARTTLS" not in extensions:
                raise Refused("the mail server offers no STARTTLS; write tls: none if it is meant to be so")
            await talk.say("STARTTLS", "2")
            if talk.ahead():
                raise Refused("the mail server spoke ahead of TLS")
            await writer.start_tls(context, server_hostname=server.host)
            await talk.hello()
        if config.username is not None and password is not None:
            told = base64.b64encode(f"\0{config.username}\0{password}".encode()).decode()
            await talk.say(f"AUTH PLAIN {told}", "2", "AUTH")
        await _hand_over(talk, mail)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()


async def _hand_over(talk: "_Talk", mail: Mail) -> None:
    await talk.say(f"MAIL FROM:<{mail.sender}>", "2", "MAIL FROM")
    refused = []
    for one in mail.to:
        try:
            await talk.say(f"RCPT TO:<{one}>", "2", "RCPT TO")
        except Refused as error:
            refused.append(error)
    if len(refused) == len(mail.to):
        raise refused[0]
    await talk.say("DATA", "3")
    lines = mail.content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    await talk.send(stuffed + b".\r\n", "2", "the message")
    with contextlib.suppress(Refused, OSError):  # it is taken; how we part does not matter
        await talk.say("QUIT", "2")


class _Talk:
    """Commands and replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hello(self) -> bytes:
        """EHLO; what the server can, in capitals."""
        name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
        return (await self.say(f"EHLO {name}", "2")).upper()

    async def say(self, command: str, wanted: str, shown: str = "") -> bytes:
        """One command; the reply, which begins with the digit `wanted`."""
        if "\r" in command or "\n" in command:
            raise Refused("an address or a name holds a line's end")
        return await self.send(command.encode() + b"\r\n", wanted, shown or command.partition(" ")[0])

    async def send(self, data: bytes, wanted: str, shown: str) -> bytes:
        self._writer.write(data)
        await self._writer.drain()
        return await self.reply(wanted, shown)

    async def reply(self, wanted: str, shown: str = "the greeting") -> bytes:
        """A whole reply. Raises Refused when its number begins otherwise."""
        found = b""
        for _ in range(MAX_LINES):
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                raise Refused(f"the mail server hung up at {shown}") from None
            except asyncio.LimitOverrunError:
                raise Refused(f"the mail server sent an endless line at {shown}") from None
            if not re.fullmatch(rb"[2-5]\d\d(?:[ -].*)?\r?\n", line, re.DOTALL):
                raise Refused(f"the mail server answered what is not SMTP to {shown}")
            found += line
            if line[3:4] != b"-":
                if not line.startswith(wanted.encode()):
                    raise Refused(f"the mail server answered {line[:3].decode()} to {shown}")
                return found
        raise Refused(f"the mail server sent an endless reply at {shown}")

    def ahead(self) -> bool:
        """The server said more than it was asked for: in the clear, where TLS was to begin (CVE-2011-0411)."""
        return bool(self._reader._buffer)  # type: ignore[attr-defined]  # nothing public tells


def _context(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
