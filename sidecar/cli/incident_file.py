"""The incidents in a store's file, for those whose proxy does not run any more: read, never changed.

While a proxy has the file open it is locked; then ask the proxy.
"""

import os
import sqlite3
import time
from typing import Any
from urllib.parse import quote

import msgspec

from sidecar.cli.control import Unreachable
from sidecar.control.incidents.telling import summary, whole
from sidecar.machines.incidents.book import Entry
from sidecar.machines.incidents.incident import Incident


def read(path: str, one: str | None) -> Any:
    """As `/api/v1/incidents` lists them, or one with its timeline (None: it is not there). Raises Unreachable."""
    if not os.path.exists(path):
        raise Unreachable(f"there is no file {path}")
    try:
        # writable, for what a killed proxy left in the write-ahead log has to be brought in
        connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=1.0)
        try:
            connection.execute("PRAGMA query_only = ON")
            return _read(connection, one, time.time())
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        advice = "; a proxy has it open: leave --store out and ask it" * ("locked" in str(error))
        raise Unreachable(f"{path}: {error}{advice}") from None
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise Unreachable(f"{path} is not a file of incidents: {error}") from None


def _read(connection: sqlite3.Connection, one: str | None, now: float) -> Any:
    if one is None:
        rows = connection.execute("SELECT body FROM incidents ORDER BY closed, alerted DESC")
        return [summary(msgspec.json.decode(body, type=Incident), now) for (body,) in rows]
    row = connection.execute("SELECT body FROM incidents WHERE id = ?", (one,)).fetchone()
    if row is None:
        return None
    lines = connection.execute("SELECT body FROM timeline WHERE incident = ? ORDER BY number", (one,))
    timeline = [msgspec.json.decode(body, type=Entry) for (body,) in lines]
    return whole(msgspec.json.decode(row[0], type=Incident), timeline, now)
