"""Load at a constant rate, for latency: requests leave when they are due, not when the last answer came.

`python -m benchmarks.rig.pace PORT PATH RATE SECONDS CONNECTIONS` prints, as JSON, `sent`, `errors` and latencies in
microseconds (`p50_us`, `p99_us`, `p999_us`, `max_us`).

Latency counts from the moment a request was *due*: a proxy that stalls makes the requests after it late as well, and
all of them are counted (no coordinated omission). The clock is a kernel timer read through epoll, as event loops round
to milliseconds, which is more than a proxy adds.
"""

import ctypes
import json
import os
import select
import socket
import sys
import time
from collections import deque

from benchmarks.rig.client import await_go, percentile
from benchmarks.rig.routes import request

_CLOCK_MONOTONIC = 1
_WARM_UP_SECONDS = 0.5


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Period(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


def timer(interval: float) -> int:
    """A descriptor that becomes readable every `interval` seconds."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
    step = _Timespec(int(interval), int(interval % 1 * 1e9))
    if descriptor < 0 or libc.timerfd_settime(descriptor, 0, ctypes.byref(_Period(step, step)), None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return descriptor


class _Connection:
    """One keep-alive connection, and when the request that it carries was due."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.missing = -1
        self.head = b""

    def send(self, message: bytes, due: float) -> None:
        self.due, self.missing, self.head = due, -1, b""
        self.socket.send(message)

    def receive(self) -> bool:
        """True once the answer is whole; ConnectionError when it cannot become so."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer was whole")
        if self.missing < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = self.head[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                raise ConnectionError(f"answered {head[:40]!r}")
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self.missing = int(length) - (len(self.head) - end - 4)
        else:
            self.missing -= len(data)
        return self.missing <= 0


def _load(port: int, path: str, rate: float, seconds: float, count: int) -> dict[str, float]:
    message = request("GET", path)
    connections = {}
    poll = select.epoll()
    for _ in range(count):
        connection = _Connection(port)
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket.fileno(), select.EPOLLIN)
    _pace(poll, connections, message, rate, _WARM_UP_SECONDS)
    await_go()
    taken, errors = _pace(poll, connections, message, rate, seconds)
    taken.sort()
    return {
        "sent": len(taken),
        "errors": errors,
        "p50_us": percentile(taken, 0.5) * 1e6,
        "p99_us": percentile(taken, 0.99) * 1e6,
        "p999_us": percentile(taken, 0.999) * 1e6,
        "max_us": taken[-1] * 1e6 if taken else 0.0,
    }


def _pace(
    poll: select.epoll, connections: dict[int, _Connection], message: bytes, rate: float, seconds: float
) -> tuple[list[float], int]:
    interval = 1 / rate
    idle = deque(connections.values())
    late: deque[float] = deque()
    taken: list[float] = []
    errors = 0
    wanted = round(seconds * rate)
    next_due = time.perf_counter() + interval
    ticks = timer(interval)
    poll.register(ticks, select.EPOLLIN)
    give_up = time.perf_counter() + seconds + 10
    while len(taken) + errors < wanted and time.perf_counter() < give_up:
        for descriptor, _ in poll.poll(1):
            if descriptor == ticks:
                os.read(ticks, 8)
                now = time.perf_counter()
                while next_due <= now:
                    late.append(next_due)
                    next_due += interval
                continue
            connection = connections[descriptor]
            try:
                if connection.receive():
                    taken.append(time.perf_counter() - connection.due)
                    idle.append(connection)
            except OSError:
                errors += 1
                poll.unregister(descriptor)
        while late and idle:
            idle.popleft().send(message, late.popleft())
    poll.unregister(ticks)
    os.close(ticks)
    return taken[:wanted], errors + max(0, wanted - len(taken) - errors)


if __name__ == "__main__":
    print(json.dumps(_load(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
