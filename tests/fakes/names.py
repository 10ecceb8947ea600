"""A real name server on a free port of 127.0.0.1, UDP and TCP, that answers what a test wrote down.

    with NameServer() as dns:
        dns.a("shop.test", "10.0.0.1", "10.0.0.2")
        dns.srv("_http._tcp.shop.test", (0, 5, 8080, "shop.test"))
        dns.fails("aaaa", "shop.test")

A name that has some records answers NODATA for the others; one that has none, NXDOMAIN. Records have TTL 0, so that
each look asks here. What does not fit into a datagram is truncated over UDP and whole over TCP.
"""

import contextlib
import socket
import struct
import threading
from typing import Self

_TYPES = {"a": 1, "aaaa": 28, "srv": 33}
_NOERROR, _SERVFAIL, _NXDOMAIN = 0, 2, 3


class NameServer:
    """Answers until it is stopped."""

    def __init__(self) -> None:
        self._udp, self._tcp = _same_port()
        self.port: int = self._udp.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._records: dict[tuple[str, int], list[bytes]] = {}
        self._failing: set[tuple[str, int]] = set()
        self.silent = False
        """Take queries and say nothing."""
        self.asked: list[tuple[str, str]] = []
        """(name, type) of every query, in order."""
        self._changed = threading.Condition()
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    # ---------------------------------------------------------------------------------------------- writing
    def a(self, name: str, *addresses: str) -> None:
        self._records[name, 1] = [socket.inet_aton(one) for one in addresses]

    def aaaa(self, name: str, *addresses: str) -> None:
        self._records[name, 28] = [socket.inet_pton(socket.AF_INET6, one) for one in addresses]

    def srv(self, name: str, *services: tuple[int, int, int, str]) -> None:
        """(priority, weight, port, target) each."""
        self._records[name, 33] = [struct.pack(">HHH", *one[:3]) + _name(one[3]) for one in services]

    def forget(self, name: str) -> None:
        """The name does not exist any more."""
        for kind in _TYPES.values():
            self._records.pop((name, kind), None)

    def fails(self, kind: str, name: str, *, yes: bool = True) -> None:
        """Whether queries for it are answered with SERVFAIL."""
        (self._failing.add if yes else self._failing.discard)((name, _TYPES[kind]))

    def wait_asked(self, count: int, patience: float = 15.0) -> None:
        """Block until so many more queries came."""
        with self._changed:
            until = len(self.asked) + count
            assert self._changed.wait_for(lambda: len(self.asked) >= until, patience), self.asked[-10:]

    # --------------------------------------------------------------------------------------------- answering
    def _serve_udp(self) -> None:
        while True:
            try:
                query, peer = self._udp.recvfrom(4096)
                if not query:  # shut down
                    return
                answer = self._answer(query, over_udp=True)
                if answer:
                    self._udp.sendto(answer, peer)
            except OSError:
                return

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, struct.error):
                connection.settimeout(5)
                while head := connection.recv(2):
                    query = connection.recv(struct.unpack(">H", head)[0])
                    answer = self._answer(query, over_udp=False)
                    connection.sendall(struct.pack(">H", len(answer)) + answer)

    def _answer(self, query: bytes, *, over_udp: bool) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += query[at] + 1
        question = query[12 : at + 5]
        (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
        name = ".".join(labels).lower()
        with self._changed:
            self.asked.append((name, next((word for word, number in _TYPES.items() if number == kind), str(kind))))
            self._changed.notify_all()
        if self.silent:
            return b""
        known = any(owner == name for owner, _ in self._records)
        code = _SERVFAIL if (name, kind) in self._failing else _NOERROR if known else _NXDOMAIN
        data = [] if code else self._records.get((name, kind), [])
        records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(one)) + one for one in data]
        most = 1232 if len(query) > at + 5 else 512  # EDNS was offered
        truncated = over_udp and sum(map(len, records)) + 12 + len(question) > most
        flags = 0x8580 | code | (0x0200 if truncated else 0)
        records = [] if truncated else records
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records)


def _name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def _same_port() -> tuple[socket.socket, socket.socket]:
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:
            udp.close()
