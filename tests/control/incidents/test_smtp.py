"""Mail servers that do not behave: each costs its own attempt, and no message repeats what they said."""

import asyncio
from collections.abc import Callable

import pytest

from sidecar.config.incidents import Email
from sidecar.control.incidents.senders import email as email_module
from sidecar.control.incidents.senders.email import EmailSender, letter
from sidecar.control.incidents.senders.sender import Notice, NotSent
from tests.cli.test_post_mortem import FOUND

NOTICE = Notice("opened", "the breaker\nis open", {**FOUND, "shared_id": "", "sharers": 0}, 0.0, None)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


def attempt(talk: Talk, **keys: object) -> None:
    """One attempt against a server that talks so."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)  # type: ignore[misc]
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = {"tls": "none", "sender": "a@example.test", "to": ("b@example.test",), **keys}
        async with server:
            await EmailSender(Email(server=f"127.0.0.1:{port}", **settings)).send(NOTICE)  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(main(), 30))


def says(*replies: bytes, then: bytes = b"") -> Talk:
    """A greeting, then a reply to each line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            writer.write(reply)
            await writer.drain()
            if not await reader.readline():
                return
        writer.write(then)

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"220-" + b"x" * 100 + b"\r\n")
        await writer.drain()


async def without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


HELLO = (b"220 here\r\n", b"250-here\r\n250 8BITMIME\r\n")


@pytest.mark.parametrize(
    ("talk", "keys", "why"),
    [
        (silent, {}, "did not take it within"),
        (endless, {}, "endless reply"),
        (without_end, {}, "endless line"),
        (says(b"HTTP/1.1 400 Bad Request\r\n"), {}, "not SMTP"),
        (says(b"554 go away s3cret\r\n"), {}, "answered 554 to the greeting"),
        (says(*HELLO), {"tls": "starttls"}, "offers no STARTTLS"),
        (
            says(HELLO[0], b"250 STARTTLS\r\n", then=b"220 go\r\n250 injected\r\n"),
            {"tls": "starttls"},
            "spoke ahead of TLS",
        ),
        (says(*HELLO, b"451 s3cret\r\n"), {}, "answered 451 to MAIL FROM"),
        (says(*HELLO, b"250 ok\r\n", b"550 s3cret\r\n"), {}, "answered 550 to RCPT TO"),
        (says(*HELLO, b"250 ok\r\n"), {}, "hung up at RCPT TO"),
    ],
)
def test_each_is_a_reason(talk: Talk, keys: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(email_module, "ATTEMPT_SECONDS", 0.3 if talk is silent else 20.0)
    with pytest.raises(NotSent, match=why) as refusal:
        attempt(talk, **keys)
    assert "s3cret" not in str(refusal.value)


def test_a_letter_has_no_line_that_was_not_meant() -> None:
    config = Email(server="h:25", sender="a@example.test", to=("b@example.test",))
    notice = Notice("opened", "x", {**NOTICE.incident, "title": "evil\r\nBcc: c@example.test"}, 0.0, None)
    head = bytes(letter(notice, config, email_module.datetime.now(email_module.UTC))).partition(b"\n\n")[0]
    assert b"\nBcc" not in head and b"Auto-Submitted: auto-generated" in head
