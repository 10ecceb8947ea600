"""What a probe is, and how one is asked: within its time, whatever it does, to a result that can be told.

A probe that fails raises `ProbeFailure` with a sentence for people. Anything else that it raises is turned into such a
sentence here: nothing a target does may end the task that asks.
"""

import asyncio
import os
import ssl
from time import monotonic
from typing import NamedTuple, Protocol

from sidecar.base.errors import SidecarError
from sidecar.base.units import show_duration
from sidecar.runtime.logs import Log

_log = Log(__name__)


class ProbeFailure(SidecarError):
    """The target is not well; the message says how that was seen."""


class Probe(Protocol):
    """One question to one target."""

    async def __call__(self) -> str:
        """Ask; return what was answered, for people. Raises ProbeFailure, OSError. May be cancelled at any point."""
        ...


class Result(NamedTuple):
    """What came of one question."""

    ok: bool
    seconds: float
    detail: str


async def ask(probe: Probe, timeout: float) -> Result:  # noqa: ASYNC109 - the bound is the point
    """Ask once, for at most `timeout` seconds."""
    began = monotonic()
    ok = False
    try:
        async with asyncio.timeout(timeout):
            detail = await probe()
        ok = True
    except ProbeFailure as failure:
        detail = str(failure)
    except TimeoutError:
        detail = f"no answer within {show_duration(timeout)}"
    except OSError as error:
        detail = _explain(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours must not end the watch
        _log.error("health_check_broke", error=error, every=60.0, about=type(error).__name__)
        detail = f"the check itself failed: {type(error).__name__}"
    return Result(ok, monotonic() - began, detail)


def read_secret(path: str) -> str:
    """The first 4 KiB of a secret file without the line's end. Raises ProbeFailure that names the file only."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4096).decode().strip("\r\n")
    except UnicodeDecodeError:
        raise ProbeFailure(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ProbeFailure(f"{path} cannot be read: {_explain(error)}") from None


def _explain(error: OSError) -> str:
    """The system's words, without addresses and paths that they may carry."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'handshake failed').lower().replace('_', ' ')}"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__
