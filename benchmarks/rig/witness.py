"""Load at a constant rate whose every answer is noted: what clients saw while something broke.

`python -m benchmarks.rig.witness PORT PATH RATE SECONDS CONNECTIONS LENGTH` prints JSON: `answers`, a list of
`[due, done, word]` in the order in which they ended, times in seconds of CLOCK_MONOTONIC; and `late_p99_ms`, how late
the generator itself sent: on a machine that others use, what it waited for is no proxy's doing.

A request counts from the moment it was *due*, whether or not a connection was free for it then (no coordinated
omission). `word` is the status, followed by the proxy's own word for it where it had one (`200`, `503 breaker_open`,
`200 fallback_upstream`); `lost` when no whole answer came; `short` when a 200 had another length than LENGTH.
"""

import json
import os
import select
import socket
import sys
import time
from collections import deque

from benchmarks.rig.client import await_go, percentile
from benchmarks.rig.pace import timer
from benchmarks.rig.routes import request

_WARM_UP_SECONDS = 0.5
_PATIENCE = 10.0
"""Seconds after the last request was due, until what is still missing counts as lost."""

Answer = tuple[float, float, str]


class _Connection:
    """One keep-alive client; opens its connection anew when that is closed."""

    def __init__(self, port: int, poll: select.epoll, length: int) -> None:
        self.port = port
        self.poll = poll
        self.length = length
        self.due: float | None = None
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.poll.register(self.socket.fileno(), select.EPOLLIN)
        self.buffer = b""

    def close(self) -> None:
        self.poll.unregister(self.socket.fileno())
        self.socket.close()

    def send(self, message: bytes, due: float) -> None:
        self.due = due
        try:
            self.socket.send(message)
        except OSError:
            pass  # the end of the connection is read next, and then the answer is lost

    def receive(self) -> str | None:
        """The word for the answer once it is whole, or lost; None while more is to come."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            return "lost"
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return None
        length = int(_field(head, b"content-length") or 0)
        if len(body) < length:
            return None
        self.buffer = b""
        status = head[9:12].decode()
        if status == "200" and length != self.length:
            return "short"
        decision = _field(head, b"x-sidecar-decision").decode()
        return f"{status} {decision}" if decision else status


def _field(head: bytes, name: bytes) -> bytes:
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return lowered[start:].partition(b"\r\n")[0].strip()


def _load(port: int, path: str, rate: float, seconds: float, count: int, length: int) -> dict[str, object]:
    message = request("GET", path)
    poll = select.epoll()
    connections = [_Connection(port, poll, length) for _ in range(count)]
    _pace(poll, connections, message, rate, _WARM_UP_SECONDS)
    await_go()
    return _pace(poll, connections, message, rate, seconds)


def _pace(
    poll: select.epoll, connections: list[_Connection], message: bytes, rate: float, seconds: float
) -> dict[str, object]:
    held = {connection.socket.fileno(): connection for connection in connections}
    idle = deque(connections)
    late: deque[float] = deque()
    answers: list[Answer] = []
    lags: list[float] = []
    interval, begin = 1 / rate, time.monotonic()
    wanted, made = round(seconds * rate), 0
    ticks = timer(interval)
    poll.register(ticks, select.EPOLLIN)
    while len(answers) < wanted and time.monotonic() < begin + seconds + _PATIENCE:
        for descriptor, _ in poll.poll(1):
            if descriptor == ticks:
                os.read(ticks, 8)
                now = time.monotonic()
                while made < wanted and begin + made * interval <= now:
                    late.append(begin + made * interval)
                    made += 1
                continue
            connection = held[descriptor]
            word = connection.receive()
            if word is None:
                continue
            if word == "lost":
                del held[descriptor]
                connection.close()
                connection.open()
                held[connection.socket.fileno()] = connection
            if connection.due is not None:
                answers.append((connection.due, time.monotonic(), word))
                connection.due = None
                idle.append(connection)
        while late and idle:
            due = late.popleft()
            lags.append(time.monotonic() - due)
            idle.popleft().send(message, due)
    poll.unregister(ticks)
    os.close(ticks)
    end = time.monotonic()
    missing = [connection.due for connection in connections if connection.due is not None]
    answers += [(due, end, "lost") for due in (*missing, *late)]
    return {"answers": answers, "late_p99_ms": percentile(sorted(lags), 0.99) * 1e3}


if __name__ == "__main__":
    _port, _path, _rate, _seconds, _count, _length = sys.argv[1:]
    told = _load(int(_port), _path, float(_rate), float(_seconds), int(_count), int(_length))
    print(json.dumps(told))
