"""Email: one message to all of `to`, through one mail server (RFC 5321, 5322).

Messages about one incident are one thread (References, RFC 5322 section 3.6.4). A server that refuses for now (4xx) is
tried again, one that refuses for good (5xx) as well: the mailbox may be mended. Sent means that the server took it for
at least one of the recipients.
"""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from sidecar.config.incidents import Email
from sidecar.control.incidents.senders.sender import Notice, NotSent, read_secret
from sidecar.control.incidents.senders.smtp import Mail, Refused, deliver

ATTEMPT_SECONDS = 20.0


class EmailSender:
    """Sends mail."""

    refresh_seconds: float | None = None

    def __init__(self, config: Email, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._config = config
        self._now = now

    async def send(self, notice: Notice) -> None:
        config = self._config
        password = None
        if config.password_file is not None:
            password = await asyncio.to_thread(read_secret, config.password_file)
        mail = Mail(config.sender, config.to, bytes(letter(notice, config, self._now())))
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await deliver(config, password, mail)
        except TimeoutError:
            raise NotSent(f"the mail server did not take it within {ATTEMPT_SECONDS:g} s") from None
        except Refused as refused:
            raise NotSent(str(refused)) from None
        except OSError as error:  # TLS faults too
            raise NotSent(f"the mail server cannot be reached: {type(error).__name__}") from None

    async def refresh(self, notices: list[Notice]) -> None:
        """Once is enough."""


def letter(notice: Notice, config: Email, now: datetime) -> EmailMessage:
    """The message of a notice."""
    one = notice.incident
    host = config.sender.rpartition("@")[2] or socket.gethostname()
    mail = EmailMessage()
    mail["From"] = config.sender
    mail["To"] = ", ".join(config.to)
    mail["Subject"] = " ".join(notice.headline.split())[:200]
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{one['id']}.{notice.what}.{int(now.timestamp() * 1000)}@{host}>"
    mail["References"] = mail["In-Reply-To"] = f"<{notice.key}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"
    facts = ("id", "service", "instance", "failure", "subject", "severity", "status", "started", "acknowledged_by")
    lines = [notice.text, "", *(f"{key.replace('_', ' ')}: {one[key]}" for key in facts if one[key])]
    lines += [f"resolved: {one['resolved']}"] if one["resolved"] else []
    lines += [f"holds now: {text}" for text in one["holds"]]
    lines += ["", f"sidecar incidents show {one['id']}"]
    mail.set_content("\n".join(lines))
    return mail
