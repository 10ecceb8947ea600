"""Load at a constant rate by clients that come again when they are asked to: `Connection: close` is obeyed.

`python -m benchmarks.rig.renewing PORT PATH RATE SECONDS CONNECTIONS` prints, as JSON, `sent`, `failed`, `reasons`
(what failed, counted), `renewed` (connections closed on request and made anew), and latencies in microseconds from the
moment a request was due (`pace.py` tells why). A request that does not get its own whole 200 is failed: nothing is
tried again here.
"""

import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from typing import Any

from benchmarks.rig.client import await_go, percentile
from benchmarks.rig.pace import timer
from benchmarks.rig.routes import request


class _Client:
    """One client with one connection at a time."""

    def __init__(self, port: int, poll: select.epoll, by_descriptor: dict[int, "_Client"]) -> None:
        self._port, self._poll, self._all = port, poll, by_descriptor
        self.renewed = 0
        self.due = 0.0
        self._answer = b""
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._all[self.socket.fileno()] = self
        self._poll.register(self.socket.fileno(), select.EPOLLIN)

    def renew(self) -> None:
        """Close, connect anew."""
        self._poll.unregister(self.socket.fileno())
        del self._all[self.socket.fileno()]
        self.socket.close()
        self.renewed += 1
        self._connect()

    def send(self, message: bytes, due: float) -> None:
        """Ask."""
        self.due, self._answer = due, b""
        self.socket.send(message)

    def receive(self) -> bool:
        """True once the answer is whole; OSError when it cannot become so."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer was whole" if self._answer else "closed without an answer")
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return False
        fields = head.lower()
        if not fields.startswith(b"http/1.1 200"):
            raise ConnectionError(f"answered {head.split(bytes([13]))[0].decode(errors='replace')}")
        length = int(fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return False
        if b"\r\nconnection: close" in fields:
            self.renew()
        return True


def _load(port: int, path: str, rate: float, seconds: float, count: int) -> dict[str, Any]:
    message = request("GET", path)
    poll = select.epoll()
    clients: dict[int, _Client] = {}
    idle = deque([_Client(port, poll, clients) for _ in range(count)])
    await_go()
    ticks = timer(1 / rate)
    poll.register(ticks, select.EPOLLIN)
    late: deque[float] = deque()
    taken: list[float] = []
    reasons: Counter[str] = Counter()
    wanted = round(seconds * rate)
    next_due = time.perf_counter() + 1 / rate
    give_up = time.perf_counter() + seconds + 20
    sent = 0
    while len(taken) + reasons.total() < wanted and time.perf_counter() < give_up:
        for descriptor, _ in poll.poll(1):
            if descriptor == ticks:
                os.read(ticks, 8)
                now = time.perf_counter()
                while next_due <= now:
                    late.append(next_due)
                    next_due += 1 / rate
                continue
            client = clients[descriptor]
            try:
                if client.receive():
                    taken.append(time.perf_counter() - client.due)
                    idle.append(client)
            except OSError as error:
                if client.due == 0.0:  # closed while it rested: its next request would have gone elsewhere
                    idle.remove(client)
                else:
                    reasons[str(error)] += 1
                client.renew()
                idle.append(client)
            client.due = 0.0
        while late and idle and sent < wanted:
            client = idle.popleft()
            sent += 1
            try:
                client.send(message, late.popleft())
            except OSError as error:
                reasons[f"not sent: {error}"] += 1
                client.renew()
                idle.append(client)
    taken.sort()
    return {
        "sent": sent,
        "failed": reasons.total() + max(0, wanted - len(taken) - reasons.total()),
        "reasons": dict(reasons),
        "renewed": sum(client.renewed for client in clients.values()),
        "p50_us": percentile(taken, 0.5) * 1e6,
        "p99_us": percentile(taken, 0.99) * 1e6,
        "max_us": taken[-1] * 1e6 if taken else 0.0,
    }


if __name__ == "__main__":
    print(json.dumps(_load(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
